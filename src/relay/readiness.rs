//! What edge-triggered epoll has said of a socket, and what calls on it have shown since.

use rustix::event::epoll::EventFlags;
use serde::{Deserialize, Serialize};

/// Whether it is worth calling on a socket.
///
/// Readiness only ever decides whether to try; what happened is for the result of the call to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Readiness {
    readable: bool,
    writable: bool,
    /// An end or an error was announced: no further edge will come, so reads go on until one
    /// says so itself.
    closing: bool,
    /// What comes after the bytes that wait is an orderly end.
    ends: bool,
    /// Urgent data was announced: a read stops short at the mark with more behind it.
    urgent: bool,
    /// The connection broke, or both of its directions have ended.
    hung_up: bool,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::CONNECTED
    }
}

impl Readiness {
    /// A socket that has just connected: room to write, and no edge for input yet.
    pub const CONNECTED: Self = Self {
        readable: false,
        writable: true,
        closing: false,
        ends: false,
        urgent: false,
        hung_up: false,
    };

    /// The events to ask for, once, for the life of the socket.
    pub const INTEREST: EventFlags = EventFlags::IN
        .union(EventFlags::OUT)
        .union(EventFlags::RDHUP)
        .union(EventFlags::PRI)
        .union(EventFlags::ET);

    /// Takes in what epoll reported.
    pub fn note(&mut self, events: EventFlags) {
        let ending = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if events.intersects(ending) {
            let orderly = !self.closing || self.ends;
            self.set_closing();
            self.ends = orderly && !events.contains(EventFlags::ERR);
        }
        if events.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::OUT) {
            self.writable = true;
        }
        self.hung_up |= events.intersects(EventFlags::HUP | EventFlags::ERR);
        self.readable |= events.intersects(EventFlags::IN | EventFlags::PRI);
        self.urgent |= events.contains(EventFlags::PRI);
    }

    /// Notes that only reads can tell what else there is.
    pub fn set_closing(&mut self) {
        self.closing = true;
        self.ends = false;
        self.readable = true;
    }

    /// Whether to try to read.
    pub fn readable(&self) -> bool {
        self.readable
    }

    /// Whether an orderly end was announced, and nothing else besides it and bytes.
    pub fn ends(&self) -> bool {
        self.ends && !self.urgent
    }

    /// Whether the connection broke, or both of its directions have ended.
    pub fn hung_up(&self) -> bool {
        self.hung_up
    }

    /// Whether to try to write.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// Whether urgent data was announced and not yet read past.
    pub fn urgent(&self) -> bool {
        self.urgent
    }

    /// A read returned less than was asked for. That empties the queue, so new data will make a
    /// new edge, unless something announced earlier still waits behind.
    pub fn read_short(&mut self) {
        self.readable = self.closing || self.urgent;
    }

    /// A read said `EAGAIN`.
    pub fn read_would_block(&mut self) {
        self.readable = false;
        self.urgent = false;
    }

    /// A write said `EAGAIN` or took less than it was given; the kernel has noted that somebody
    /// waits for room.
    pub fn write_would_block(&mut self) {
        self.writable = false;
    }
}
