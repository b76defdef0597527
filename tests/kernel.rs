//! What the relay takes for granted about Linux.
//!
//! When a kernel upgrade changes one of these, this is where it shows first, and not as a session
//! that hangs once in a million.

mod harness;

use std::{
    cell::Cell,
    env,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
    time::Duration,
};

use harness::{
    Peer, Setup, Stream, Target, TempDir,
    lab::Netns,
    ports, process,
    proxy::{as_user, wrapped},
    require::{Need, require},
    wait_for, wait_until,
};
use tml_proxy::{AckProbe, PeerState, acknowledged};

use rustix::{
    event::{
        PollFd, PollFlags, Timespec,
        epoll::{self, EventData, EventFlags},
        poll,
    },
    io::{Errno, ioctl_fionread},
    net::{RecvFlags, SendFlags, recv, send, sockopt},
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice},
};
use socket2::SockRef;

const CHUNK: usize = 1 << 20;

/// A sender and the non-blocking socket its bytes arrive at.
fn pair() -> (Peer, TcpStream) {
    let target = Target::bind();
    let sender = Peer::connect_to(target.addr());
    let receiver = target
        .accept()
        .stream()
        .try_clone()
        .expect("a descriptor to spare");
    receiver.set_nonblocking(true).expect("an open socket");
    (sender, receiver)
}

fn new_pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).expect("a descriptor to spare")
}

fn move_in(from: impl AsFd, to: impl AsFd) -> Result<usize, Errno> {
    splice(
        from,
        None,
        to,
        None,
        CHUNK,
        SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
    )
}

fn take(from: impl AsFd, most: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; most];
    let (length, _) = recv(from, &mut bytes[..], RecvFlags::empty())?;
    bytes.truncate(length);
    Ok(bytes)
}

fn readable(socket: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).expect("poll of one socket") > 0
}

fn wait_for_bytes(socket: &TcpStream, count: u64) {
    wait_until("bytes to arrive", || {
        ioctl_fionread(socket).expect("an open socket") == count
    });
}

fn wait_for_readable(socket: impl AsFd + Copy) {
    wait_until("the socket to be readable", || readable(socket));
}

/// A pipe counts pieces, not bytes. Small segments fill it early, and then splice says `EAGAIN`
/// although the socket has more: only with an empty pipe does `EAGAIN` mean an empty socket.
#[test]
fn a_pipe_full_of_small_segments_looks_like_an_empty_socket() {
    let (mut sender, receiver) = pair();
    let (out, into) = new_pipe();
    let mut moved = 0;
    // One splice per segment, so that none is merged with the next in the socket.
    let errno = loop {
        sender.send(&[1; 100]);
        wait_for_bytes(&receiver, 100);
        match move_in(&receiver, &into) {
            Ok(length) => moved += length,
            Err(errno) => break errno,
        }
        assert!(moved < CHUNK, "the pipe never fills");
    };
    assert_eq!(errno, Errno::AGAIN);
    assert_eq!(moved, 16 * 100, "one slot for each segment");
    assert_eq!(
        ioctl_fionread(&receiver),
        Ok(100),
        "and the socket has more"
    );

    assert_eq!(take_all(&out).len(), moved);
    assert_eq!(move_in(&receiver, &into), Ok(100));
    assert_eq!(take_all(&out).len(), 100);
    assert_eq!(
        move_in(&receiver, &into),
        Err(Errno::AGAIN),
        "now it is empty"
    );
}

/// A slot can hold more than a page, so a pipe filled in several steps can hold more bytes than its
/// size says. Nothing is lost by it; nothing may be concluded from the size.
#[test]
fn a_pipe_may_hold_more_than_its_size() {
    let (sender, receiver) = pair();
    let (out, into) = new_pipe();
    let size = fcntl_getpipe_size(&into).expect("a pipe");
    let length = 8 * CHUNK as u64;
    let mut most = 0;
    std::thread::scope(|scope| {
        let mut sender = sender.twin();
        scope.spawn(move || sender.send_stream(&mut Stream::new(1), length));
        let mut expected = Stream::new(1);
        while expected.position() < length {
            wait_for_readable(&receiver);
            let mut held = 0;
            while let Ok(moved) = move_in(&receiver, &into) {
                held += moved;
                assert_eq!(ioctl_fionread(&out), Ok(held as u64));
            }
            assert!(held > 0, "readable, and the pipe was empty");
            most = most.max(held);
            let bytes = take_all(&out);
            assert_eq!(bytes.len(), held);
            expected.check(&bytes);
        }
    });
    assert!(
        most >= size / 16,
        "{most} bytes at most in a pipe of {size}"
    );
    println!("up to {most} bytes were in a pipe of {size}");
}

