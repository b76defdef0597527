//! Images of the program with real sockets, between which everything is handed over.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{Mutex, PoisonError},
    thread,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::*;
use crate::{
    handover::{Loader, Values},
    listen::accept,
    relay::SMALL_PIPE,
    table::{KnownMappings, MappingSpec, Origin, SavedTable, Surroundings},
    worker::{Adopted, NotBegun, load},
};

/// What was handed over, with descriptors of its own.
#[derive(Default)]
pub struct Kept(Mutex<Vec<(String, Values, Loader)>>);

impl Sink for Kept {
    fn put(&self, part: &str, values: &Records, saver: Saver<'_>) -> Result<(), String> {
        assert!(part.starts_with(PART), "{part}");
        let (descriptors, bytes) = saver.into_parts();
        let clones = descriptors.iter().map(|fd| fd.try_clone_to_owned());
        let clones: Result<Vec<_>, _> = clones.collect();
        let loader = Loader::new(clones.map_err(|error| error.to_string())?, bytes);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let values = Values::of_text(values.as_bytes().to_vec());
        kept.push((part.to_owned(), values, loader));
        Ok(())
    }
}

/// Only the values of what was handed over.
#[derive(Default)]
pub struct Text(Mutex<Vec<u8>>);

impl Sink for Text {
    fn put(&self, _: &str, values: &Records, _: Saver<'_>) -> Result<(), String> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(values.as_bytes());
        Ok(())
    }
}

/// Pairs of workers that turn when told.
pub struct Image {
    pub context: Arc<WorkerContext>,
    pub workers: Workers,
    pub loops: Vec<EventLoop>,
}

impl Image {
    pub fn new(known: &KnownMappings, pairs: usize) -> Self {
        let context = context(Arc::clone(&known.table), pipes());
        let (handles, queues) = handle::prepare(pairs).expect("descriptors");
        let loops = queues.into_iter().enumerate().map(|(number, queue)| {
            let wake = handles[number].eventfd();
            EventLoop::new(number, handles.clone(), queue, wake, Arc::clone(&context))
        });
        let loops: io::Result<Vec<_>> = loops.collect();
        Self {
            loops: loops.expect("descriptors"),
            workers: Workers::new(handles),
            context,
        }
    }

    pub fn turn(&mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        for worker in &mut self.loops {
            let turned = worker.turn(&mut events, Some(Duration::ZERO), &mut 0);
            turned.expect("epoll works");
        }
    }

    #[track_caller]
    pub fn turn_until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        for _ in 0..10_000 {
            self.turn();
            if holds(self) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("gave up waiting for {what}");
    }

    /// Has workers say what they would hand over, as they do before an upgrade.
    pub fn describe(&mut self) {
        for worker in &mut self.loops {
            let described = worker.describe(&Text::default());
            described.expect("it takes all");
        }
    }

    /// Everything goes to another image with so many pairs of workers, as it does through an upgrade.
    pub fn upgrade(mut self, pairs: usize) -> Self {
        let departed = self.context.departed.load_full();
        let table = self.context.table.load_full();
        for worker in &mut self.loops {
            worker.run_commands();
            let described = mem::take(&mut worker.written);
            let [as_now, anew] = [described, WrittenSessions::default()].map(|mut written| {
                let text = Text::default();
                worker.save(&text, &mut written).expect("it takes all");
                text.0.into_inner().expect("nobody panicked")
            });
            assert!(as_now == anew, "something is as it was described before");
        }
        let kept = Kept::default();
        let saved = self
            .loops
            .iter()
            .map(|worker| worker.save(&kept, &mut WrittenSessions::default()));
        let sessions: usize = saved.map(|saved| saved.expect("there is room")).sum();
        let open = self.context.stats.sessions_open();
        assert_eq!(sessions, open as usize);
        let counted = |table: &Table| {
            let counted = |mapping: &Arc<Mapping>| (mapping.name.clone(), mapping.stats.open());
            table.mappings().map(counted).collect::<Vec<_>>()
        };
        let counts = counted(&table);
        let next = self
            .context
            .next_session
            .load(std::sync::atomic::Ordering::Relaxed);
        let mappings = serde_json::to_vec(&SavedTable::new(&table, &departed));
        let mappings = mappings.expect("plain values");
        // All sockets but those that were handed over are closed.
        drop(self);
        let mappings: SavedTable = serde_json::from_slice(&mappings).expect("as it was written");
        let mut known = mappings.load().expect("it was in force");
        let mut next_image = Self::new(&known, pairs);
        next_image
            .context
            .next_session
            .store(next, std::sync::atomic::Ordering::Relaxed);
        let parts = kept.0.into_inner().expect("nobody panicked");
        let adopted = parts.into_iter().map(|(part, mut values, mut loader)| {
            let context = &next_image.context;
            load(&part, &mut values, &mut loader, &mut known, context).expect("as it was saved")
        });
        let adopted: Vec<_> = adopted.collect();
        assert_eq!(
            adopted.iter().map(Adopted::sessions).sum::<usize>(),
            sessions
        );
        assert_eq!(next_image.context.stats.sessions_open(), open);
        assert_eq!(counted(&known.table), counts);
        next_image.workers.adopt(NotBegun::default(), adopted);
        next_image.turn();
        next_image
    }
}

/// Pipes for all that move bulk here.
pub fn pipes() -> PipeBudget {
    PipeBudget::new(64, 64 * SMALL_PIPE, SMALL_PIPE)
}

