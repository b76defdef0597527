//! Both ends of a session whose content is checked in both directions at once.
//!
//! The client sends a header (seed and length of each direction), then both sides send; the
//! backend ends with one byte that says whether what it got was right. Threads that block:
//! nothing here is measured.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result, ensure};

use crate::{
    harness::Stream,
    net::{self, EventFlags, PATIENCE, Poller},
};

const CHUNK: usize = 64 * 1024;
const RIGHT: u8 = b'+';
const WRONG: u8 = b'-';

/// Serves for ever, one thread per session.
pub(super) fn serve(listener: &TcpListener) -> Result<()> {
    let poller = Poller::new()?;
    poller.add(listener, EventFlags::IN)?;
    let mut ready = Vec::new();
    loop {
        poller.wait(&mut ready, PATIENCE)?;
        while let Some(stream) = net::accept(listener)? {
            thread::spawn(move || {
                // The client reports a session that breaks; this side has nobody to tell.
                let _ = answer(stream);
            });
        }
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut header = [0; 16];
    stream.read_exact(&mut header)?;
    let [seed, length] =
        [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|byte| header[at + byte])));
    let outcome = exchange(&stream, downwards(seed), upwards(seed), length);
    let verdict = if outcome.is_ok() { RIGHT } else { WRONG };
    stream.write_all(&[verdict])?;
    Ok(())
}

/// Moves `length` checked bytes each way over each of `sessions` connections at once.
///
/// # Errors
///
/// The first session that lost, changed or mixed up a byte.
pub fn check(to: SocketAddr, sessions: u64, length: u64) -> Result<()> {
    thread::scope(|scope| {
        let running: Vec<_> = (0..sessions)
            .map(|index| scope.spawn(move || check_one(to, index + 1, length)))
            .collect();
        for session in running {
            session.join().expect("a checking thread does not panic")?;
        }
        Ok(())
    })
}

fn check_one(to: SocketAddr, seed: u64, length: u64) -> Result<()> {
    let mut stream = net::connect_blocking(to)?;
    let header: Vec<u8> = [seed, length]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    stream.write_all(&header)?;
    exchange(&stream, upwards(seed), downwards(seed), length).context("towards the client")?;
    let mut verdict = Vec::new();
    stream
        .take(2)
        .read_to_end(&mut verdict)
        .context("the target's verdict")?;
    ensure!(
        verdict == [RIGHT],
        "towards the target: bytes were lost or changed"
    );
    Ok(())
}

/// What the client of that session sends.
fn upwards(seed: u64) -> Stream {
    Stream::new(2 * seed)
}

/// What it is sent.
fn downwards(seed: u64) -> Stream {
    Stream::new(2 * seed + 1)
}

/// Sends one stream and receives the other.
fn exchange(stream: &TcpStream, ours: Stream, theirs: Stream, length: u64) -> Result<()> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(stream, ours, length));
        let received = receive(stream, theirs, length);
        sender
            .join()
            .expect("the sending thread does not panic")
            .context("send")?;
        received
    })
}

fn send(mut stream: &TcpStream, mut content: Stream, length: u64) -> io::Result<()> {
    while content.position() < length {
        let most = usize::try_from(length - content.position()).unwrap_or(usize::MAX);
        let piece = content.ahead(most);
        stream.write_all(piece)?;
        content.advance(piece.len());
    }
    Ok(())
}

fn receive(stream: &TcpStream, mut content: Stream, length: u64) -> Result<()> {
    let mut stream = stream.take(length);
    let mut chunk = vec![0; CHUNK];
    while content.position() < length {
        let offset = content.position();
        let count = stream
            .read(&mut chunk)
            .with_context(|| format!("after {offset} bytes"))?;
        ensure!(
            count > 0,
            "the stream ended after {offset} of {length} bytes"
        );
        if let Some(at) = content.first_difference(&chunk[..count]) {
            anyhow::bail!("wrong content at byte {at} of {length}");
        }
    }
    Ok(())
}
