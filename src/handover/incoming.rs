//! The end of the image that comes.
//!
//! What is received stays in the queues: it is only looked at (`MSG_PEEK`), which gives new numbers to
//! what is there. So an image that cannot go on changes nothing by having tried: whoever comes next
//! finds all parts as they were sent. They are gone once the first socket is closed.

use std::{
    fs::File,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketType, recvmsg,
        sockopt::socket_type,
    },
};
use uapi::c;

use super::{Loader, outgoing::MESSAGE, part::Head};
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

/// A part that was handed over, unopened.
#[derive(Debug)]
pub struct Part {
    /// What it is called.
    pub name: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Sent { file: File, queues: Vec<OwnedFd> },
    Rehearsed { values: Vec<u8>, loader: Loader },
}

impl Part {
    /// A part for a rehearsal.
    pub(super) fn rehearsed(name: String, values: Vec<u8>, loader: Loader) -> Self {
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
    pub fn open(self) -> Result<(Vec<u8>, Loader), HandoverError> {
        let (file, queues) = match self.content {
            Content::Sent { file, queues } => (file, queues),
            Content::Rehearsed { values, loader } => return Ok((values, loader)),
        };
        let wrong = |why: String| HandoverError::Part {
            part: self.name.clone(),
            why,
        };
        let (head, values, bytes) =
            Head::read_whole(&file).map_err(|error| wrong(error.to_string()))?;
        if head.part != self.name {
            return Err(wrong(format!("it says that it is {:?}", head.part)));
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
pub fn incoming(socket: BorrowedFd<'_>) -> Result<Vec<Part>, HandoverError> {
    match socket_type(socket) {
        Ok(SocketType::SEQPACKET) => {}
        Ok(_) => return Err(HandoverError::None("a socket of another type".to_owned())),
        Err(errno) => return Err(HandoverError::None(in_words(&errno.into()))),
    }
    look_from_the_beginning(socket)?;
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
        };
        parts.push(Part { name, content });
    }
    Err(incomplete("an unknown number of parts", parts.len()))
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
