use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd},
    thread,
    time::Instant,
};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd};

use super::*;

fn file() -> File {
    File::open("/dev/null").expect("it is there")
}

/// Sends a part of `count` descriptors, all of the same file.
fn put(sink: &dyn Sink, name: &str, count: usize) -> Vec<Descriptor> {
    let file = file();
    let mut saver = Saver::default();
    let all = (0..count).map(|_| saver.descriptor(file.as_fd())).collect();
    saver.bytes(b"kept");
    let mut values = Records::default();
    values.push(&name).expect("plain values");
    sink.put(name, &values, saver).expect("it fits");
    all
}

fn open(socket: BorrowedFd<'_>, name: &str) -> (Values, Loader) {
    let parts = incoming(socket, Descriptors::Received).expect("all is there");
    let part = parts.into_iter().find(|part| part.name == name);
    part.expect("it was sent").open().expect("it is whole")
}

#[test]
fn parts_of_several_threads_come_whole_with_every_descriptor() {
    let outgoing = Outgoing::new().expect("there are descriptors");
    let names = ["one", "two", "three", "four"];
    thread::scope(|scope| {
        for (at, name) in names.into_iter().enumerate() {
            let outgoing = &outgoing;
            scope.spawn(move || put(outgoing, name, at * 300));
        }
    });
    outgoing.finish().expect("there is room");
    let socket = outgoing.receiving();
    for (at, name) in names.into_iter().enumerate() {
        let (mut values, mut loader) = open(socket, name);
        assert_eq!(values.record::<String>().expect("its name"), name);
        assert_eq!(loader.bytes(Bytes { at: 0, len: 4 }), Ok(&b"kept"[..]));
        for place in 0..at * 300 {
            let descriptor = loader.descriptor(Descriptor(place as u32));
            let descriptor = descriptor.expect("it was sent");
            assert!(closes_on_exec(&descriptor), "{name} {place}");
        }
        let more = Descriptor((at * 300) as u32);
        loader.descriptor(more).expect_err("no more were sent");
    }
}

#[test]
fn who_looked_and_could_not_go_on_leaves_everything_to_the_next() {
    let outgoing = Outgoing::new().expect("there are descriptors");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("there are descriptors");
    let mut saver = Saver::default();
    let descriptor = saver.descriptor(theirs.as_fd());
    outgoing
        .put("part", &Records::default(), saver)
        .expect("it fits");
    drop(theirs);
    outgoing.finish().expect("there is room");
    let socket = outgoing.receiving();
    for _ in 0..3 {
        let (_, mut loader) = open(socket, "part");
        let theirs = loader.descriptor(descriptor).expect("it is there again");
        let mut theirs = std::os::unix::net::UnixStream::from(theirs);
        io_exchange(&ours, &mut theirs);
    }
    drop(outgoing);
    // Nobody has it any more.
    let read = std::io::Read::read(&mut &ours, &mut [0; 1]);
    assert_eq!(read.expect("its end"), 0);
}

#[test]
fn descriptors_that_stayed_open_are_taken_as_they_are_and_closed_by_the_next_image() {
    let outgoing = Outgoing::new().expect("there are descriptors");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("there are descriptors");
    // A number that no other test is given once this one has closed it.
    let theirs = fcntl_dupfd_cloexec(&theirs, 900).expect("below the limit");
    let (mut saver, number) = (Saver::default(), theirs.as_raw_fd());
    let descriptor = saver.descriptor(theirs.as_fd());
    let values = Records::default();
    outgoing.put("part", &values, saver).expect("it fits");
    assert!(!closes_on_exec(&theirs));
    outgoing.finish().expect("there is room");
    // As it is when another image has taken the place of this one.
    let _ = theirs.into_raw_fd();
    let parts = incoming(outgoing.receiving(), Descriptors::InPlace).expect("all is there");
    let opened = parts.into_iter().next().expect("it was sent").open();
    let (_, mut loader) = opened.expect("it is whole");
    assert!(loader.is_in_place());
    let theirs = loader.descriptor(descriptor).expect("it stayed open");
    assert_eq!(theirs.as_raw_fd(), number);
    assert!(closes_on_exec(&theirs));
    io_exchange(&ours, &mut std::os::unix::net::UnixStream::from(theirs));
    // What was closed meanwhile is received.
    let parts = incoming(outgoing.receiving(), Descriptors::InPlace).expect("all is there");
    let opened = parts.into_iter().next().expect("it was sent").open();
    let (_, mut loader) = opened.expect("it is whole");
    assert!(!loader.is_in_place());
    let theirs = loader.descriptor(descriptor).expect("it was sent");
    io_exchange(&ours, &mut std::os::unix::net::UnixStream::from(theirs));
}

fn closes_on_exec(descriptor: impl AsFd) -> bool {
    let flags = fcntl_getfd(descriptor).expect("it is open");
    flags.contains(FdFlags::CLOEXEC)
}

fn io_exchange(mut ours: &std::os::unix::net::UnixStream, theirs: &mut impl std::io::Read) {
    std::io::Write::write_all(&mut ours, b"x").expect("it is open");
    let mut byte = [0];
    theirs.read_exact(&mut byte).expect("it is open");
    assert_eq!(byte, *b"x");
}

#[test]
fn what_was_not_finished_is_not_taken_for_all() {
    let outgoing = Outgoing::new().expect("there are descriptors");
    put(&outgoing, "part", 1);
    let error =
        incoming(outgoing.receiving(), Descriptors::Received).expect_err("the end is missing");
    assert!(matches!(error, HandoverError::Incomplete { .. }), "{error}");
    let error = incoming(file().as_fd(), Descriptors::Received).expect_err("it is no socket");
    assert!(matches!(error, HandoverError::None(_)), "{error}");
}

#[test]
fn a_rehearsal_reads_the_same_values_and_gets_nothing_to_use() {
    let rehearsal = Rehearsal::new().expect("there are descriptors");
    let descriptors = put(&rehearsal, "one", 2);
    put(&rehearsal, "two", 0);
    let file = rehearsal.finish().expect("it can be read");
    let mut parts = rehearsed(file).expect("it is whole").into_iter();
    let one = parts.next().expect("it was written");
    assert_eq!(one.name, "one");
    let (mut values, mut loader) = one.open().expect("it is whole");
    assert_eq!(values.record::<String>().expect("its name"), "one");
    for descriptor in descriptors {
        loader.descriptor(descriptor).expect("there is always one");
    }
    assert_eq!(parts.next().expect("it was written").name, "two");
    assert!(parts.next().is_none());
}

#[test]
#[ignore = "measures how long eighteen thousand descriptors take"]
fn eighteen_thousand_descriptors_on_their_way() {
    let outgoing = Outgoing::new().expect("there are descriptors");
    let begun = Instant::now();
    thread::scope(|scope| {
        for name in ["one", "two", "three"] {
            let outgoing = &outgoing;
            scope.spawn(move || put(outgoing, name, 6000));
        }
    });
    let sent = begun.elapsed();
    outgoing.finish().expect("there is room");
    let socket = outgoing.receiving();
    // The table of descriptors grows now; an image that has one thread has nothing to wait for there.
    drop(fcntl_dupfd_cloexec(socket, 19_000).expect("below the limit"));
    let begun = Instant::now();
    let parts = incoming(socket, Descriptors::Received).expect("all is there");
    let opened: Vec<_> = parts.into_iter().map(Part::open).collect();
    let received = begun.elapsed();
    println!(
        "sent in {sent:?}, received in {received:?}, {} parts",
        opened.len()
    );
    assert!(opened.iter().all(Result::is_ok));
}
