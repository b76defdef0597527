//! One half of a relay: bytes from one socket to the other.
//!
//! A direction copies through the caller's scratch buffer until a large read shows bulk; then it
//! splices until reads are small again. It borrows a pipe for one turn and keeps it longer only
//! while bytes are stuck in it, so that a few pipes serve any number of sessions whose sinks keep
//! up. The carrier changes only while nothing is in flight. A pipe is filled only when it is empty:
//! then `EAGAIN` can only mean that the socket is, never that the pipe is full (a pipe counts slots,
//! and small segments fill the slots of a 64 KiB pipe with 1600 bytes).

mod saved;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub(super) use saved::SavedDirection;

use super::{Level, Readiness, RelayMode, Side, Syscalls};

/// A read of this many bytes makes a direction splice: a sender of less gains nothing by it.
const BULK_READ: usize = 16 * 1024;

/// In bulk, a read of fewer bytes than this is small.
const SMALL_READ: usize = 4 * 1024;

/// So many small reads in a row are the end of bulk.
const SMALL_READS: u8 = 16;

/// One half of a relay.
#[derive(Debug)]
pub(super) struct Direction<P> {
    carrier: Carrier<P>,
    /// Below zero while bytes that were put in front are on their way.
    delivered: i64,
    spliced: u64,
    from: Side,
    mode: RelayMode,
    flow: Flow,
    /// Whether large reads were seen and not too many small ones since.
    bulk: bool,
    small_reads: u8,
    /// The next bytes, or the end, are for recv(2) to tell.
    must_copy: bool,
}

/// What holds the bytes in flight.
#[derive(Debug)]
enum Carrier<P> {
    /// Nothing: the next bytes go through the scratch buffer.
    Scratch,
    /// Copied bytes the sink did not take yet, from `start` on.
    Kept { bytes: Box<[u8]>, start: u32 },
    /// A pipe, which may be empty.
    Pipe(P),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Flow {
    /// More may come.
    #[default]
    Open,
    /// The source has ended; what is in flight still goes out.
    Ending,
    /// All was delivered, and the end with it.
    Closed,
    /// The sink is gone.
    Abandoned,
}

/// How far a direction got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A socket has to become ready first.
    Blocked,
    /// The turn is over.
    Again,
    /// It may not move more.
    Exhausted,
    /// This machine refused a call for a reason that may pass.
    Refused(Errno),
    /// The source has ended and everything was delivered.
    Delivered,
}

/// A side failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broken {
    pub(super) side: Side,
    pub(super) errno: Errno,
}

/// How one attempt to move bytes went.
enum Moved {
    Some,
    Blocked,
    Refused(Errno),
}

/// Whether an error speaks of this machine, not of the connection, which goes on: memory has run out, or
/// somebody such as a security module said no. The kernel gives none of these out as the fate of a
/// connection, so that it is safe to ask again.
pub(super) fn may_pass(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOMEM | Errno::NOBUFS | Errno::IO | Errno::PERM
    )
}

impl<P: Level> Direction<P> {
    pub(super) fn new(from: Side, mode: RelayMode) -> Self {
        Self {
            carrier: Carrier::Scratch,
            delivered: 0,
            spliced: 0,
            from,
            mode,
            flow: Flow::Open,
            bulk: false,
            small_reads: 0,
            must_copy: false,
        }
    }

    /// Puts bytes in front of those of the source.
    pub(super) fn prepend(&mut self, bytes: Box<[u8]>) {
        self.delivered = -(bytes.len() as i64);
        self.carrier = Carrier::Kept { bytes, start: 0 };
    }

    pub(super) fn delivered(&self) -> u64 {
        u64::try_from(self.delivered).unwrap_or(0)
    }

    pub(super) fn spliced(&self) -> u64 {
        self.spliced
    }

    /// Bytes that were read and are not delivered yet.
    pub(super) fn in_flight(&self) -> u64 {
        let bytes = match &self.carrier {
            Carrier::Scratch => 0,
            Carrier::Kept { bytes, start } => bytes.len() - *start as usize,
            Carrier::Pipe(pipe) => pipe.level(),
        };
        bytes as u64
    }

    pub(super) fn is_closed(&self) -> bool {
        self.flow == Flow::Closed
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.flow == Flow::Abandoned
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_closed() || self.is_abandoned()
    }

    /// Whether it moves bulk.
    pub(super) fn is_bulk(&self) -> bool {
        self.bulk
    }

    /// Forgets that there was bulk.
    pub(super) fn calm(&mut self) {
        self.bulk = false;
        self.small_reads = 0;
    }

    /// Notes that the end was passed on.
    pub(super) fn close(&mut self) {
        self.flow = Flow::Closed;
    }

    /// Reads no more; what is in flight still goes out.
    pub(super) fn stop_reading(&mut self) {
        if self.flow == Flow::Open {
            self.flow = Flow::Ending;
        }
    }

