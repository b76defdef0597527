//! Bytes by the cheapest way: what the load costs, the proxy cannot have.
//!
//! Received bytes are dropped inside the kernel (`MSG_TRUNC`), sent ones come from one buffer. The
//! sender does copy, as an ssh server does, because that decides into what pieces the kernel packs
//! the bytes, and a splicing proxy moves pieces.

use std::net::TcpStream;

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

/// Most bytes moved by one call.
const PIECE: usize = 256 * 1024;

/// A source and a sink of bytes that mean nothing.
pub struct Bytes {
    source: Box<[u8]>,
    sink: Box<[u8]>,
}

/// What a call moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// This many bytes.
    Some(u64),
    /// Nothing; wait for the socket.
    NoneNow,
    /// Nothing any more: the stream ended or broke.
    End,
}

impl Bytes {
    /// Buffers for any number of sockets.
    pub fn new() -> Self {
        Self {
            source: vec![0x5a; PIECE].into(),
            sink: vec![0; 4 * PIECE].into(),
        }
    }

    /// Sends a piece, at most `limit` bytes.
    pub fn send(&self, stream: &TcpStream, limit: u64) -> Moved {
        let length = usize::try_from(limit).unwrap_or(PIECE).min(PIECE);
        match send(
            stream,
            &self.source[..length],
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        ) {
            Ok(count) => Moved::Some(count as u64),
            Err(Errno::AGAIN) => Moved::NoneNow,
            Err(_) => Moved::End,
        }
    }

    /// Receives and drops a piece.
    pub fn swallow(&mut self, stream: &TcpStream) -> Moved {
        match recv(
            stream,
            &mut self.sink[..],
            RecvFlags::TRUNC | RecvFlags::DONTWAIT,
        ) {
            Ok((_, 0)) => Moved::End,
            Ok((_, count)) => Moved::Some(count as u64),
            Err(Errno::AGAIN) => Moved::NoneNow,
            Err(_) => Moved::End,
        }
    }
}
