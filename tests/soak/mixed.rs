//! Everything at once, again and again: what a proxy has after each round it had after the first.

use std::{
    env, fs,
    io::{self, Read},
    net::TcpListener,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    board::Switchboard,
    harness::{
        Peer, Proxy, Stream, TempDir, config, figure,
        lab::{Lab, PROXY, TARGET},
        mapping,
        process::{self, descriptors, resident_kib, succeed},
        require::{Need, require},
        wait_until,
    },
    peers::{Keys, Remote, Sshd, scp, ssh},
    stage::{Stage, closes, opens},
};

/// Leads to sshd.
const SSH: u16 = 22014;
/// Leads to an echo.
const ECHO: u16 = 22015;
/// Leads to a port without a listener.
const NOBODY: u16 = 22016;

/// How long each round is.
const ROUND: Duration = Duration::from_secs(10);

/// Sessions that stay open and say something once a round.
const IDLE: usize = 100;

/// Sockets to ask the kernel what was acknowledged: each worker of the one pair there is opens its own
/// when it first has to, which may be after the first round.
const PROBES: usize = 2;

/// How long a file is.
const FILE: usize = 5_000_000;

/// What the process has while only those sessions are open that stay.
#[derive(Debug, Clone, Copy)]
struct AtRest {
    memory_kib: u64,
    /// Without those of connections to the switchboard: some are kept for the next request, or not.
    descriptors: usize,
    threads: usize,
}

struct Everything {
    lab: Lab,
    keys: Keys,
    stage: Stage,
    proxy: Proxy,
    files: TempDir,
    _sshd: Sshd,
}

impl Everything {
    fn new() -> Option<Self> {
        let tools = ["ip", "ssh", "scp", "sshd", "ssh-keygen", "mount"].map(Need::Tool);
        if !require(&[&[Need::Root], &tools[..]].concat()) {
            return None;
        }
        let lab = Lab::new();
        let mut stage = lab.proxy.run(|| Stage::with(Switchboard::start(), 20));
        stage.public = PROXY.to_string();
        let keys = Keys::new(SSH);
        let sshd = Sshd::start(&lab, &keys);
        let echo = lab
            .target
            .run(|| TcpListener::bind((TARGET, ECHO)).expect("a free port"));
        thread::spawn(move || {
            for stream in echo.incoming().map_while(Result::ok) {
                // Those who come to disturb end it in all ways there are.
                thread::spawn(move || _ = io::copy(&mut &stream, &mut &stream));
            }
        });
        let proxy = Proxy::start_with(&lab.setup(), &configuration(&stage, 0));
        Some(Self {
            lab,
            keys,
            stage,
            proxy,
            files: TempDir::new(),
            _sshd: sshd,
        })
    }

    /// Files go there and back, whole.
    fn copy_files(&self, until: Instant) -> u64 {
        let [file, there, back] = ["file", "there", "back"].map(|name| self.files.join(name));
        fs::write(&file, Stream::bytes(1, FILE)).expect("space for a file");
        let copy = |near: &Path, far: &Path, up| {
            succeed(&mut scp(&self.lab, &self.keys, near, far, up));
        };
        let mut copies = 0;
        while Instant::now() < until {
            copy(&file, &there, true);
            copy(&back, &there, false);
            let bytes = fs::read(&back).expect("the file arrived");
            Stream::new(1).check(&bytes);
            assert_eq!(bytes.len(), FILE);
            copies += 2;
        }
        copies
    }

    /// Clients that come to disturb.
    fn disturb(&self, until: Instant) -> u64 {
        let junk = Stream::bytes(2, 100_000);
        let mut clients = 0;
        while Instant::now() < until {
            self.lab.connect(ECHO).reset();
            drop(self.lab.connect(ECHO));
            // Takes nothing of what comes back.
            let mut deaf = self.lab.connect(ECHO);
            deaf.send(&junk);
            deaf.reset();
            let half = self.lab.connect(ECHO);
            half.finish();
            let mut scanner = self.lab.connect(SSH);
            scanner.send(b"GET / HTTP/1.1\r\n\r\n");
            drop(scanner);
            self.lab.connect(NOBODY).expect_reset();
            clients += 6;
        }
        clients
    }

    /// Jobs come and go.
    fn run_jobs(&self, first: u32, until: Instant) -> u32 {
        let mut number = first;
        while Instant::now() < until {
            number += 1;
            let id = self.stage.ready(number, &TARGET.to_string());
            let client = self.lab.connect(opens(&self.proxy, &id));
            let mut banner = [0; 8];
            let mut stream = client.stream();
            stream.read_exact(&mut banner).expect("sshd's greeting");
            assert_eq!(&banner, b"SSH-2.0-");
            self.stage.finalize(&id);
            closes(&self.proxy, &id);
        }
        number
    }

