//! The end of the image that comes.
//!
//! What is received stays in the queues: it is only looked at (`MSG_PEEK`), which gives new numbers to
//! what is there. So an image that cannot go on changes nothing by having tried: whoever comes next
//! finds all parts as they were sent. They are gone once the first socket is closed. Descriptors need
//! not even be looked at where they stayed open.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    io::{Errno, FdFlags, fcntl_setfd},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketType, recvmsg,
        sockopt::socket_type,
    },
};
use uapi::c;

use super::{
    Loader, Values,
    outgoing::MESSAGE,
    part::{Head, Opened},
};
use crate::os_error::in_words;

/// More than the name of any part.
const LONGEST_NAME: usize = 256;

/// Why what was handed over cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// There is no socket with parts.
    #[error("standard input is no handover: {0}")]
    None(String),
    /// The kernel refused.
    #[error("what was handed over cannot be received: {0}")]
    Refused(String),
    /// There is no room for all descriptors.
    #[error(
        "{part}: the limit on open files leaves no room for its descriptors; raise LimitNOFILE= in the \
         unit (ulimit -n)"
    )]
    NoRoom {
        /// Which part they belong to.
        part: String,
    },
    /// Not everything that was announced is there.
    #[error("{part}: {found} of {said} were handed over")]
    Incomplete {
        /// What of.
        part: String,
        /// How many there should be.
        said: String,
        /// How many there are.
        found: usize,
    },
    /// A part makes no sense.
    #[error("{part}: {why}")]
    Part {
        /// Which one.
        part: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Where the descriptors of parts are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptors {
    /// They are open, at the numbers they had.
    InPlace,
    /// Another image has had them in its hands, and may have closed some.
    Received,
}

/// The same, and whether an executed child would still have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Open { inherited: bool },
    Queues,
}

/// A part that was handed over, unopened.
#[derive(Debug)]
pub struct Part {
    /// What it is called.
    pub name: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Sent {
        file: File,
        queues: Vec<OwnedFd>,
        from: Place,
    },
    Rehearsed {
        values: Values,
        loader: Loader,
    },
}

impl Part {
    /// A part for a rehearsal.
    pub(super) fn rehearsed(name: String, values: Values, loader: Loader) -> Self {
        Self {
            name,
            content: Content::Rehearsed { values, loader },
        }
    }

    /// Its values, and what gives out the descriptors and bytes they name.
    ///
    /// # Errors
    ///
    /// Not all of it is there, or there is no room for it.
    pub fn open(self) -> Result<(Values, Loader), HandoverError> {
        let (file, queues, from) = match self.content {
            Content::Sent { file, queues, from } => (file, queues, from),
            Content::Rehearsed { values, loader } => return Ok((values, loader)),
        };
        let wrong = |why: String| HandoverError::Part {
            part: self.name.clone(),
            why,
        };
        let opened = Head::open(file).map_err(|error| wrong(error.to_string()))?;
        let Opened {
            head,
            values,
            bytes,
            numbers,
        } = opened;
        if head.part != self.name {
            return Err(wrong(format!("it says that it is {:?}", head.part)));
        }
        if let Place::Open { inherited } = from
            && numbers.len() == head.descriptors
            && are_open(&numbers)
        {
            let descriptors: Vec<OwnedFd> = numbers.into_iter().map(in_place).collect();
            for descriptor in descriptors.iter().filter(|_| inherited) {
                let closed = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
                closed.map_err(|errno| wrong(in_words(&errno.into())))?;
            }
            return Ok((values, Loader::in_place(descriptors, bytes)));
        }
        let mut descriptors = Vec::with_capacity(head.descriptors.min(MESSAGE * MESSAGE));
        for queue in &queues {
            look_from_the_beginning(queue.as_fd())?;
            while let Some((_, more)) = peek(queue.as_fd(), &self.name)? {
                descriptors.extend(more);
            }
        }
        match descriptors.len() {
            found if found != head.descriptors => Err(HandoverError::Incomplete {
                part: self.name,
                said: format!("{} descriptors", head.descriptors),
                found,
            }),
            _ => Ok((values, Loader::new(descriptors, bytes))),
        }
    }
}