/// Everything that a mapping leads to.
pub struct Scene {
    pub image: Image,
    pub target: TcpListener,
    pub public: TcpListener,
}

impl Scene {
    /// One mapping `m` with this policy.
    pub fn new(policy: Policy) -> Self {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let [target, public] = [(); 2].map(|()| TcpListener::bind(local).expect("a free port"));
        let addr = |listener: &TcpListener| listener.local_addr().expect("it listens");
        // What nobody reads is soon too much; connections inherit it.
        for listener in [&target, &public] {
            let listener = SockRef::from(listener);
            listener.set_send_buffer_size(65536).expect("any size");
        }
        let spec = MappingSpec {
            name: MappingName::new("m"),
            pairs: [(addr(&public).into(), addr(&target).into())].into(),
            policy: Arc::new(policy),
            origin: Origin::BuiltIn,
        };
        let around = Surroundings {
            reserved: &[],
            departed: &[],
            is_local: &|_| true,
            looping: &Default::default(),
        };
        let table = Table::build(&[spec], &Table::default(), &around).expect("no conflict");
        let known = SavedTable::new(&table, &[]).load().expect("no conflict");
        Self {
            image: Image::new(&known, 1),
            target,
            public,
        }
    }

    pub fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(
            self.image
                .context
                .table
                .load()
                .mappings()
                .next()
                .expect("there is one"),
        )
    }

    /// A client that has been accepted.
    pub fn connect(&mut self) -> TcpStream {
        self.connect_by(Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket"))
    }

    pub fn connect_by(&mut self, client: Socket) -> TcpStream {
        let addr = self.public.local_addr().expect("it listens");
        client.connect(&addr.into()).expect("it listens");
        let accepted = accept(&self.public).expect("it waits");
        let table = self.image.context.table.load_full();
        let route = table.route(&addr.into()).expect("it is there");
        let worker = &mut self.image.loops[0];
        worker.open(accepted, Arc::clone(route), OrderNumber::default());
        let client = TcpStream::from(client);
        client.set_nonblocking(true).expect("an open socket");
        client
    }

    /// A client with a session, and the target's end of it.
    pub fn session(&mut self) -> (TcpStream, TcpStream) {
        let client = self.connect();
        self.image.turn();
        let target = self.answer();
        self.image.describe();
        (client, target)
    }

    pub fn answer(&mut self) -> TcpStream {
        let (target, _) = self.target.accept().expect("it is called");
        target.set_nonblocking(true).expect("an open socket");
        self.image.turn();
        target
    }

    pub fn upgrade(self, pairs: usize) -> Self {
        Self {
            image: self.image.upgrade(pairs),
            ..self
        }
    }

    /// Has one end receive exactly these bytes.
    #[track_caller]
    pub fn receives(&mut self, mut end: &TcpStream, expected: &[u8]) {
        let mut received = Vec::new();
        self.image.turn_until("every byte to arrive", |_| {
            let mut bytes = [0; 16 * 1024];
            while received.len() < expected.len() {
                let room = bytes.len().min(expected.len() - received.len());
                match end.read(&mut bytes[..room]) {
                    Ok(0) => panic!("the stream ended after {} bytes", received.len()),
                    Ok(n) => received.extend_from_slice(&bytes[..n]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error} after {} bytes", received.len()),
                }
            }
            received.len() >= expected.len()
        });
        assert!(received == expected, "{} other bytes", received.len());
    }

    /// Has one end receive nothing more but this.
    #[track_caller]
    pub fn ends(&mut self, mut end: &TcpStream, expected: Result<(), ErrorKind>) {
        let mut found = None;
        self.image.turn_until("the end", |_| {
            match end.read(&mut [0]) {
                Ok(0) => found = Some(Ok(())),
                Ok(_) => panic!("a byte too many"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => found = Some(Err(error.kind())),
            }
            found.is_some()
        });
        assert_eq!(found, Some(expected));
    }

    /// Has the target send until nobody takes any more; what it sent.
    pub fn fill(&mut self, mut target: &TcpStream) -> Vec<u8> {
        let bytes: Vec<u8> = (0..=250).cycle().take(8 << 20).collect();
        let (mut sent, mut quiet) = (0, 0);
        self.image.turn_until("everything to be full", |_| {
            match target.write(&bytes[sent..]) {
                Ok(n) => (sent, quiet) = (sent + n, 0),
                Err(_) => quiet += 1,
            }
            quiet > 50
        });
        bytes[..sent].to_vec()
    }

    /// Bytes that the only session has read and not passed on to its client.
    pub fn in_flight(&mut self) -> bool {
        let pipes = self.image.context.pipes.in_use();
        let kept = Kept::default();
        for worker in &self.image.loops {
            let saved = worker.save(&kept, &mut WrittenSessions::default());
            saved.expect("there is room");
        }
        let kept = kept.0.into_inner().expect("nobody panicked");
        let mut all = kept.into_iter();
        pipes > 0
            || all.any(|(_, mut values, _)| {
                let lines = std::iter::from_fn(|| Some(values.line().expect("a text").to_vec()));
                let mut lines = lines.take_while(|line| !line.is_empty());
                lines.any(|line| String::from_utf8_lossy(&line).contains("\"kept\""))
            })
    }

    /// Has the image be without sessions.
    #[track_caller]
    pub fn finish(mut self) {
        self.image.turn_until("the last session to end", |image| {
            image.context.stats.sessions_open() == 0
        });
        assert_eq!(self.mapping().stats.open(), 0);
        assert_eq!(self.image.context.pipes.in_use(), 0);
    }
}