#[test]
fn splice_tells_the_end_by_0_and_an_empty_socket_by_eagain() {
    let (mut sender, receiver) = pair();
    let (_out, into) = new_pipe();
    assert_eq!(move_in(&receiver, &into), Err(Errno::AGAIN));
    sender.send(b"last");
    sender.finish();
    wait_for_bytes(&receiver, 4);
    assert_eq!(move_in(&receiver, &into), Ok(4), "bytes come first");
    wait_for_readable(&receiver);
    assert_eq!(move_in(&receiver, &into), Ok(0));
    assert_eq!(move_in(&receiver, &into), Ok(0), "and again");
}

#[test]
fn bytes_that_came_before_a_reset_can_still_be_taken() {
    let reset = |receiver: &TcpStream, sender: Peer| {
        wait_for_bytes(receiver, 6);
        sender.reset();
        wait_until("the reset to arrive", || {
            let mut fds = [PollFd::new(receiver, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())).expect("poll of one socket");
            fds[0].revents().contains(PollFlags::ERR)
        });
    };
    let (mut sender, receiver) = pair();
    sender.send(b"before");
    reset(&receiver, sender);
    assert_eq!(take(&receiver, 64).as_deref(), Ok(&b"before"[..]));
    assert_eq!(take(&receiver, 64), Err(Errno::CONNRESET));

    let (mut sender, receiver) = pair();
    sender.send(b"before");
    reset(&receiver, sender);
    let (_out, into) = new_pipe();
    assert_eq!(move_in(&receiver, &into), Ok(6));
    assert_eq!(move_in(&receiver, &into), Err(Errno::CONNRESET));
}

/// The error is told once, to whichever call comes first; every read after it tells of an end. Whoever
/// is told has to remember it.
#[test]
fn a_reset_is_told_once_to_whoever_asks_first() {
    type Ask = fn(&TcpStream) -> Errno;
    let asks: [(&str, Ask); 5] = [
        ("a read", |socket| take(socket, 64).expect_err("a reset")),
        ("a look", |socket| {
            recv(socket, &mut [0; 64][..], RecvFlags::PEEK).expect_err("a reset")
        }),
        ("a splice", |socket| {
            move_in(socket, new_pipe().1).expect_err("a reset")
        }),
        ("a write", |socket| {
            send(socket, b"x", SendFlags::NOSIGNAL).expect_err("a reset")
        }),
        ("SO_ERROR", |socket| {
            let told = sockopt::socket_error(socket).expect("an open socket");
            told.expect_err("a reset")
        }),
    ];
    for (what, ask) in asks {
        let (sender, receiver) = pair();
        sender.reset();
        wait_for_readable(&receiver);
        assert_eq!(ask(&receiver), Errno::CONNRESET, "{what}");
        assert_eq!(take(&receiver, 64).as_deref(), Ok(&b""[..]), "after {what}");
        assert_eq!(move_in(&receiver, new_pipe().1), Ok(0), "after {what}");
        assert_eq!(sockopt::socket_error(&receiver), Ok(Ok(())), "after {what}");
        let again = send(&receiver, b"x", SendFlags::NOSIGNAL);
        assert_eq!(again, Err(Errno::PIPE), "after {what}");
        assert_eq!(take(&receiver, 64).as_deref(), Ok(&b""[..]), "after {what}");
    }
}

