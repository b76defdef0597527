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
    net::{self, EventFlags, PATIENCE, Poller},
    pattern::Pattern,
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
    let outcome = exchange(&stream, Pattern::new(!seed), Pattern::new(seed), length);
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
    exchange(&stream, Pattern::new(seed), Pattern::new(!seed), length)
        .context("towards the client")?;
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

/// Sends one pattern and receives the other.
fn exchange(stream: &TcpStream, ours: Pattern, theirs: Pattern, length: u64) -> Result<()> {
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

fn send(mut stream: &TcpStream, pattern: Pattern, length: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    while offset < length {
        let part = (length - offset).min(CHUNK as u64);
        let part = &mut chunk[..usize::try_from(part).expect("at most a chunk")];
        pattern.fill(offset, part);
        stream.write_all(part)?;
        offset += part.len() as u64;
    }
    Ok(())
}

fn receive(stream: &TcpStream, pattern: Pattern, length: u64) -> Result<()> {
    let mut stream = stream.take(length);
    let mut chunk = vec![0; CHUNK];
    let mut scratch = Vec::new();
    let mut offset = 0;
    while offset < length {
        let count = stream
            .read(&mut chunk)
            .with_context(|| format!("after {offset} bytes"))?;
        ensure!(
            count > 0,
            "the stream ended after {offset} of {length} bytes"
        );
        if let Some(at) = pattern.first_difference(offset, &chunk[..count], &mut scratch) {
            anyhow::bail!("wrong content at byte {at} of {length}");
        }
        offset += count as u64;
    }
    Ok(())
}
