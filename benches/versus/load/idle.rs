//! Sessions that have said something once and are silent since.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::Ordering::Relaxed,
};

use anyhow::{Context, Result};

use crate::{
    backend::{Backend, MESSAGE},
    net,
};

/// Open sessions; dropping it closes them.
pub struct Idle<'a> {
    backend: &'a Backend,
    streams: Vec<TcpStream>,
}

impl<'a> Idle<'a> {
    /// Opens sessions one after the other; each passes one message both ways, so that it has been
    /// through everything a session goes through before it falls silent.
    pub fn open(backend: &'a Backend, to: SocketAddr, count: usize) -> Result<Self> {
        Self::open_with(backend, count, || net::connect_blocking(to))
    }

    /// The same, connected in a way of the caller's.
    pub fn open_with(
        backend: &'a Backend,
        count: usize,
        mut connect: impl FnMut() -> io::Result<TcpStream>,
    ) -> Result<Self> {
        let mut idle = Self {
            backend,
            streams: Vec::with_capacity(count),
        };
        for index in 0..count {
            let connected = connect().and_then(proved);
            let stream = connected.with_context(|| format!("session {} of {count}", index + 1))?;
            idle.streams.push(stream);
            backend.resting().fetch_add(1, Relaxed);
        }
        Ok(idle)
    }

    /// Ends the sessions, after a proof that all of them still work.
    pub fn close(self) -> Result<()> {
        for stream in &self.streams {
            exchange(stream).context("a session died while idle")?;
        }
        let backend = self.backend;
        drop(self);
        backend.wait_until_quiet()
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.backend
            .resting()
            .fetch_sub(self.streams.len() as u64, Relaxed);
    }
}

/// A connection to the echo service that has proved itself.
pub fn round_trip(to: SocketAddr) -> io::Result<TcpStream> {
    proved(net::connect_blocking(to)?)
}

fn proved(stream: TcpStream) -> io::Result<TcpStream> {
    exchange(&stream)?;
    Ok(stream)
}

fn exchange(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(&[b'i'; MESSAGE])?;
    stream.read_exact(&mut [0; MESSAGE])
}
