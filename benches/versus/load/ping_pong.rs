//! One message there and back, again and again, over each of some connections.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvFlags, recv};

use super::{Latency, exchange::Until};
use crate::{
    backend::{Backend, MESSAGE},
    net::{self, EventFlags, PATIENCE, Poller, token},
};

/// What the messages did.
pub struct Outcome {
    /// From send to return; also counts the round trips.
    pub latency: Latency,
    /// From the first message to the last.
    pub elapsed: Duration,
}

struct Session {
    stream: TcpStream,
    sent: Instant,
    received: usize,
}

/// Plays over `connections` connections at once. [`Until::Sessions`] counts round trips here.
pub fn run(backend: &Backend, to: SocketAddr, connections: usize, until: Until) -> Result<Outcome> {
    let poller = Poller::new()?;
    let mut ready = Vec::new();
    let mut sessions = HashMap::new();
    let mut latency = Latency::new();
    let started = Instant::now();
    let mut last_progress = started;
    for _ in 0..connections {
        let stream = net::connect(to).context("connect")?;
        stream.set_nodelay(true)?;
        poller.add(&stream, EventFlags::IN)?;
        let mut session = Session {
            stream,
            sent: started,
            received: 0,
        };
        session.serve_ball()?;
        sessions.insert(token(&session.stream), session);
    }
    let mut playing = connections;
    while playing > 0 {
        poller.wait(&mut ready, Duration::from_millis(100))?;
        for event in &ready {
            let session = sessions
                .get_mut(&event.data.u64())
                .context("an unknown session")?;
            if !session.is_back()? {
                continue;
            }
            last_progress = Instant::now();
            latency.record(last_progress - session.sent);
            let more = match until {
                Until::Elapsed(window) => last_progress - started < window,
                Until::Sessions(count) => latency.count() < count,
            };
            if more {
                session.serve_ball()?;
            } else {
                playing -= 1;
            }
        }
        ensure!(
            last_progress.elapsed() < PATIENCE,
            "{playing} sessions stalled"
        );
    }
    drop(sessions);
    backend.wait_until_quiet()?;
    Ok(Outcome {
        latency,
        elapsed: last_progress - started,
    })
}

impl Session {
    fn serve_ball(&mut self) -> Result<()> {
        self.received = 0;
        self.sent = Instant::now();
        net::send_small(&self.stream, &[b'p'; MESSAGE])
    }

    fn is_back(&mut self) -> Result<bool> {
        let mut buffer = [0; 2 * MESSAGE];
        match recv(&self.stream, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => anyhow::bail!("a session ended"),
            Ok((length, _)) => {
                self.received += length;
                ensure!(self.received <= MESSAGE, "more came back than was sent");
                Ok(self.received == MESSAGE)
            }
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(error).context("a session broke"),
        }
    }
}