/// Fills the path to a reader that does not read, until what the kernel says holds.
fn blocked(sender: &mut Peer, what: &str, holds: impl Fn(&PeerState) -> bool) -> PeerState {
    sender.stream().set_nonblocking(true).expect("open");
    state(sender, what, |state| {
        while rustix::io::write(sender.stream(), &[0; 65536]).is_ok() {}
        holds(state)
    })
}

fn state(sender: &Peer, what: &str, holds: impl Fn(&PeerState) -> bool) -> PeerState {
    let mut probe = AckProbe::default();
    wait_for(what, || {
        let state = probe.peer_state(sender.stream().as_fd()).expect("it tells");
        holds(&state).then_some(state)
    })
}

/// What tells a reader that pauses from a host that is gone: its kernel acknowledges every probe, and
/// `tcpi_last_ack_recv` counts from the last one.
#[test]
fn a_probe_of_a_closed_window_that_is_answered_counts_as_heard() {
    let target = Target::narrow();
    let mut sender = Peer::connect_to(target.addr());
    let _reader = target.accept();
    let closed = |state: &PeerState| state.unacknowledged > 0 && state.window_closed;
    blocked(&mut sender, "the window to close", closed);
    // Probed after 0.2, 0.4 and 0.8 seconds at least, and heard after the last one.
    let seen = state(&sender, "an answer long after the last byte", |state| {
        state.since_sent > state.since_heard + Duration::from_millis(1400)
            || state.retry_after > Duration::from_millis(1400)
    });
    assert!(closed(&seen), "{seen:?}");
    let heard = state(&sender, "the next answer", |state| {
        state.probes == 0 && state.since_heard < Duration::from_millis(200)
    });
    assert!(closed(&heard), "{heard:?}");
}

#[test]
fn a_host_that_is_gone_is_not_heard_and_probes_and_attempts_add_up() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let [near, far] = ["near", "far"].map(Netns::new);
    near.link("eth", &far, "eth");
    near.ip("addr add 198.51.100.1/24 dev eth");
    far.ip("addr add 198.51.100.2/24 dev eth");
    let addr = SocketAddr::from(([198, 51, 100, 2], 7));
    for (reads, what) in [(true, "attempts"), (false, "probes")] {
        let target = far.run(|| Target::bind_to(addr));
        near.run(|| {
            let mut sender = Peer::connect_to(addr);
            let _reader = target.accept();
            if !reads {
                blocked(&mut sender, "the window to close", |state| {
                    state.unacknowledged > 0 && state.window_closed
                });
            }
            far.ip("link set eth down");
            if reads {
                sender.send(b"into the void");
            }
            let seen = state(&sender, what, |state| state.probes.max(state.tries) >= 3);
            assert!(seen.unacknowledged > 0, "{seen:?}");
            if reads {
                assert!(
                    seen.in_flight > 0 && seen.since_sent < seen.since_heard,
                    "{seen:?}"
                );
                assert!(!seen.window_closed, "{seen:?}");
            }
            assert!(seen.since_heard > Duration::from_millis(600), "{seen:?}");
        });
        far.ip("link set eth up");
    }
}

/// A reset empties the queue of what was to be sent, and the counts stay.
#[test]
fn a_connection_that_was_reset_still_tells_how_much_was_acknowledged() {
    for connected_here in [true, false] {
        let target = Target::narrow();
        let connected = Peer::connect_prepared(target.addr(), |socket| {
            socket.set_recv_buffer_size(8192).expect("any size will do");
        });
        let accepted = target.accept();
        let (sender, reader) = match connected_here {
            true => (connected, accepted),
            false => (accepted, connected),
        };
        sender.stream().set_nonblocking(true).expect("open");
        let written = Cell::new(0);
        let state = state(&sender, "the window to close", |state| {
            let filled = rustix::io::write(sender.stream(), &[0; 65536])
                .map(|len| written.set(written.get() + len as u64));
            filled.is_err() && state.unacknowledged > 0 && state.in_flight == 0
        });
        let asked = || acknowledged(sender.stream().as_fd(), connected_here);
        let received = Some(written.get() - u64::from(state.unacknowledged));
        assert_eq!(asked(), received, "connected here: {connected_here}");
        reader.reset();
        let told = || sockopt::socket_error(sender.stream()).expect("an open socket");
        wait_until("the reset to arrive", || told() == Err(Errno::CONNRESET));
        assert_eq!(asked(), received, "connected here: {connected_here}");
    }
}