/// The parts that wait in a socket, in the order in which they were sent.
///
/// # Errors
///
/// It is no such socket, or not all of them are there.
pub fn incoming(socket: BorrowedFd<'_>, from: Descriptors) -> Result<Vec<Part>, HandoverError> {
    match socket_type(socket) {
        Ok(SocketType::SEQPACKET) => {}
        Ok(_) => return Err(HandoverError::None("a socket of another type".to_owned())),
        Err(errno) => return Err(HandoverError::None(in_words(&errno.into()))),
    }
    look_from_the_beginning(socket)?;
    let from = match from {
        // Where the kernel does not know that, or must not do it, it is done to each.
        Descriptors::InPlace => Place::Open {
            inherited: close_on_exec().is_err(),
        },
        Descriptors::Received => Place::Queues,
    };
    let mut parts = Vec::new();
    while let Some((name, descriptors)) = peek(socket, "the parts")? {
        let mut descriptors = descriptors.into_iter();
        let Some(file) = descriptors.next() else {
            // The last message says how many there are.
            return match name.parse() == Ok(parts.len()) {
                true => Ok(parts),
                false => Err(incomplete(&format!("{name} parts"), parts.len())),
            };
        };
        let content = Content::Sent {
            file: File::from(file),
            queues: descriptors.collect(),
            from,
        };
        parts.push(Part { name, content });
    }
    Err(incomplete("an unknown number of parts", parts.len()))
}

/// Has the kernel close every descriptor but the standard ones when another image takes the place of
/// this one, or a child is executed.
///
/// # Errors
///
/// The kernel refused.
pub(super) fn close_on_exec() -> io::Result<()> {
    let first = c::STDERR_FILENO.cast_unsigned() + 1;
    Ok(uapi::close_range(
        first,
        c::c_uint::MAX,
        c::CLOSE_RANGE_CLOEXEC,
    )?)
}

/// Whether descriptors stayed open. What stands between two images, such as a script, closes all of them
/// if it closes any.
fn are_open(numbers: &[u32]) -> bool {
    let mut ends = numbers.first().into_iter().chain(numbers.last());
    ends.all(|number| uapi::fcntl_getfd(number.cast_signed()).is_ok())
}

/// What has stayed open at this number, which was handed over once.
fn in_place(number: u32) -> OwnedFd {
    uapi::OwnedFd::new(number.cast_signed()).into()
}

fn incomplete(said: &str, found: usize) -> HandoverError {
    HandoverError::Incomplete {
        part: "the handover".to_owned(),
        said: said.to_owned(),
        found,
    }
}

/// Each look begins behind the last one, the first at the beginning.
fn look_from_the_beginning(socket: BorrowedFd<'_>) -> Result<(), HandoverError> {
    let beginning: c::c_int = 0;
    uapi::setsockopt(
        socket.as_raw_fd(),
        c::SOL_SOCKET,
        c::SO_PEEK_OFF,
        &beginning,
    )
    .map_err(|errno| HandoverError::Refused(in_words(&errno.into())))
}

/// The next message, unless there is none.
fn peek(
    socket: BorrowedFd<'_>,
    part: &str,
) -> Result<Option<(String, Vec<OwnedFd>)>, HandoverError> {
    let mut text = [0; LONGEST_NAME];
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = loop {
        match recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            flags,
        ) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            received => break received,
        }
    };
    let received = received.map_err(|errno| HandoverError::Refused(in_words(&errno.into())))?;
    let mut descriptors = Vec::with_capacity(MESSAGE);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(HandoverError::NoRoom {
            part: part.to_owned(),
        });
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(incomplete("a message that is longer than any", 0));
    }
    // Whoever sent it is gone.
    if received.bytes == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&text[..received.bytes]);
    Ok(Some((text.into_owned(), descriptors)))
}