    /// Notes that the sink is gone before anything was in flight.
    pub(super) fn sink_lost(&mut self) {
        self.flow = Flow::Abandoned;
    }

    /// Gives up: what is in flight has nowhere to go.
    pub(super) fn abandon(&mut self, sys: &mut impl Syscalls<Pipe = P>) {
        self.flow = Flow::Abandoned;
        self.become_scratch(sys);
    }

    /// Gives the pipe back unless bytes are stuck in it; due after every turn.
    pub(super) fn return_empty_pipe(&mut self, sys: &mut impl Syscalls<Pipe = P>) {
        if matches!(&self.carrier, Carrier::Pipe(pipe) if pipe.level() == 0) {
            self.become_scratch(sys);
        }
    }

    /// Changes the carrier where the traffic asks for it; nothing is in flight.
    fn choose_carrier(&mut self, sys: &mut impl Syscalls<Pipe = P>, source: &Readiness) {
        let splices = match self.mode {
            RelayMode::Copy => false,
            RelayMode::Splice => true,
            RelayMode::Auto => self.bulk,
        };
        match self.carrier {
            Carrier::Pipe(_) if !splices => self.become_scratch(sys),
            Carrier::Scratch if splices && !self.must_copy && !source.urgent() => {
                self.become_pipe(sys);
            }
            _ => {}
        }
    }

    /// Takes a read of `n` bytes, of `most` that it could have been, for what it says of the traffic.
    fn gauge(&mut self, n: usize, most: usize) {
        if n >= BULK_READ {
            self.bulk = true;
            self.small_reads = 0;
        } else if n < SMALL_READ.min(most) && self.bulk {
            self.small_reads += 1;
            if self.small_reads >= SMALL_READS {
                self.calm();
            }
        }
    }

    fn become_scratch(&mut self, sys: &mut impl Syscalls<Pipe = P>) {
        if let Carrier::Pipe(pipe) = std::mem::replace(&mut self.carrier, Carrier::Scratch) {
            sys.give_pipe(pipe);
        }
    }

    fn leave_to_recv(&mut self, sys: &mut impl Syscalls<Pipe = P>) {
        self.must_copy = true;
        self.become_scratch(sys);
    }

    fn become_pipe(&mut self, sys: &mut impl Syscalls<Pipe = P>) {
        if let Some(pipe) = sys.take_pipe() {
            self.carrier = Carrier::Pipe(pipe);
        }
    }

    /// Moves what can be moved: about `turn` bytes, and `most` of those that have not been read yet.
    pub(super) fn advance<S: Syscalls<Pipe = P>>(
        &mut self,
        sys: &mut S,
        source: &mut Readiness,
        sink: &mut Readiness,
        scratch: &mut [u8],
        (turn, most): (usize, usize),
    ) -> Result<Step, Broken> {
        let turn_ends = self.delivered.saturating_add_unsigned(turn as u64);
        let exhausted_at = self.delivered.saturating_add_unsigned(most as u64);
        loop {
            match self.flush(sys, sink)? {
                Moved::Some => {}
                Moved::Blocked => return Ok(Step::Blocked),
                Moved::Refused(errno) => return Ok(Step::Refused(errno)),
            }
            if self.flow == Flow::Ending {
                return Ok(Step::Delivered);
            }
            if !source.readable() {
                return Ok(Step::Blocked);
            }
            if self.delivered >= exhausted_at {
                return Ok(Step::Exhausted);
            }
            if self.delivered >= turn_ends {
                return Ok(Step::Again);
            }
            let most = exhausted_at.abs_diff(self.delivered) as usize;
            self.choose_carrier(sys, source);
            let moved = match self.carrier {
                Carrier::Pipe(_) => self.fill(sys, source, most)?,
                Carrier::Scratch | Carrier::Kept { .. } => {
                    let room = scratch.len().min(most);
                    self.copy(sys, source, sink, &mut scratch[..room])?
                }
            };
            match moved {
                Moved::Some => {}
                Moved::Blocked => return Ok(Step::Blocked),
                Moved::Refused(errno) => return Ok(Step::Refused(errno)),
            }
        }
    }

