//! Moving bytes between the two sockets of a session.
//!
//! A [`Relay`] is a plain value: it makes progress when told that a socket may be ready and is
//! otherwise inert, so it can be tested step by step, moved to another thread or given away. It
//! knows sockets only through [`Syscalls`], and nothing of mappings, metrics or event loops.
//!
//! What it promises:
//!
//! - Bytes come out once, in order, and only on the other socket of the same session.
//! - The end of a stream is passed on after its last byte, each direction for itself. Only a read
//!   of zero bytes is an end of stream; readiness never is.
//! - A reset never turns into an end of stream: what was read before it is delivered, then
//!   [`Progress::Settling`] asks the caller to reset the other side once that has acknowledged.
//! - Between two calls, with no bytes in flight, it owns neither buffer nor pipe.

mod direction;
mod kernel;
mod mode;
mod pipe;
mod readiness;
mod saved;
mod syscalls;

#[cfg(test)]
mod model;

use rustix::io::Errno;

use direction::{Broken, Direction, Step, may_pass};
pub use kernel::Kernel;
pub use mode::RelayMode;
pub use pipe::{Pipe, PipeBudget, PipePool, SMALL_PIPE};
pub use readiness::Readiness;
pub use saved::SavedRelay;
pub use syscalls::{Level, Side, Syscalls};

/// Both directions of a session, and what is known of its two sockets.
#[derive(Debug)]
pub struct Relay<P> {
    up: Direction<P>,
    down: Direction<P>,
    client: Readiness,
    target: Readiness,
    fault: Option<Fault>,
}

/// A side that broke, and how the kernel put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which side.
    pub side: Side,
    /// What the kernel said first.
    pub errno: Errno,
}

/// What has to happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing, until a socket is ready again.
    Waiting,
    /// More is possible now; the turn's budget was spent.
    Again,
    /// More is possible now; what a direction may move was spent.
    Exhausted,
    /// This machine refused a call for a reason that may pass: no event will tell when. What was read is
    /// kept.
    Refused(Errno),
    /// One side broke and this one has been sent all there is: reset it as soon as its peer has
    /// acknowledged, so that neither bytes nor the fact of the break get lost.
    Settling(Side),
    /// Both directions ended, every byte was delivered: close the sockets.
    Closed,
    /// Both sides broke: close the sockets.
    Broken,
}

/// How much may be moved.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Bytes each way, about, before others get their turn.
    pub turn: usize,
    /// Bytes to the target at most.
    pub up: usize,
    /// Bytes to the client at most.
    pub down: usize,
}

impl Budget {
    /// A turn of that many bytes each way, and nothing else to heed.
    pub const fn turn(bytes: usize) -> Self {
        Self {
            turn: bytes,
            up: usize::MAX,
            down: usize::MAX,
        }
    }
}

impl<P: Level> Relay<P> {
    /// A relay between two connected sockets.
    pub fn new(mode: RelayMode) -> Self {
        Self {
            up: Direction::new(Side::Client, mode),
            down: Direction::new(Side::Target, mode),
            client: Readiness::CONNECTED,
            target: Readiness::CONNECTED,
            fault: None,
        }
    }

    /// What is known of one side's socket.
    pub fn readiness(&mut self, side: Side) -> &mut Readiness {
        match side {
            Side::Client => &mut self.client,
            Side::Target => &mut self.target,
        }
    }

    /// The first side that broke.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Notes an error the caller learnt of elsewhere, before anything was moved.
    pub fn report_fault(&mut self, side: Side, errno: Errno) {
        self.fault = Some(Fault { side, errno });
        self.direction_mut(side.other()).sink_lost();
        self.readiness(side).set_closing();
    }

    /// Sends `bytes` to `side` before anything that comes from the other; they are not counted as
    /// delivered. For a relay that has moved nothing yet.
    pub fn prepend(&mut self, side: Side, bytes: Box<[u8]>) {
        self.direction_mut(side.other()).prepend(bytes);
    }

    /// Bytes delivered to `side` so far.
    pub fn delivered_to(&self, side: Side) -> u64 {
        match side {
            Side::Client => self.down.delivered(),
            Side::Target => self.up.delivered(),
        }
    }

    /// Bytes that were read and are not delivered to `side` yet.
    pub fn in_flight_to(&self, side: Side) -> u64 {
        match side {
            Side::Client => self.down.in_flight(),
            Side::Target => self.up.in_flight(),
        }
    }

    /// Bytes of those that went through a pipe.
    pub fn spliced(&self) -> u64 {
        self.up.spliced() + self.down.spliced()
    }

    /// The side whose end of stream was passed on while the other has not ended yet.
    pub fn half_closed_by(&self) -> Option<Side> {
        match (self.up.is_closed(), self.down.is_closed()) {
            (true, false) => Some(Side::Client),
            (false, true) => Some(Side::Target),
            _ => None,
        }
    }

    /// Whether a direction moves bulk, or did a moment ago.
    pub fn is_bulk(&self) -> bool {
        self.up.is_bulk() || self.down.is_bulk()
    }

    /// Forgets that there was bulk: what comes next is taken for small until it proves otherwise.
    pub fn calm(&mut self) {
        self.up.calm();
        self.down.calm();
    }

