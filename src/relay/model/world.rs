//! The model of two sockets, their peers, and pipes.
//!
//! It keeps to what the kernel does where it matters: readiness comes in edges; a pipe counts slots, and
//! a segment takes one however small it is; splicing stops at an urgent mark; a reset is reported once
//! and leaves what was queued before it readable.

use std::collections::VecDeque;

use rustix::{
    event::epoll::EventFlags,
    io::{Errno, Result},
};

use crate::relay::{Level, Side, Syscalls};

/// Slots of a model pipe: few, so that small segments fill it soon.
const SLOTS: usize = 4;

/// What a model socket's peer does not read fills this much.
pub(super) const SEND_BUFFER: usize = 50_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) bytes: Vec<u8>,
    pub(super) urgent: bool,
}

/// Takes the first `n` bytes out.
pub(super) fn take(bytes: &mut Vec<u8>, n: usize) -> Vec<u8> {
    let rest = bytes.split_off(n);
    std::mem::replace(bytes, rest)
}

/// A socket of the proxy, and the peer at its other end.
#[derive(Debug, Default)]
pub(super) struct Socket {
    pub(super) queue: VecDeque<Segment>,
    pub(super) sent: Vec<u8>,
    pub(super) end: Option<End>,
    pub(super) reset_told: bool,
    pub(super) unread: Vec<u8>,
    /// Whether the last of those bytes wait for the end of the stream.
    pub(super) held_back: bool,
    pub(super) received: Vec<u8>,
    pub(super) fin_received: bool,
    pub(super) wants_room: bool,
    pub(super) edge: Edges,
}

/// Edges since epoll was last asked.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Edges {
    pub(super) input: bool,
    pub(super) room: bool,
}

impl Socket {
    pub(super) fn events(&mut self) -> Option<EventFlags> {
        let edge = std::mem::take(&mut self.edge);
        if !edge.input && !edge.room {
            return None;
        }
        let mut events = EventFlags::empty();
        events.set(EventFlags::IN, !self.queue.is_empty() || self.end.is_some());
        events.set(
            EventFlags::PRI,
            self.queue.iter().any(|segment| segment.urgent),
        );
        events.set(EventFlags::RDHUP, self.end.is_some());
        events.set(EventFlags::OUT, self.unread.len() < SEND_BUFFER);
        if self.end == Some(End::Reset) {
            events |= EventFlags::ERR | EventFlags::HUP | EventFlags::OUT;
        }
        Some(events)
    }

    fn end_result(&mut self) -> Result<usize> {
        match self.end {
            None => Err(Errno::AGAIN),
            Some(End::Reset) if !self.reset_told => {
                self.reset_told = true;
                Err(Errno::CONNRESET)
            }
            Some(_) => Ok(0),
        }
    }

    fn writable(&mut self) -> Result<usize> {
        if self.end == Some(End::Reset) {
            let first = !std::mem::replace(&mut self.reset_told, true);
            return Err(if first { Errno::CONNRESET } else { Errno::PIPE });
        }
        match SEND_BUFFER.saturating_sub(self.unread.len()) {
            0 => {
                self.wants_room = true;
                Err(Errno::AGAIN)
            }
            room => Ok(room),
        }
    }
}

/// The model of a pipe.
#[derive(Debug, Default)]
pub(super) struct ModelPipe {
    pub(super) slots: VecDeque<Vec<u8>>,
}

impl Level for ModelPipe {
    fn level(&self) -> usize {
        self.slots.iter().map(Vec::len).sum()
    }
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) client: Socket,
    pub(super) target: Socket,
    pub(super) lent: usize,
    pub(super) no_pipes: bool,
    pub(super) calls_in_vain: usize,
    /// Calls still to be refused for no fault of the connection.
    pub(super) refusals: usize,
    /// What the next call fails with although its connection is whole.
    pub(super) lie: Option<Errno>,
    pub(super) steps: u64,
}

impl World {
    pub(super) fn socket(&mut self, side: Side) -> &mut Socket {
        match side {
            Side::Client => &mut self.client,
            Side::Target => &mut self.target,
        }
    }