/// Set for good, the kernel's own option takes a reader that pauses for a host that is gone, although
/// it answers: the reason why it is not used for `user_timeout`.
#[test]
fn the_kernels_user_timeout_ends_connections_whose_reader_pauses() {
    let target = Target::narrow();
    let mut sender = Peer::connect_to(target.addr());
    let _reader = target.accept();
    sockopt::set_tcp_user_timeout(sender.stream(), 500).expect("an open socket");
    blocked(&mut sender, "the window to close", |state| {
        state.unacknowledged > 0
    });
    wait_until("the kernel to give up", || {
        sockopt::socket_error(sender.stream()) == Ok(Err(Errno::TIMEDOUT))
    });
}

/// Behind an urgent mark splice stops, with `EAGAIN` on a readable socket; recv goes on. With
/// `SO_OOBINLINE` the urgent byte itself is in its place.
#[test]
fn splice_stops_at_an_urgent_mark_and_recv_goes_on() {
    let (mut sender, receiver) = pair();
    let (out, into) = new_pipe();
    sockopt::set_socket_oobinline(&receiver, true).expect("an open socket");
    sender.send(b"abc");
    sender.send_urgent(b"!");
    sender.send(b"defghij");
    wait_for_bytes(&receiver, 11);
    assert_eq!(move_in(&receiver, &into), Ok(3));
    assert_eq!(take_all(&out), b"abc");
    for _ in 0..3 {
        assert_eq!(move_in(&receiver, &into), Err(Errno::AGAIN));
        assert!(readable(&receiver), "it would be waited for in vain");
    }
    assert!(
        ioctl_fionread(&receiver).expect("an open socket") > 0,
        "how the two kinds of EAGAIN are told apart"
    );
    let mut rest = Vec::new();
    wait_until("the rest to arrive", || {
        rest.extend(take(&receiver, 64).unwrap_or_default());
        rest.len() >= 8
    });
    assert_eq!(rest, b"!defghij");
    sender.send(b"k");
    wait_for_bytes(&receiver, 1);
    assert_eq!(move_in(&receiver, &into), Ok(1), "and splice works again");
}

/// The one case in which splice tells an end that is none: an urgent byte is next, and the sender
/// has closed. Whoever gets 0 has to ask recv before believing it.
#[test]
fn splice_takes_an_urgent_byte_before_the_end_for_the_end() {
    let (mut sender, receiver) = pair();
    let (out, into) = new_pipe();
    sockopt::set_socket_oobinline(&receiver, true).expect("an open socket");
    sender.send(b"abc");
    sender.send_urgent(b"!");
    sender.send(b"def");
    sender.finish();
    wait_until("the end to arrive", || {
        let mut fds = [PollFd::new(&receiver, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::default())).expect("poll of one socket") > 0
    });
    assert_eq!(move_in(&receiver, &into), Ok(3));
    assert_eq!(take_all(&out), b"abc");
    assert_eq!(move_in(&receiver, &into), Ok(0), "an end that is none");
    let mut rest = Vec::new();
    loop {
        match take(&receiver, 64).as_deref() {
            Ok(b"") => break,
            Ok(bytes) => rest.extend_from_slice(bytes),
            Err(errno) => panic!("{errno}"),
        }
    }
    assert_eq!(rest, b"!def");
}