    /// Sends what is in flight until nothing is, or the sink has no room.
    fn flush(
        &mut self,
        sys: &mut impl Syscalls<Pipe = P>,
        sink: &mut Readiness,
    ) -> Result<Moved, Broken> {
        let to = self.from.other();
        loop {
            let sent = match &mut self.carrier {
                Carrier::Scratch => return Ok(Moved::Some),
                Carrier::Pipe(pipe) if pipe.level() == 0 => return Ok(Moved::Some),
                _ if !sink.writable() => return Ok(Moved::Blocked),
                Carrier::Pipe(pipe) => sys.drain(pipe, to).inspect(|&n| self.spliced += n as u64),
                Carrier::Kept { bytes, start } => {
                    let rest = &bytes[*start as usize..];
                    let wanted = rest.len();
                    sys.send(to, rest).inspect(|&n| {
                        *start += n as u32;
                        if n < wanted {
                            sink.write_would_block();
                        }
                    })
                }
            };
            match sent {
                Ok(n) => self.delivered += n as i64,
                Err(Errno::AGAIN) => {
                    sink.write_would_block();
                    return Ok(Moved::Blocked);
                }
                Err(errno) if may_pass(errno) => return Ok(Moved::Refused(errno)),
                Err(errno) => return Err(Broken { side: to, errno }),
            }
            if matches!(&self.carrier, Carrier::Kept { bytes, start } if *start as usize == bytes.len())
            {
                self.carrier = Carrier::Scratch;
            }
        }
    }

    /// Fills the empty pipe; leaves for copying what splice(2) cannot tell.
    fn fill(
        &mut self,
        sys: &mut impl Syscalls<Pipe = P>,
        source: &mut Readiness,
        most: usize,
    ) -> Result<Moved, Broken> {
        let Carrier::Pipe(pipe) = &mut self.carrier else {
            return Ok(Moved::Some);
        };
        match sys.fill(self.from, pipe, most) {
            // At an urgent mark with an end of stream behind it, splice(2) says 0 although bytes
            // wait. Only recv(2) tells an end.
            Ok(0) => self.leave_to_recv(sys),
            // At an urgent mark splice(2) says EAGAIN for ever; recv(2) goes past it.
            Err(Errno::AGAIN) if source.urgent() => self.leave_to_recv(sys),
            Err(Errno::AGAIN) => {
                source.read_would_block();
                return Ok(Moved::Blocked);
            }
            Ok(n) => self.gauge(n, most),
            // Not a socket splice(2) can serve, or a filter forbids the call: nothing was moved,
            // so copying can take over. No connection ends with one of these.
            Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                self.mode = RelayMode::Copy;
                self.become_scratch(sys);
            }
            // Copying needs less, and says what there is to be said.
            Err(errno) if may_pass(errno) => self.leave_to_recv(sys),
            Err(errno) => {
                return Err(Broken {
                    side: self.from,
                    errno,
                });
            }
        }
        Ok(Moved::Some)
    }

    /// Reads once and sends it on; keeps what the sink does not take.
    fn copy(
        &mut self,
        sys: &mut impl Syscalls<Pipe = P>,
        source: &mut Readiness,
        sink: &mut Readiness,
        scratch: &mut [u8],
    ) -> Result<Moved, Broken> {
        let mut read = match sys.recv(self.from, scratch) {
            Ok(0) => {
                self.flow = Flow::Ending;
                return Ok(Moved::Some);
            }
            Ok(n) => {
                self.must_copy = false;
                n
            }
            Err(Errno::AGAIN) => {
                self.must_copy = false;
                source.read_would_block();
                return Ok(Moved::Blocked);
            }
            Err(errno) if may_pass(errno) => return Ok(Moved::Refused(errno)),
            Err(errno) => {
                return Err(Broken {
                    side: self.from,
                    errno,
                });
            }
        };
        self.gauge(read, scratch.len());
        let mut source_broke = None;
        if read < scratch.len() {
            source.read_short();
            // The announced end comes next; known before the bytes are sent, it travels with them.
            if source.ends() {
                match sys.recv(self.from, &mut scratch[read..]) {
                    Ok(0) => self.flow = Flow::Ending,
                    Ok(n) => read += n,
                    Err(Errno::AGAIN) => source.read_would_block(),
                    // It is still readable, and the next read will tell.
                    Err(errno) if may_pass(errno) => {}
                    Err(errno) => source_broke = Some(errno),
                }
            }
        }
        let to = self.from.other();
        let bytes = &scratch[..read];
        let sent = match (sink.writable(), self.flow) {
            (false, _) => Err(Errno::AGAIN),
            (true, Flow::Ending) => sys.send_last(to, bytes),
            (true, _) => sys.send(to, bytes),
        };
        let mut refused = None;
        let sent = match sent {
            Ok(n) => n,
            Err(Errno::AGAIN) => 0,
            Err(errno) if may_pass(errno) => {
                refused = Some(errno);
                0
            }
            Err(errno) => return Err(Broken { side: to, errno }),
        };
        self.delivered += sent as i64;
        if sent < read {
            if refused.is_none() {
                sink.write_would_block();
            }
            self.carrier = Carrier::Kept {
                bytes: scratch[sent..read].into(),
                start: 0,
            };
        }
        match (source_broke, refused) {
            (Some(errno), _) => Err(Broken {
                side: self.from,
                errno,
            }),
            (None, Some(errno)) => Ok(Moved::Refused(errno)),
            (None, None) => Ok(Moved::Some),
        }
    }
}
