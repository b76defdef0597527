//! The same scripts through tml-proxy and through Debian's HAProxy: what the two peers see.
//!
//! Where the two differ, `FAULTS.md` says how and why; any other difference fails. Where HAProxy ends
//! now in one way and now in another, the table has those that were seen, and more may come.

mod harness;

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    sync::Barrier,
    thread,
    time::Duration,
};

use harness::{
    Peer, Proxy, Stream, Target, TempDir, config, mapping, other_proxies, ports,
    process::Running,
    require::{Need, require},
};

/// A step of one peer.
#[derive(Debug, Clone, Copy)]
enum Do {
    /// The target takes the connection.
    Accept,
    /// The target takes the connection if one comes: there may be none any more.
    AcceptIfAny,
    /// The target had its queue full; now there is room.
    MakeRoom,
    /// Sends that many bytes.
    Send(usize),
    /// Sends so many segments of so many bytes.
    Segments(usize, usize),
    /// Sends one urgent byte.
    Urgent,
    /// Waits until that many bytes have come in all.
    Take(usize),
    /// Waits until something can be read and leaves it there.
    See,
    /// Waits for the other peer to come to the same step.
    Meet,
    /// Closes the sending direction.
    Finish,
    /// Closes without reading further.
    Close,
    /// Resets.
    Reset,
}

/// What is behind the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    Listening,
    Nobody,
    QueueFull,
}

/// What both peers do and what they see of it.
struct Script {
    name: &'static str,
    behind: Behind,
    client: &'static [Do],
    target: &'static [Do],
    /// What client and target see through tml-proxy; of several, the last is a matter of timing.
    ours: &'static [&'static str],
    /// What they see through HAProxy, if that is something else; where there are several, it depends
    /// on chance.
    haproxy: &'static [&'static str],
}

const BULK: usize = 20_000_000;

const SCRIPTS: &[Script] = {
    use Behind::*;
    use Do::*;
    &[
        Script {
            name: "the client closes its half first",
            behind: Listening,
            client: &[Send(100), Finish],
            target: &[Accept, Take(100), Send(200), Finish],
            ours: &["200 bytes, end | 100 bytes, end"],
            haproxy: &[],
        },
        Script {
            name: "the target closes its half first",
            behind: Listening,
            client: &[Take(200), Meet, Send(100), Finish],
            target: &[Accept, Send(200), Finish, Meet],
            ours: &["200 bytes, end | 100 bytes, end"],
            haproxy: &[],
        },
        Script {
            name: "nobody says anything",
            behind: Listening,
            client: &[Finish],
            target: &[Accept, Finish],
            ours: &["0 bytes, end | 0 bytes, end"],
            haproxy: &[
                "0 bytes, end | 0 bytes, end",
                "0 bytes, end | 0 bytes, reset",
            ],
        },
        Script {
            name: "the client resets",
            behind: Listening,
            client: &[Send(100), Take(200), Reset],
            target: &[Accept, Take(100), Send(200)],
            ours: &["gone | 100 bytes, reset"],
            haproxy: &[],
        },
        Script {
            name: "the target resets",
            behind: Listening,
            client: &[Send(100), Take(200), Meet],
            target: &[Accept, Take(100), Send(200), Meet, Reset],
            ours: &["200 bytes, reset | gone"],
            haproxy: &["200 bytes, end | gone"],
        },
        Script {
            name: "the target resets after a half close",
            behind: Listening,
            client: &[Send(100), Finish, Take(200), Meet],
            target: &[Accept, Take(100), Send(200), Meet, Reset],
            ours: &["200 bytes, reset | gone"],
            haproxy: &["200 bytes, end | gone"],
        },
        Script {
            name: "the target closes with bytes unread",
            behind: Listening,
            client: &[Send(100)],
            target: &[Accept, See, Send(200), Close],
            ours: &["200 bytes, reset | gone"],
            haproxy: &["200 bytes, end | gone"],
        },
        Script {
            name: "the client closes with bytes unread",
            behind: Listening,
            client: &[See, Send(100), Close],
            target: &[Accept, Send(200)],
            ours: &["gone | 100 bytes, reset"],
            haproxy: &["gone | 100 bytes, end", "gone | 100 bytes, reset"],
        },
        Script {
            name: "nobody listens at the target",
            behind: Nobody,
            client: &[Send(100)],
            target: &[],
            ours: &["0 bytes, reset | never called"],
            haproxy: &["0 bytes, end | never called"],
        },
        Script {
            name: "the target is slow to accept and the client has closed its half",
            behind: Listening,
            client: &[Send(100), Finish, Meet],
            target: &[Meet, Accept, Take(100), Send(200), Finish],
            ours: &["200 bytes, end | 100 bytes, end"],
            haproxy: &[],
        },
        Script {
            name: "the client resets before the target answers",
            behind: QueueFull,
            client: &[Send(100), Reset, Meet],
            target: &[Meet, MakeRoom, AcceptIfAny],
            ours: &["gone | never called", "gone | 0 bytes, reset"],
            haproxy: &["gone | 100 bytes, reset", "gone | never called"],
        },
        Script {
            name: "bulk both ways, one side is done much earlier",
            behind: Listening,
            client: &[Send(1_000_000), Finish],
            target: &[Accept, Send(BULK), Finish],
            ours: &["20000000 bytes, end | 1000000 bytes, end"],
            haproxy: &[],
        },
        Script {
            name: "the target ends in the middle of an upload",
            behind: Listening,
            client: &[Send(BULK), Finish],
            target: &[Accept, Send(200), Finish],
            ours: &["200 bytes, end | 20000000 bytes, end"],
            haproxy: &[],
        },
        Script {
            name: "many small segments",
            behind: Listening,
            client: &[Segments(20_000, 10), Finish],
            target: &[Accept, Segments(20_000, 10), Finish],
            ours: &["200000 bytes, end | 200000 bytes, end"],
            haproxy: &[],
        },
        Script {
            name: "an urgent byte in the middle",
            behind: Listening,
            client: &[Send(100), Urgent, Send(100), Finish],
            target: &[Accept, Finish],
            ours: &["0 bytes, end | 201 bytes, end"],
            haproxy: &[
                "0 bytes, end | 100 bytes, end",
                "0 bytes, reset | 100 bytes, end",
                "0 bytes, end | 200 bytes, others than were sent, end",
            ],
        },
    ]
};