#[test]
fn epoll_reports_an_urgent_mark() {
    let (mut sender, receiver) = pair();
    sockopt::set_socket_oobinline(&receiver, true).expect("an open socket");
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor to spare");
    let interest = EventFlags::IN | EventFlags::PRI | EventFlags::RDHUP | EventFlags::ET;
    epoll::add(&queue, &receiver, EventData::new_u64(1), interest).expect("an open socket");
    let events = |patience: Duration| {
        let mut events = Vec::with_capacity(4);
        let patience = Timespec::try_from(patience).expect("short");
        epoll::wait(
            &queue,
            rustix::buffer::spare_capacity(&mut events),
            Some(&patience),
        )
        .expect("own epoll");
        events
            .iter()
            .fold(EventFlags::empty(), |all, event| all | event.flags)
    };
    sender.send(b"abc");
    let seen = events(harness::DEADLINE);
    assert!(seen.contains(EventFlags::IN) && !seen.contains(EventFlags::PRI));
    sender.send_urgent(b"!");
    let seen = events(harness::DEADLINE);
    assert!(seen.contains(EventFlags::IN | EventFlags::PRI), "{seen:?}");
}

/// Only lengths that are negative as signed numbers are refused.
#[test]
fn a_length_larger_than_anything_is_fine_for_splice_unless_negative() {
    let (mut sender, receiver) = pair();
    let (_out, into) = new_pipe();
    let flags = SpliceFlags::NONBLOCK;
    sender.send(b"abc");
    wait_for_bytes(&receiver, 3);
    let huge = splice(&receiver, None, &into, None, usize::MAX, flags);
    assert_eq!(huge, Err(Errno::INVAL));
    let large = splice(&receiver, None, &into, None, 1 << 30, flags);
    assert_eq!(large, Ok(3));
}

/// Set once on a listener, they need not be set on every session.
#[test]
fn accepted_sockets_inherit_the_options_of_their_listener() {
    let target = Target::bind();
    let listener = target.socket();
    sockopt::set_tcp_nodelay(listener, true).expect("an open socket");
    sockopt::set_socket_oobinline(listener, true).expect("an open socket");
    sockopt::set_socket_keepalive(listener, true).expect("an open socket");
    sockopt::set_tcp_keepidle(listener, Duration::from_secs(61)).expect("an open socket");
    sockopt::set_tcp_keepintvl(listener, Duration::from_secs(16)).expect("an open socket");
    sockopt::set_tcp_keepcnt(listener, 5).expect("an open socket");
    sockopt::set_tcp_user_timeout(listener, 123_000).expect("an open socket");

    let _client = Peer::connect_to(target.addr());
    let (accepted, _) = listener.accept().expect("a connection waits");
    assert_eq!(sockopt::tcp_nodelay(&accepted), Ok(true));
    assert_eq!(sockopt::socket_oobinline(&accepted), Ok(true));
    assert_eq!(sockopt::socket_keepalive(&accepted), Ok(true));
    assert_eq!(
        sockopt::tcp_keepidle(&accepted),
        Ok(Duration::from_secs(61))
    );
    assert_eq!(
        sockopt::tcp_keepintvl(&accepted),
        Ok(Duration::from_secs(16))
    );
    assert_eq!(sockopt::tcp_keepcnt(&accepted), Ok(5));
    assert_eq!(sockopt::tcp_user_timeout(&accepted), Ok(123_000));
}

/// Bytes pass as fast as they are read.
fn pass(sender: &mut Peer, mut receiver: &TcpStream, stream: &mut Stream) {
    let end = stream.position() + (16 * CHUNK) as u64;
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send_stream(stream, end));
        let mut buf = vec![0; CHUNK];
        for _ in 0..16 {
            receiver.read_exact(&mut buf).expect("all are sent");
        }
    });
}

/// `SO_BUF_LOCK`, since Linux 5.15.
fn keep_receive_buffer(socket: &TcpStream, keep: bool) {
    const SO_BUF_LOCK: i32 = 72;
    const SOCK_RCVBUF_LOCK: u32 = 2;
    let locked = if keep { SOCK_RCVBUF_LOCK } else { 0 };
    let socket = socket.as_raw_fd();
    uapi::setsockopt(socket, uapi::c::SOL_SOCKET, SO_BUF_LOCK, &locked).expect("an open socket");
}

