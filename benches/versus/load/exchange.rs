//! Connect, send a request, receive the answer, see the end, close.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvFlags, recv};

use super::Latency;
use crate::{
    backend::{Backend, MESSAGE},
    net::{self, EventFlags, PATIENCE, Poller, token},
};

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After this long.
    Elapsed(Duration),
    /// After this many sessions.
    Sessions(u64),
}

/// What the sessions did.
pub struct Outcome {
    /// From connect to the end of the stream; also counts the sessions.
    pub latency: Latency,
    /// From the first connect to the last end.
    pub elapsed: Duration,
}

struct Session {
    stream: TcpStream,
    started: Instant,
    received: usize,
}

/// Keeps `at_once` sessions going, spread over the addresses in turn.
pub fn run(backend: &Backend, to: &[SocketAddr], at_once: usize, until: Until) -> Result<Outcome> {
    let poller = Poller::new()?;
    let mut ready = Vec::new();
    let mut sessions = HashMap::new();
    let mut addresses = to.iter().copied().cycle();
    let mut latency = Latency::new();
    let mut begun = 0;
    let started = Instant::now();
    let mut last_progress = started;
    loop {
        let more = match until {
            Until::Elapsed(window) => started.elapsed() < window,
            Until::Sessions(count) => begun < count,
        };
        if more && sessions.len() < at_once {
            let address = addresses.next().context("no address to connect to")?;
            let session = Session::begin(address)?;
            poller.add(&session.stream, EventFlags::IN)?;
            sessions.insert(token(&session.stream), session);
            begun += 1;
            continue;
        }
        if sessions.is_empty() {
            break;
        }
        poller.wait(&mut ready, Duration::from_millis(100))?;
        for event in &ready {
            let key = event.data.u64();
            if let Some(session) = sessions.get_mut(&key)
                && session.is_over()?
            {
                last_progress = Instant::now();
                latency.record(last_progress - session.started);
                sessions.remove(&key);
            }
        }
        ensure!(
            last_progress.elapsed() < PATIENCE,
            "{} sessions stalled",
            sessions.len()
        );
    }
    backend.wait_until_quiet()?;
    Ok(Outcome {
        latency,
        elapsed: last_progress - started,
    })
}

impl Session {
    fn begin(address: SocketAddr) -> Result<Self> {
        let started = Instant::now();
        let stream = net::connect(address).context("connect")?;
        net::send_small(&stream, &[b'?'; MESSAGE])?;
        Ok(Self {
            stream,
            started,
            received: 0,
        })
    }

    fn is_over(&mut self) -> Result<bool> {
        loop {
            let mut buffer = [0; 2 * MESSAGE];
            match recv(&self.stream, &mut buffer, RecvFlags::empty()) {
                Ok((0, _)) => {
                    ensure!(
                        self.received == MESSAGE,
                        "an answer had {} bytes",
                        self.received
                    );
                    return Ok(true);
                }
                Ok((length, _)) => {
                    ensure!(
                        buffer[..length].iter().all(|&b| b == b'?'),
                        "an answer was changed"
                    );
                    self.received += length;
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error).context("a session broke"),
            }
        }
    }
}