    /// Whether the end of the other side's stream was passed on to this one.
    pub fn has_ended_to(&self, side: Side) -> bool {
        self.direction(side.other()).is_closed()
    }

    /// Gives back every pipe because the session ends; what is still in them is lost.
    pub fn abandon(&mut self, sys: &mut impl Syscalls<Pipe = P>) {
        self.up.abandon(sys);
        self.down.abandon(sys);
    }

    /// Moves what can be moved within the budget.
    ///
    /// `scratch` is working space; nothing in it is kept from one call to the next.
    pub fn advance(
        &mut self,
        sys: &mut impl Syscalls<Pipe = P>,
        scratch: &mut [u8],
        budget: Budget,
    ) -> Progress {
        self.find_gone(sys, scratch);
        loop {
            let known = self.fault;
            let up = self.step(Side::Client, sys, scratch, (budget.turn, budget.up));
            let down = self.step(Side::Target, sys, scratch, (budget.turn, budget.down));
            if self.up.is_over() && self.down.is_over() {
                return match self.fault {
                    None => Progress::Closed,
                    Some(fault) if self.both_broken(fault) => Progress::Broken,
                    Some(fault) => Progress::Settling(fault.side.other()),
                };
            }
            // A fault found by one direction opens work for the other: read what the broken side
            // had sent before.
            if self.fault == known {
                return match (up, down) {
                    (Step::Refused(errno), _) | (_, Step::Refused(errno)) => {
                        Progress::Refused(errno)
                    }
                    (Step::Again, _) | (_, Step::Again) => Progress::Again,
                    (Step::Exhausted, _) | (_, Step::Exhausted) => Progress::Exhausted,
                    _ => Progress::Waiting,
                };
            }
        }
    }

    /// Notices a side that has finished sending and then broke: nobody reads from it any more, and
    /// until there is something to send to it nobody would find out.
    fn find_gone(&mut self, sys: &mut impl Syscalls<Pipe = P>, scratch: &mut [u8]) {
        for side in [Side::Client, Side::Target] {
            let waits_for_other =
                self.direction(side).is_closed() && !self.direction(side.other()).is_over();
            if waits_for_other && self.readiness(side).hung_up() {
                let errno = match sys.recv(side, scratch) {
                    Err(errno) if !may_pass(errno) && errno != Errno::AGAIN => errno,
                    Err(_) => continue,
                    // It was told before, to somebody who did not have to know.
                    Ok(_) => Errno::CONNRESET,
                };
                self.break_side(Broken { side, errno }, sys);
            }
        }
    }

    fn both_broken(&self, fault: Fault) -> bool {
        self.direction(fault.side).is_abandoned()
    }

    fn direction(&self, from: Side) -> &Direction<P> {
        match from {
            Side::Client => &self.up,
            Side::Target => &self.down,
        }
    }

    /// Advances one direction, within a turn of so many bytes and not more than so many.
    fn step(
        &mut self,
        from: Side,
        sys: &mut impl Syscalls<Pipe = P>,
        scratch: &mut [u8],
        budget: (usize, usize),
    ) -> Step {
        let (direction, opposite, source, sink) = match from {
            Side::Client => (&mut self.up, &self.down, &mut self.client, &mut self.target),
            Side::Target => (&mut self.down, &self.up, &mut self.target, &mut self.client),
        };
        if direction.is_over() {
            return Step::Delivered;
        }
        let source_broke = self.fault.is_some_and(|fault| fault.side == from);
        let mut step = direction.advance(sys, source, sink, scratch, budget);
        // A socket that is broken always has an answer. One that has not will get no edge that tells:
        // an error was told of it, and nothing is to be hoped for.
        if source_broke && matches!(step, Ok(Step::Blocked)) && !source.readable() {
            direction.stop_reading();
            step = direction.advance(sys, source, sink, scratch, budget);
        }
        direction.return_empty_pipe(sys);
        match step {
            Ok(step @ (Step::Blocked | Step::Again | Step::Exhausted | Step::Refused(_))) => step,
            Ok(Step::Delivered) => {
                // When the other direction is over too, closing the socket sends the same FIN.
                if !source_broke
                    && !opposite.is_over()
                    && let Err(errno) = sys.shutdown(from.other())
                {
                    if may_pass(errno) {
                        return Step::Refused(errno);
                    }
                    let side = from.other();
                    self.break_side(Broken { side, errno }, sys);
                    return Step::Blocked;
                }
                self.direction_mut(from).close();
                Step::Delivered
            }
            Err(broken) => {
                self.break_side(broken, sys);
                Step::Blocked
            }
        }
    }

    fn direction_mut(&mut self, from: Side) -> &mut Direction<P> {
        match from {
            Side::Client => &mut self.up,
            Side::Target => &mut self.down,
        }
    }

    /// A side failed: nothing can be sent to it any more, but what it had sent still counts.
    fn break_side(&mut self, broken: Broken, sys: &mut impl Syscalls<Pipe = P>) {
        let Broken { side, errno } = broken;
        self.direction_mut(side.other()).abandon(sys);
        match self.fault {
            Some(first) if first.side == side => self.direction_mut(side).stop_reading(),
            Some(_) => {}
            None => {
                self.fault = Some(Fault { side, errno });
                // The error may have come from a write; only reading tells what else arrived.
                self.readiness(side).set_closing();
            }
        }
    }
}