    /// A file a second, every third of them broken.
    fn reload(&self, until: Instant) -> u64 {
        let mut reloads = 0;
        while Instant::now() < until {
            reloads += 1;
            let text = configuration(&self.stage, reloads);
            match reloads % 3 {
                0 => _ = self.proxy.reload_fails(&format!("{text}\nbroken = [")),
                _ => _ = self.proxy.reload(&text),
            }
            thread::sleep(Duration::from_secs(1));
        }
        reloads
    }

    /// Waits until only those sessions are open that stay, and looks.
    fn at_rest(&self) -> AtRest {
        self.proxy
            .wait_until("tml_proxy_sessions_open", &[], IDLE as u64 + 1);
        self.proxy.wait_until("tml_proxy_pipes_in_use", &[], 0);
        let pid = self.proxy.id();
        let pipes = self.proxy.metrics().sum("tml_proxy_pipes_free", &[]) as usize;
        let questions = process::connections_to(pid, self.stage.board.port());
        AtRest {
            memory_kib: resident_kib(pid),
            descriptors: descriptors(pid) - 2 * pipes - questions,
            threads: process::threads(pid),
        }
    }
}

/// A configuration that differs from the one before in mappings nobody uses.
fn configuration(stage: &Stage, number: u64) -> String {
    let target = |port: u16| format!("[{TARGET}]:{port}");
    let port = 22100 + (number % 7) as u16;
    config([
        "[process]\nworkers = 1\n".to_owned(),
        mapping("ssh", SSH, target(22), ""),
        mapping("echo", ECHO, target(ECHO), ""),
        mapping("nobody", NOBODY, target(NOBODY), ""),
        mapping(&format!("other-{number}"), port, target(port), ""),
        stage.section("cooldown = \"1s\""),
    ])
}

#[test]
fn everything_at_once_leaves_memory_descriptors_and_threads_as_they_were() {
    let Some(everything) = &Everything::new() else {
        return;
    };
    let seconds = env::var("TML_PROXY_SOAK_MINUTES").map_or(30, |minutes| {
        60 * minutes
            .parse::<u64>()
            .expect("TML_PROXY_SOAK_MINUTES: a number")
    });
    let rounds = seconds / ROUND.as_secs();
    let mut command: Command = ssh(&everything.lab, &everything.keys);
    let mut terminal = Remote::start(command.arg("cat"));
    terminal.says_and_hears("before");
    let mut idle: Vec<Peer> = (0..IDLE).map(|_| everything.lab.connect(ECHO)).collect();

    let mut first = None;
    let (mut copies, mut clients, mut jobs, mut reloads, mut lines) = (0, 0, 0, 0, 0);
    for round in 1..=rounds {
        let until = Instant::now() + ROUND;
        thread::scope(|scope| {
            let copying = scope.spawn(|| everything.copy_files(until));
            let disturbing = scope.spawn(|| everything.disturb(until));
            let running = scope.spawn(move || everything.run_jobs(jobs, until));
            let reloading = scope.spawn(|| everything.reload(until));
            while Instant::now() < until {
                terminal.says_and_hears(&format!("line {lines}"));
                lines += 1;
                thread::sleep(Duration::from_millis(20));
            }
            copies += copying.join().expect("files arrive");
            clients += disturbing.join().expect("they get no further");
            jobs = running.join().expect("jobs are reached");
            reloads += reloading.join().expect("reloads do what they should");
        });
        for peer in &mut idle {
            peer.send(b"still here");
            peer.expect(b"still here");
        }
        let now = everything.at_rest();
        println!("round {round} of {rounds}: {now:?}");
        let first = *first.get_or_insert(now);
        wait_until("as few descriptors and threads as at first", || {
            let now = everything.at_rest();
            now.descriptors <= first.descriptors + PROBES && now.threads <= first.threads
        });
        let grown = now.memory_kib.saturating_sub(first.memory_kib);
        assert!(grown < 8 * 1024, "{grown} KiB more after {round} rounds");
    }
    assert_eq!(terminal.closes().code(), Some(0));
    drop(idle);
    everything.proxy.settles();
    for (what, how_many) in [
        ("files of 5 MB copied whole", copies),
        ("hostile clients", clients),
        ("jobs that came, were reached and went", jobs.into()),
        ("reloads, a third of them broken", reloads),
        ("lines typed and answered in one ssh session", lines),
    ] {
        figure(
            &format!("{seconds} s of everything at once: {what}"),
            how_many,
        );
    }
}
