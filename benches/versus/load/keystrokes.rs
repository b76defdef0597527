//! Keystrokes: small messages at a steady pace whether or not the last one has come back.
//!
//! A latency is taken from the moment of sending, not from when it was due: how late the machine
//! wakes the client is not the proxy's doing.

use std::{
    collections::{HashMap, VecDeque},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    fd::OwnedFd,
    net::{RecvFlags, recv},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use super::Latency;
use crate::{
    backend::{Backend, MESSAGE},
    net::{self, EventFlags, PATIENCE, Poller, token},
};

/// What the keystrokes did.
pub struct Outcome {
    /// From send to echo; also counts the keystrokes.
    pub latency: Latency,
}

struct Session {
    stream: TcpStream,
    on_their_way: VecDeque<Instant>,
    received: usize,
}

/// Types one keystroke per `pace` over `connections` connections in turn.
pub fn run(
    backend: &Backend,
    to: SocketAddr,
    connections: usize,
    pace: Duration,
    window: Duration,
) -> Result<Outcome> {
    let poller = Poller::new()?;
    let mut ready = Vec::new();
    let mut sessions = Vec::new();
    let mut by_token = HashMap::new();
    for index in 0..connections {
        let stream = net::connect(to).context("connect")?;
        stream.set_nodelay(true)?;
        poller.add(&stream, EventFlags::IN)?;
        by_token.insert(token(&stream), index);
        sessions.push(Session {
            stream,
            on_their_way: VecDeque::new(),
            received: 0,
        });
    }
    let clock = metronome(pace)?;
    poller.add(&clock, EventFlags::IN)?;

    let mut latency = Latency::new();
    let mut typed = 0;
    let started = Instant::now();
    let mut last_progress = started;
    while started.elapsed() < window || latency.count() < typed {
        poller.wait(&mut ready, Duration::from_millis(100))?;
        for event in &ready {
            let Some(&index) = by_token.get(&event.data.u64()) else {
                let due = ticks(&clock)?;
                if started.elapsed() >= window {
                    continue;
                }
                for _ in 0..due {
                    let turn = usize::try_from(typed % connections as u64)?;
                    sessions[turn].strike()?;
                    typed += 1;
                }
                continue;
            };
            last_progress = Instant::now();
            sessions[index].take_echoes(last_progress, &mut latency)?;
        }
        ensure!(
            last_progress.elapsed() < PATIENCE,
            "{} keystrokes never came back",
            typed - latency.count()
        );
    }
    drop(sessions);
    backend.wait_until_quiet()?;
    Ok(Outcome { latency })
}

impl Session {
    fn strike(&mut self) -> Result<()> {
        self.on_their_way.push_back(Instant::now());
        net::send_small(&self.stream, &[b'k'; MESSAGE])
    }

    fn take_echoes(&mut self, now: Instant, latency: &mut Latency) -> Result<()> {
        let mut buffer = [0; 64 * MESSAGE];
        match recv(&self.stream, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => anyhow::bail!("a session ended"),
            Ok((length, _)) => self.received += length,
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error).context("a session broke"),
        }
        while self.received >= MESSAGE {
            self.received -= MESSAGE;
            let sent = self
                .on_their_way
                .pop_front()
                .context("an echo of nothing")?;
            latency.record(now - sent);
        }
        Ok(())
    }
}

/// A timer that ticks at `pace`.
fn metronome(pace: Duration) -> Result<OwnedFd> {
    let clock = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )?;
    let pace = Timespec {
        tv_sec: pace.as_secs().try_into()?,
        tv_nsec: pace.subsec_nanos().into(),
    };
    let setting = Itimerspec {
        it_interval: pace,
        it_value: pace,
    };
    timerfd_settime(&clock, TimerfdTimerFlags::empty(), &setting)?;
    Ok(clock)
}

/// How often the timer ticked since it was last asked.
fn ticks(clock: &OwnedFd) -> Result<u64> {
    let mut count = [0; 8];
    match rustix::io::read(clock, &mut count) {
        Ok(_) => Ok(u64::from_ne_bytes(count)),
        Err(rustix::io::Errno::AGAIN) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
