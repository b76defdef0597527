//! The services of small messages, in one thread and one loop.

use std::{
    collections::HashMap,
    net::{TcpListener, TcpStream},
    sync::atomic::Ordering::Relaxed,
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
    /// One whole message is answered, then the session is closed from here.
    AnswerOnce,
}

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
    let mut ready = Vec::new();
    loop {
        poller.wait(&mut ready, PATIENCE)?;
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
                && !session.go_on()
            {
                sessions.remove(&key);
            }
        }
        shared.talking.store(sessions.len() as u64, Relaxed);
    }
}

impl Session {
    /// Handles what came in; whether the session goes on. A session that breaks ends here: what
    /// its client makes of that is what counts.
    fn go_on(&mut self) -> bool {
        let mut buffer = [0; 4 * MESSAGE];
        match recv(&self.stream, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => false,
            Ok((length, _)) if self.manner == Manner::Echo => {
                net::send_small(&self.stream, &buffer[..length]).is_ok()
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
