//! The services of small messages, in one thread and one loop.

use std::{
    collections::{HashMap, VecDeque},
    net::{TcpListener, TcpStream},
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::net::{RecvFlags, recv};

use super::{MESSAGE, Shared, accept_all};
use crate::net::{self, EventFlags, PATIENCE, Poller, token};

/// What is done with what comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It goes back, for as long as the session lasts.
    Echo,
    /// It goes back after [`DISTANCE`].
    EchoLater,
    /// One whole message is answered, then the session is closed from here.
    AnswerOnce,
}

/// How long an echo from afar takes. One that comes at once finds a proxy that has not gone to sleep
/// yet, if that proxy is slow enough; no shell on the other side of a network is that close.
const DISTANCE: Duration = Duration::from_millis(1);

/// An echo on its way: when it is due, to whom, and what it says.
type Echo = (Instant, u64, Vec<u8>);

struct Session {
    stream: TcpStream,
    manner: Manner,
    received: usize,
}

/// Serves for ever.
pub(super) fn serve(listeners: &[(&TcpListener, Manner)], shared: &Shared) -> Result<()> {
    let poller = Poller::new()?;
    for (listener, _) in listeners {
        poller.add(*listener, EventFlags::IN)?;
    }
    let mut sessions = HashMap::new();
    let mut echoes = VecDeque::new();
    let mut ready = Vec::new();
    loop {
        poller.wait(&mut ready, send_due(&mut echoes, &mut sessions))?;
        for event in &ready {
            let key = event.data.u64();
            if let Some((listener, manner)) = listeners.iter().find(|(l, _)| token(*l) == key) {
                for stream in accept_all(listener) {
                    let session = Session {
                        stream: stream?,
                        manner: *manner,
                        received: 0,
                    };
                    poller.add(&session.stream, EventFlags::IN)?;
                    sessions.insert(token(&session.stream), session);
                }
            } else if let Some(session) = sessions.get_mut(&key)
                && !session.go_on(&mut echoes)
            {
                sessions.remove(&key);
            }
        }
        shared.talking.store(sessions.len() as u64, Relaxed);
    }
}

/// Sends the echoes that are due; how long the next one still takes.
fn send_due(echoes: &mut VecDeque<Echo>, sessions: &mut HashMap<u64, Session>) -> Duration {
    while let Some((due, key, bytes)) = echoes.pop_front() {
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            echoes.push_front((due, key, bytes));
            return left;
        }
        if let Some(session) = sessions.get(&key) {
            // One that broke meanwhile is seen to when its socket says so.
            let _ = net::send_small(&session.stream, &bytes);
        }
    }
    PATIENCE
}

impl Session {
    /// Handles what came in; whether the session goes on. A session that breaks ends here: what
    /// its client makes of that is what counts.
    fn go_on(&mut self, echoes: &mut VecDeque<Echo>) -> bool {
        let mut buffer = [0; 4 * MESSAGE];
        match recv(&self.stream, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => false,
            Ok((length, _)) if self.manner == Manner::Echo => {
                net::send_small(&self.stream, &buffer[..length]).is_ok()
            }
            Ok((length, _)) if self.manner == Manner::EchoLater => {
                let due = Instant::now() + DISTANCE;
                echoes.push_back((due, token(&self.stream), buffer[..length].to_vec()));
                true
            }
            Ok((length, _)) => {
                self.received += length;
                if self.received < MESSAGE {
                    return true;
                }
                // The answer is on its way whether or not this reports an error; either way we close.
                let _ = net::send_small(&self.stream, &buffer[..MESSAGE]);
                false
            }
            Err(error) => error == rustix::io::Errno::AGAIN,
        }
    }
}