    /// Fails as a machine does that is short of something, or has a security module.
    fn refuse(&mut self) -> Result<()> {
        const REASONS: [Errno; 4] = [Errno::NOMEM, Errno::NOBUFS, Errno::IO, Errno::PERM];
        if let Some(errno) = self.lie.take() {
            return Err(errno);
        }
        if self.refusals == 0 {
            return Ok(());
        }
        self.steps += 1;
        self.refusals -= 1;
        Err(REASONS[self.refusals % REASONS.len()])
    }

    fn count<T>(&mut self, result: Result<T>) -> Result<T> {
        self.steps += 1;
        if matches!(result, Err(Errno::AGAIN)) {
            self.calls_in_vain += 1;
        }
        result
    }
}

impl Syscalls for World {
    type Pipe = ModelPipe;

    fn recv(&mut self, from: Side, buf: &mut [u8]) -> Result<usize> {
        self.refuse()?;
        let socket = self.socket(from);
        let mut n = 0;
        while let Some(segment) = socket.queue.front_mut() {
            if n == buf.len() || (segment.urgent && n > 0) {
                break;
            }
            segment.urgent = false;
            let taken = segment.bytes.len().min(buf.len() - n);
            buf[n..n + taken].copy_from_slice(&take(&mut segment.bytes, taken));
            n += taken;
            if segment.bytes.is_empty() {
                socket.queue.pop_front();
            }
        }
        let result = if n > 0 { Ok(n) } else { socket.end_result() };
        self.count(result)
    }

    fn send(&mut self, to: Side, bytes: &[u8]) -> Result<usize> {
        self.refuse()?;
        let socket = self.socket(to);
        let result = socket.writable().map(|room| {
            let n = room.min(bytes.len());
            socket.wants_room |= n < bytes.len();
            socket.unread.extend_from_slice(&bytes[..n]);
            socket.held_back = false;
            n
        });
        self.count(result)
    }

    fn send_last(&mut self, to: Side, bytes: &[u8]) -> Result<usize> {
        let sent = self.send(to, bytes)?;
        // What does not fit makes the kernel send what it has.
        self.socket(to).held_back = sent == bytes.len();
        Ok(sent)
    }

    fn fill(&mut self, from: Side, pipe: &mut ModelPipe, most: usize) -> Result<usize> {
        assert!(pipe.slots.is_empty(), "filled a pipe that was not empty");
        self.refuse()?;
        let socket = self.socket(from);
        let mut n = 0;
        while pipe.slots.len() < SLOTS && n < most {
            match socket.queue.front_mut() {
                Some(segment) if !segment.urgent => {
                    let taken = segment.bytes.len().min(most - n);
                    pipe.slots.push_back(take(&mut segment.bytes, taken));
                    n += taken;
                    if segment.bytes.is_empty() {
                        socket.queue.pop_front();
                    }
                }
                _ => break,
            }
        }
        let result = match (n, socket.queue.is_empty(), socket.end) {
            (0, true, _) => socket.end_result(),
            (0, false, None) => Err(Errno::AGAIN),
            (0, false, Some(_)) => Ok(0),
            _ => Ok(n),
        };
        self.count(result)
    }

    fn drain(&mut self, pipe: &mut ModelPipe, to: Side) -> Result<usize> {
        assert!(!pipe.slots.is_empty(), "drained an empty pipe");
        self.refuse()?;
        let socket = self.socket(to);
        let result = socket.writable().map(|room| {
            let mut n = 0;
            while let Some(slot) = pipe.slots.front_mut()
                && n < room
            {
                let taken = slot.len().min(room - n);
                socket.unread.append(&mut take(slot, taken));
                n += taken;
                if slot.is_empty() {
                    pipe.slots.pop_front();
                }
            }
            n
        });
        self.count(result)
    }

    fn take_pipe(&mut self) -> Option<ModelPipe> {
        if self.no_pipes {
            return None;
        }
        self.lent += 1;
        Some(ModelPipe::default())
    }

    fn give_pipe(&mut self, _: ModelPipe) {
        self.lent -= 1;
    }

    fn shutdown(&mut self, to: Side) -> Result<()> {
        self.refuse()?;
        let socket = self.socket(to);
        if socket.end == Some(End::Reset) {
            return Err(Errno::NOTCONN);
        }
        assert!(!socket.fin_received, "ended a stream twice");
        socket.fin_received = true;
        socket.held_back = false;
        Ok(())
    }
}
