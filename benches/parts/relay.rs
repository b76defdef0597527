//! One direction of a relay between two loopback connections, its peers included.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::Arc,
};

use criterion::{BenchmarkId, Criterion, Throughput};
use rustix::event::epoll::EventFlags;
use tml_proxy::relay::{Budget, Kernel, PipeBudget, PipePool, Relay, RelayMode, Side};

const SCRATCH: usize = 64 << 10;
const TURN: usize = 256 << 10;
const PIPE: usize = 1 << 20;

/// A client, a relay and a target on one thread.
struct Stage {
    client: TcpStream,
    near: TcpStream,
    far: TcpStream,
    target: TcpStream,
    relay: Relay<tml_proxy::relay::Pipe>,
    pipes: PipePool,
    scratch: Vec<u8>,
    buffer: Vec<u8>,
}

impl Stage {
    fn new(mode: RelayMode) -> Self {
        let (client, near) = connection();
        let (far, target) = connection();
        Self {
            client,
            near,
            far,
            target,
            relay: Relay::new(mode),
            pipes: PipePool::new(Arc::new(PipeBudget::new(2, 4 * PIPE, PIPE))),
            scratch: vec![0; SCRATCH],
            buffer: vec![0; TURN],
        }
    }

    /// Has `total` bytes go from the client to the target, as many at a time as the sockets take.
    fn pass(&mut self, total: usize) {
        let (mut sent, mut received) = (0, 0);
        while received < total {
            if sent < total {
                let most = self.buffer.len().min(total - sent);
                sent += moved(self.client.write(&self.buffer[..most]));
            }
            self.relay.readiness(Side::Client).note(EventFlags::IN);
            self.relay.readiness(Side::Target).note(EventFlags::OUT);
            let mut kernel = Kernel {
                client: self.near.as_fd(),
                target: self.far.as_fd(),
                pipes: &mut self.pipes,
            };
            self.relay
                .advance(&mut kernel, &mut self.scratch, Budget::turn(TURN));
            received += moved(self.target.read(&mut self.buffer));
        }
    }
}

/// Bytes moved, none if the socket was not ready.
fn moved(result: std::io::Result<usize>) -> usize {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        result => result.expect("nobody closes"),
    }
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("bound");
    let out = TcpStream::connect(addr).expect("listening");
    let (into, _) = listener.accept().expect("connected");
    for end in [&out, &into] {
        end.set_nonblocking(true).expect("an open socket");
        end.set_nodelay(true).expect("an open socket");
    }
    (out, into)
}

pub fn run(c: &mut Criterion) {
    let mut group = c.benchmark_group("relay");
    for (name, mode, bytes) in [
        ("copy", RelayMode::Copy, 64),
        ("copy", RelayMode::Copy, 64 << 10),
        ("copy", RelayMode::Copy, 4 << 20),
        ("splice", RelayMode::Splice, 64),
        ("splice", RelayMode::Splice, 64 << 10),
        ("splice", RelayMode::Splice, 4 << 20),
    ] {
        let mut stage = Stage::new(mode);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new(name, bytes), |b| {
            b.iter(|| stage.pass(bytes));
        });
    }
    group.finish();
}