/// One peer at work.
struct Actor<'a> {
    peer: Option<Peer>,
    target: Option<&'a Target>,
    meeting: &'a Barrier,
    sent: Stream,
    received: Vec<u8>,
    called: bool,
    broken: bool,
}

impl Actor<'_> {
    fn play(mut self, steps: &[Do], other: u64) -> String {
        for &step in steps {
            self.step(step);
        }
        let Some(peer) = self.peer.take() else {
            return match self.called {
                true => "gone".to_owned(),
                false => "never called".to_owned(),
            };
        };
        let end = match peer.stream().read_to_end(&mut self.received) {
            _ if self.broken || peer.was_reset_at_once() => "reset",
            Ok(_) => "end",
            Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset",
            Err(error) => panic!("neither an end nor a reset: {error}"),
        };
        let got = self.received.len();
        let spoilt = match self.received == Stream::bytes(other, got) {
            true => "",
            false => ", others than were sent",
        };
        format!("{got} bytes{spoilt}, {end}")
    }

    fn step(&mut self, step: Do) {
        match step {
            Do::Accept => self.accept(),
            Do::AcceptIfAny => {
                // The kernel tries again a second after its first attempt, and two after that.
                if self.listener().is_called(Duration::from_millis(3500)) {
                    self.accept();
                }
            }
            Do::MakeRoom => drop(self.listener().accept()),
            Do::Meet => _ = self.meeting.wait(),
            Do::Send(length) => self.send(length, 1 << 20),
            Do::Segments(count, length) => self.send(count * length, length),
            Do::Urgent => {
                let byte = self.sent.ahead(1);
                self.peer().send_urgent(byte);
                self.sent.advance(1);
            }
            Do::Take(length) => {
                let mut bytes = vec![0; length - self.received.len()];
                let mut stream = self.peer().stream();
                stream.read_exact(&mut bytes).expect("so many bytes");
                self.received.extend(bytes);
            }
            Do::See => _ = self.peer().stream().peek(&mut [0]).expect("bytes"),
            // A connection that was reset meanwhile has no half left to close.
            Do::Finish => self.broken |= self.peer().stream().shutdown(Shutdown::Write).is_err(),
            Do::Close => self.peer = None,
            Do::Reset => self.peer.take().expect("a connection").reset(),
        }
    }

    /// Sends that much in pieces of `most` bytes, or finds out that the connection is broken.
    fn send(&mut self, length: usize, most: usize) {
        let end = self.sent.position() + length as u64;
        while self.sent.position() < end && !self.broken {
            let left = usize::try_from(end - self.sent.position()).unwrap_or(most);
            let piece = self.sent.ahead(left.min(most));
            match self.peer().stream().write_all(piece) {
                Ok(()) => self.sent.advance(piece.len()),
                Err(_) => self.broken = true,
            }
        }
    }

    fn accept(&mut self) {
        self.peer = Some(self.listener().accept());
        self.called = true;
    }

    fn listener(&self) -> &Target {
        self.target.expect("a step of the target")
    }

    fn peer(&mut self) -> &mut Peer {
        self.peer.as_mut().expect("a connection")
    }
}

