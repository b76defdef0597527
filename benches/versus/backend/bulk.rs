//! The bulk service: sends up to a limit, swallows everything.
//!
//! Without a limit a session is sent bytes from its beginning until all are told to stop. With one
//! it waits for a first byte from its client, so that many can be opened and begin at once, and it
//! is closed when the limit is reached.

use std::{
    collections::HashMap,
    net::{TcpListener, TcpStream},
    sync::atomic::Ordering::Relaxed,
};

use anyhow::Result;

use super::{Shared, UNLIMITED, accept_all};
use crate::{
    load::stream::{Bytes, Moved},
    net::{EventFlags, PATIENCE, Poller, token},
};

struct Session {
    stream: TcpStream,
    /// Still to be sent, if anything is to be sent now.
    left: Option<u64>,
}

/// Serves for ever.
pub(super) fn serve(listener: &TcpListener, shared: &Shared) -> Result<()> {
    let poller = Poller::new()?;
    poller.add(listener, EventFlags::IN)?;
    let mut sessions = HashMap::new();
    let mut bytes = Bytes::new();
    let mut ready = Vec::new();
    loop {
        poller.wait(&mut ready, PATIENCE)?;
        for event in &ready {
            let key = event.data.u64();
            if key == token(listener) {
                for stream in accept_all(listener) {
                    let limit = shared.limit.load(Relaxed);
                    let session = Session {
                        stream: stream?,
                        left: (limit == UNLIMITED).then_some(limit),
                    };
                    poller.add(&session.stream, session.interest())?;
                    sessions.insert(token(&session.stream), session);
                }
            } else if let Some(session) = sessions.get_mut(&key)
                && !session.go_on(event.flags, &poller, &mut bytes, shared)?
            {
                sessions.remove(&key);
            }
        }
        shared.in_bulk.store(sessions.len() as u64, Relaxed);
    }
}

impl Session {
    fn interest(&self) -> EventFlags {
        match self.left {
            Some(_) => EventFlags::IN | EventFlags::OUT,
            None => EventFlags::IN,
        }
    }

    /// Moves one piece each way; whether the session goes on.
    fn go_on(
        &mut self,
        ready: EventFlags,
        poller: &Poller,
        bytes: &mut Bytes,
        shared: &Shared,
    ) -> Result<bool> {
        if ready.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            match bytes.swallow(&self.stream) {
                Moved::Some(count) => {
                    shared.received.fetch_add(count, Relaxed);
                    let limit = shared.limit.load(Relaxed);
                    if self.left.is_none() && limit > 0 && limit < UNLIMITED {
                        self.left = Some(limit);
                        poller.modify(&self.stream, self.interest())?;
                    }
                }
                Moved::NoneNow => {}
                Moved::End => return Ok(false),
            }
        }
        if let Some(left) = self.left
            && ready.contains(EventFlags::OUT)
        {
            if shared.limit.load(Relaxed) == 0 {
                self.left = None;
                poller.modify(&self.stream, self.interest())?;
                return Ok(true);
            }
            match bytes.send(&self.stream, left) {
                Moved::Some(count) => {
                    shared.sent.fetch_add(count, Relaxed);
                    self.left = Some(left - count);
                    return Ok(left > count);
                }
                Moved::NoneNow => {}
                Moved::End => return Ok(false),
            }
        }
        Ok(true)
    }
}
