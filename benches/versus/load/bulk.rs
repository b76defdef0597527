//! Bulk: connections that send and receive as fast as they can.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::stream::{Bytes, Moved};
use crate::{
    backend::{Backend, Counters, UNLIMITED},
    net::{self, Event, EventFlags, PATIENCE, Poller, token},
};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the target to the client.
    Down,
    /// From the client to the target.
    Up,
    /// Both ways at once.
    Both,
}

/// What a bulk run moved.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Bytes that arrived, both directions.
    pub bytes: u64,
    /// From when the first could flow until the last had arrived.
    pub elapsed: Duration,
}

struct Flows {
    poller: Poller,
    ready: Vec<Event>,
    streams: HashMap<u64, TcpStream>,
    bytes: Bytes,
    sending: bool,
    sent: u64,
    received: u64,
}

/// Moves bytes for `window`, then waits until every byte sent has arrived: nothing may be missing.
pub fn for_a_while(
    backend: &Backend,
    to: SocketAddr,
    connections: usize,
    direction: Direction,
    window: Duration,
) -> Result<Outcome> {
    match direction {
        Direction::Up => backend.stop_sending()?,
        Direction::Down | Direction::Both => backend.send(UNLIMITED)?,
    }
    let before = backend.counters()?;
    let started = Instant::now();
    let mut flows = Flows::connect(to, connections, direction != Direction::Down)?;
    while started.elapsed() < window {
        let open = flows.turn(Duration::from_millis(50))?;
        ensure!(open == connections, "{} sessions broke", connections - open);
    }
    flows.sending = false;
    backend.stop_sending()?;
    let arrived = flows.wait_for_the_rest(backend, &before)?;
    let elapsed = arrived.duration_since(started);
    let bytes = flows.sent + flows.received;
    drop(flows);
    backend.wait_until_quiet()?;
    Ok(Outcome { bytes, elapsed })
}

/// Connections of which each receives the same amount to its end, all at once.
pub struct Herd<'a> {
    backend: &'a Backend,
    flows: Flows,
}

impl<'a> Herd<'a> {
    /// Opens the connections; nothing flows yet.
    pub fn open(backend: &'a Backend, to: SocketAddr, connections: usize) -> Result<Self> {
        let flows = Flows::connect(to, connections, false)?;
        let deadline = Instant::now() + PATIENCE;
        while backend.counters()?.open < connections as u64 {
            ensure!(
                Instant::now() < deadline,
                "not every session reached the target"
            );
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { backend, flows })
    }

    /// Receives `length` bytes over each connection, and its end.
    pub fn stampede(mut self, length: u64, at_most: Duration) -> Result<Outcome> {
        let connections = self.flows.streams.len();
        self.backend.send(length)?;
        let started = Instant::now();
        for stream in self.flows.streams.values() {
            net::send_small(stream, b"g")?;
        }
        loop {
            let open = self.flows.turn(Duration::from_millis(50))?;
            if open == 0 {
                break;
            }
            ensure!(
                started.elapsed() < at_most,
                "{open} of {connections} sessions did not finish in {at_most:?}"
            );
        }
        let elapsed = started.elapsed();
        let (bytes, expected) = (self.flows.received, length * connections as u64);
        ensure!(bytes == expected, "{bytes} of {expected} bytes arrived");
        self.backend.wait_until_quiet()?;
        Ok(Outcome { bytes, elapsed })
    }
}

impl Flows {
    fn connect(to: SocketAddr, connections: usize, sending: bool) -> Result<Self> {
        let mut flows = Self {
            poller: Poller::new()?,
            ready: Vec::new(),
            streams: HashMap::new(),
            bytes: Bytes::new(),
            sending,
            sent: 0,
            received: 0,
        };
        for index in 0..connections {
            let stream = net::connect(to)
                .with_context(|| format!("connection {} of {connections}", index + 1))?;
            let interest = if sending {
                EventFlags::IN | EventFlags::OUT
            } else {
                EventFlags::IN
            };
            flows.poller.add(&stream, interest)?;
            flows.streams.insert(token(&stream), stream);
        }
        Ok(flows)
    }

    /// Waits once and moves a piece on everything that is ready. Returns how many are open.
    fn turn(&mut self, timeout: Duration) -> Result<usize> {
        self.poller.wait(&mut self.ready, timeout)?;
        for event in &self.ready {
            let (key, flags) = (event.data.u64(), event.flags);
            let Some(stream) = self.streams.get(&key) else {
                continue;
            };
            let mut goes_on = true;
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                match self.bytes.swallow(stream) {
                    Moved::Some(count) => self.received += count,
                    Moved::NoneNow => {}
                    Moved::End => goes_on = false,
                }
            }
            if flags.contains(EventFlags::OUT) && goes_on {
                if self.sending {
                    match self.bytes.send(stream, u64::MAX) {
                        Moved::Some(count) => self.sent += count,
                        Moved::NoneNow => {}
                        Moved::End => goes_on = false,
                    }
                } else {
                    self.poller.modify(stream, EventFlags::IN)?;
                }
            }
            if !goes_on {
                self.streams.remove(&key);
            }
        }
        Ok(self.streams.len())
    }

    /// Receives until nothing is on its way in either direction. Returns when the last byte came.
    fn wait_for_the_rest(&mut self, backend: &Backend, before: &Counters) -> Result<Instant> {
        let mut last_progress = Instant::now();
        let mut seen = (self.received, before.received);
        loop {
            let open = self.streams.len();
            ensure!(
                self.turn(Duration::from_millis(1))? == open,
                "a session broke at the end"
            );
            let now = backend.counters()?;
            let came_in = (self.received, now.received);
            if came_in != seen {
                seen = came_in;
                last_progress = Instant::now();
            }
            // Either side may know of bytes that the other has not counted yet.
            let down = (now.sent - before.sent).abs_diff(self.received);
            let up = self.sent.abs_diff(now.received - before.received);
            if down == 0 && up == 0 {
                return Ok(last_progress);
            }
            ensure!(
                last_progress.elapsed() < PATIENCE,
                "{down} bytes down and {up} bytes up were lost or came twice"
            );
        }
    }
}