/// Plays a script through the proxy on `port` which leads to `at`.
fn play(script: &Script, port: u16, at: SocketAddr) -> String {
    let (target, fillers) = match script.behind {
        Behind::Listening => (Some(Target::bind_to(at)), Vec::new()),
        Behind::Nobody => (None, Vec::new()),
        Behind::QueueFull => {
            let (target, fillers) = Target::full_at(at);
            (Some(target), fillers)
        }
    };
    let meeting = Barrier::new(2);
    let actor = |peer: Option<Peer>, target, seed| Actor {
        called: peer.is_some(),
        peer,
        target,
        meeting: &meeting,
        sent: Stream::new(seed),
        received: Vec::new(),
        broken: false,
    };
    let seen = thread::scope(|scope| {
        let client = actor(Some(Peer::connect(port)), None, 1);
        let server = actor(None, target.as_ref(), 2);
        let client = scope.spawn(|| client.play(script.client, 2));
        let server = scope.spawn(|| server.play(script.target, 1));
        let seen = [client.join(), server.join()];
        seen.map(|side| side.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    drop(fillers);
    seen.join(" | ")
}

/// HAProxy with one port that leads to `at`, until it is dropped.
fn start_haproxy(dir: &TempDir, port: u16, at: SocketAddr) -> Running {
    let text = format!(
        "global\n    maxconn 100\n\
         defaults\n    mode tcp\n    timeout connect 10s\n    timeout client 60s\n    \
         timeout server 60s\n\
         listen m\n    bind :{port}\n    server target [{}]:{}\n",
        at.ip(),
        at.port()
    );
    other_proxies::haproxy(dir, &text, port)
}

#[test]
fn haproxy_and_tml_proxy_differ_where_the_table_says_so_and_nowhere_else() {
    if !require(&[Need::Tool("haproxy")]) {
        return;
    }
    let [ours, theirs, behind] = [0; 3].map(|_| ports::free());
    let at = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], behind));
    let dir = TempDir::new();
    let _haproxy = start_haproxy(&dir, theirs, at);
    let proxy = Proxy::start(&config([mapping("m", ours, at, "")]));
    let mut unexpected = Vec::new();
    for script in SCRIPTS {
        let expected = match script.haproxy {
            [] => script.ours,
            others => others,
        };
        let by_chance = expected.len() > 1;
        for (name, port, expected, may_vary) in [
            ("tml-proxy", ours, script.ours, false),
            ("HAProxy", theirs, expected, by_chance),
        ] {
            let seen = play(script, port, at);
            println!("{}: {name}: {seen}", script.name);
            if !may_vary && !expected.contains(&&*seen) {
                unexpected.push(format!("{}: {name}: {seen}, not {expected:?}", script.name));
            }
        }
    }
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    proxy.settles();
}

/// What the table says is what the scripts say.
#[test]
fn the_table_of_differences_is_that_of_the_scripts() {
    let table = include_str!("FAULTS.md")
        .split_once("\n## HAProxy\n")
        .expect("a section on HAProxy")
        .1;
    let rows: BTreeMap<&str, [&str; 2]> = table
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
            match cells[..] {
                [name, ours, theirs, why] if !why.trim().is_empty() => Some((name, [ours, theirs])),
                _ => None,
            }
        })
        .filter(|(name, _)| !name.starts_with("---") && *name != "Script")
        .collect();
    let scripts: BTreeMap<&str, [String; 2]> = SCRIPTS
        .iter()
        .filter(|script| !script.haproxy.is_empty())
        .map(|script| {
            (
                script.name,
                [script.ours, script.haproxy].map(|seen| seen.join(" or ")),
            )
        })
        .map(|(name, seen)| (name, seen.map(|seen| seen.replace(" | ", "; "))))
        .collect();
    assert_eq!(
        rows.into_iter()
            .map(|(name, seen)| (name, seen.map(str::to_owned)))
            .collect::<BTreeMap<_, _>>(),
        scripts
    );
}
