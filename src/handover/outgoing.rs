//! The end of the image that goes.
//!
//! Everything is sent before anybody receives, so it has to fit into the queues of sockets: each part
//! is one message over the first socket, with a sealed file that holds its values and bytes, and the
//! receiving ends of further sockets in which its descriptors wait. What waits there has no number in
//! any process, and so no limit on open files but that of the kernel, which is the limit of the whole
//! user.
//!
//! Descriptors stay open over execve(2) as well. Whoever comes back because that failed has them closed
//! by the next one again.

use std::{
    fs::File,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use rustix::{
    cmsg_space,
    io::{Errno, FdFlags, fcntl_setfd},
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, sendmsg, socketpair,
    },
};

use super::{
    Records, Saver, Sink,
    incoming::close_on_exec,
    part::{Head, memory, seal},
};
use crate::os_error::in_words;

/// Descriptors that the kernel lets a message have.
pub(super) const MESSAGE: usize = 253;

/// Messages that wait in one socket: with the least buffer that Linux gives a socket there is room for
/// twice as many.
const MESSAGES: usize = 128;

/// Where parts are sent, for the image that comes.
#[derive(Debug)]
pub struct Outgoing {
    sending: OwnedFd,
    receiving: OwnedFd,
    parts: AtomicUsize,
}

impl Outgoing {
    /// Nothing sent yet.
    ///
    /// # Errors
    ///
    /// There is no descriptor left, in words.
    pub fn new() -> Result<Self, String> {
        let (receiving, sending) = pair()?;
        Ok(Self {
            sending,
            receiving,
            parts: AtomicUsize::new(0),
        })
    }

    /// Says that this is all.
    ///
    /// # Errors
    ///
    /// There is no room, in words.
    pub fn finish(&self) -> Result<(), String> {
        let count = self.parts.load(Relaxed).to_string();
        send(&self.sending, count.as_bytes(), &[])
    }

    /// Where the next image finds it.
    pub fn receiving(&self) -> BorrowedFd<'_> {
        self.receiving.as_fd()
    }
}

impl Sink for Outgoing {
    fn put(&self, part: &str, values: &Records, saver: Saver<'_>) -> Result<(), String> {
        let (descriptors, bytes) = saver.into_parts();
        let file = sealed(part, values.as_bytes(), &bytes, &descriptors);
        let file = file.map_err(|error| told("its values", &error))?;
        let mut queues = Vec::new();
        for some in descriptors.chunks(MESSAGE * MESSAGES) {
            let (receiving, sending) = pair()?;
            for message in some.chunks(MESSAGE) {
                send(&sending, b"+", message)?;
            }
            queues.push(receiving);
        }
        let mut carried = vec![file.as_fd()];
        carried.extend(queues.iter().map(AsFd::as_fd));
        send(&self.sending, part.as_bytes(), &carried)?;
        self.parts.fetch_add(1, Relaxed);
        for descriptor in descriptors {
            let kept = fcntl_setfd(descriptor, FdFlags::empty());
            kept.map_err(|errno| told("a descriptor", &errno.into()))?;
        }
        Ok(())
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Err(error) = close_on_exec() {
            let error = in_words(&error);
            tracing::warn!(error, "descriptors may be found open by a child");
        }
    }
}

fn sealed(
    part: &str,
    values: &[u8],
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<File> {
    let file = memory(part)?;
    let numbers = descriptors.iter().map(|fd| fd.as_raw_fd().cast_unsigned());
    let head = Head::of(part, values, bytes, descriptors.len());
    head.write_numbered(values, bytes, numbers, &file)?;
    seal(&file)?;
    Ok(file)
}

fn pair() -> Result<(OwnedFd, OwnedFd), String> {
    let made = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    );
    made.map_err(|errno| told("a socket", &errno.into()))
}

fn send(to: &OwnedFd, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), String> {
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(format!("a message has no room for {}", descriptors.len()));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match sendmsg(to, &[IoSlice::new(text)], &mut control, flags) {
            Err(Errno::INTR) => {}
            sent => {
                let sent = sent.map(drop);
                return sent.map_err(|errno| told("descriptors on their way", &errno.into()));
            }
        }
    }
}

/// What there is no room for, why, and what to do.
fn told(what: &str, error: &io::Error) -> String {
    let why = in_words(error);
    match Errno::from_io_error(error) {
        Some(Errno::TOOMANYREFS) => format!(
            "{what}: {why}: more descriptors of this user are on their way than the limit on open \
             files; raise LimitNOFILE= in the unit (ulimit -n)"
        ),
        Some(Errno::MFILE) => format!(
            "{what}: {why}: there is no descriptor left below the limit on open files; raise \
             LimitNOFILE= in the unit (ulimit -n), or wait until there are fewer sessions"
        ),
        Some(Errno::AGAIN) => {
            format!("{what}: a socket has too little room (net.core.wmem_default)")
        }
        _ => format!("{what}: {why}"),
    }
}