#[test]
fn a_receive_buffer_that_is_kept_as_it_is_grows_again_once_it_is_not() {
    let (mut sender, receiver) = pair();
    receiver.set_nonblocking(false).expect("an open socket");
    let size = || {
        let size = SockRef::from(&receiver).recv_buffer_size();
        size.expect("an open socket")
    };
    let mut stream = Stream::new(1);
    keep_receive_buffer(&receiver, true);
    let kept = size();
    for _ in 0..4 {
        pass(&mut sender, &receiver, &mut stream);
    }
    assert_eq!(size(), kept);
    keep_receive_buffer(&receiver, false);
    wait_until("the buffer to grow", || {
        pass(&mut sender, &receiver, &mut stream);
        size() > kept
    });
}

#[test]
fn a_listener_opens_beside_one_that_overlaps_it_if_both_share_their_port_at_that_moment() {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let new = || {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor");
        sockopt::set_socket_reuseaddr(&socket, true).expect("an open socket");
        socket
    };
    let on = |host, port| SocketAddr::from((host, port));
    let (any, one) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST);
    for (first, second) in [(any, one), (one, any)] {
        let port = ports::free();
        let (old, new) = (new(), new());
        bind(&old, &on(first, port)).expect("a free port");
        listen(&old, 8).expect("bound");
        assert_eq!(bind(&new, &on(second, port)), Err(Errno::ADDRINUSE));
        for socket in [&old, &new] {
            sockopt::set_socket_reuseport(socket, true).expect("an open socket");
        }
        bind(&new, &on(second, port)).expect("both share the port");
        listen(&new, 8).expect("both share the port");
        for socket in [&old, &new] {
            sockopt::set_socket_reuseport(socket, false).expect("an open socket");
        }
        let specific = if second == one { &new } else { &old };
        let client = Peer::connect_to(on(one, port));
        wait_for_readable(specific);
        drop(client);
    }
}

/// `fs.pipe-user-pages-soft`: an ordinary user has so many pages in pipes. Past that a new pipe has
/// two slots and cannot be enlarged. Root is exempt, which hides it.
#[test]
fn past_its_budget_a_user_gets_small_pipes_that_cannot_grow() {
    const INSIDE: &str = "TML_PROXY_TEST_INSIDE";
    if env::var_os(INSIDE).is_some() {
        spend_the_pipe_budget();
        return;
    }
    if !require(&[Need::Root, Need::Tool("setpriv"), Need::Descriptors(2200)]) {
        return;
    }
    let dir = TempDir::new();
    let setup = Setup {
        through: as_user(process::lone_user()),
        ..Setup::default()
    };
    let this = env::current_exe().expect("this test's program");
    let mut command: Command = wrapped(&setup, &dir, &this);
    command
        .args(["past_its_budget_a_user_gets_small_pipes_that_cannot_grow"])
        .args(["--exact", "--nocapture"])
        .env(INSIDE, "1");
    let output = process::succeed(&mut command);
    assert!(output.contains("1 passed"), "{output}");
}

fn spend_the_pipe_budget() {
    let soft: usize = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft")
        .expect("Linux has it since 4.5")
        .trim()
        .parse()
        .expect("a number");
    assert!(
        (1..=16_384).contains(&soft),
        "unlimited, or too much to spend here: {soft}"
    );
    let page = rustix::param::page_size();
    let mut pipes = Vec::new();
    loop {
        let pipe = new_pipe();
        let size = fcntl_getpipe_size(&pipe.0).expect("a pipe");
        pipes.push(pipe);
        if size < 16 * page {
            assert_eq!(size, 2 * page);
            break;
        }
        assert!(pipes.len() <= soft, "the budget never ends");
    }
    assert!(pipes.len() > soft / 16, "{} pipes", pipes.len());
    let (small, _) = pipes.last().expect("at least one");
    assert_eq!(fcntl_setpipe_size(small, 16 * page), Err(Errno::PERM));

    // Pages given back can be had again.
    let returned = pipes.len() - 20;
    pipes.drain(..returned.min(40));
    let (last, _) = pipes.last().expect("twenty are left");
    assert_eq!(fcntl_setpipe_size(last, 16 * page), Ok(16 * page));
}

fn take_all(pipe: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 4 * CHUNK];
    let length = rustix::io::read(pipe, &mut bytes[..]).unwrap_or(0);
    bytes.truncate(length);
    bytes
}
