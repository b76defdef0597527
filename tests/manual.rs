//! Somebody who has nothing but the README and the manual, and types what they say, on a Debian that
//! booted: forwards a port, takes the place of HAProxy, adds a switchboard.
//!
//! Only what is theirs is there before: hosts with sshd, names, keys. In the place of a build is a program
//! that is built.

mod harness;

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "harness/switchboard/mod.rs"]
mod board;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "systemd/machine.rs"]
mod machine;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{ChildStdin, ChildStdout, Stdio},
};

use board::{Kind, Switchboard};
use harness::{
    lab::Netns,
    manual::{commands_under, first_block},
    process::Running,
    require::{Need, require},
    wait_until,
};
use machine::Machine;
use serde_json::json;

const README: &str = include_str!("../README.md");
const SERVICE: &str = include_str!("../src/manual/service.md");
const SSH: &str = include_str!("../src/manual/ssh.md");
const HAPROXY: &str = include_str!("../src/manual/haproxy.md");
const SWITCHBOARD: &str = include_str!("../src/manual/switchboard.md");

fn available() -> bool {
    let tools = ["systemd-nspawn", "debootstrap", "nsenter", "ip"].map(Need::Tool);
    require(&[Need::Root]) && require(&tools)
}

/// The hosts behind the proxy in the texts.
const HOSTS: [&str; 7] = [
    "fd9d:773b:e6f8:cafe::10/128",
    "fd9d::14/128",
    "fd9d:773b:e6f8:cafe::14/128",
    "fd9d:773b:e6f8:cafe::15/128",
    "fd9d:773b:e6f8:cafe::16/128",
    "fd9d:773b:e6f8:cafe::17/128",
    "192.0.2.1/32",
];

/// A machine with the names of the texts and a key for the account on the hosts behind it.
struct Site {
    machine: Machine,
    _hosts: Netns,
    _sshd: Running,
}

impl Site {
    fn new() -> Self {
        let machine = Machine::boot();
        let hosts = Netns::new("hosts");
        machine.link("mesh", &hosts, "far");
        machine.ip("addr add 198.51.100.1/24 dev mesh");
        machine.ip("addr add fd9d:0:0:ffff::1/64 dev mesh nodad");
        hosts.ip("addr add 198.51.100.2/24 dev far");
        hosts.ip("addr add fd9d:0:0:ffff::2/64 dev far nodad");
        for host in HOSTS {
            hosts.ip(&format!("addr add {host} dev far nodad"));
            machine.ip(&format!("route add {host} dev mesh"));
        }
        // The machine's own.
        machine.add_address("203.0.113.7/32");
        machine.add_address("2001:db8::7/128");
        machine.succeed(
            "useradd -m -s /bin/bash user; useradd -m maria
             echo 127.0.0.1 proxy.example us-east-1.proxy.example.org switchboard.example.org >>/etc/hosts
             mkdir -p -m 700 /root/.ssh /home/user/.ssh /run/sshd
             ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
             cp /root/.ssh/id_ed25519.pub /home/user/.ssh/authorized_keys
             chown -R user: /home/user/.ssh
             echo StrictHostKeyChecking accept-new >/root/.ssh/config",
        );
        let mut sshd = machine.command_in(&hosts.path(), "exec /usr/sbin/sshd -D");
        let sshd = Running::start(sshd.stdin(Stdio::null()));
        wait_until("sshd to listen", || {
            machine.inside(|| TcpStream::connect(("192.0.2.1", 22)).is_ok())
        });
        Self {
            machine,
            _hosts: hosts,
            _sshd: sshd,
        }
    }
}

/// A program in it that goes on, and what it says.
struct Session {
    running: Running,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    fn start(machine: &Machine, script: &str) -> Self {
        let mut command = machine.command(script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start(&mut command);
        let stdin = running.child().stdin.take().expect("a pipe");
        let stdout = BufReader::new(running.child().stdout.take().expect("a pipe"));
        Self {
            running,
            stdin,
            stdout,
        }
    }

    /// Waits for a line with that in it.
    #[track_caller]
    fn says(&mut self, what: &str) {
        let (mut all, mut line) = (String::new(), String::new());
        while !line.contains(what) {
            all.push_str(&line);
            line.clear();
            let length = self.stdout.read_line(&mut line).expect("text");
            assert!(length > 0, "it ended before {what:?}: {all}");
        }
    }

    /// A line that `cat` at the other end gives back.
    #[track_caller]
    fn echoes(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("a session that goes on");
        self.says(line);
    }

    /// Ends it by closing its input.
    fn finish(mut self) {
        drop(self.stdin);
        _ = self.stdout.read_to_string(&mut String::new());
        assert!(self.running.wait().success());
    }

    /// Ctrl-C.
    fn interrupt(mut self, machine: &Machine) {
        machine.succeed("kill -INT $(pidof tml-proxy)");
        assert!(self.running.wait().success());
    }
}

/// Installs the service as its chapter says, with its mapping or without.
fn install(machine: &Machine, with_mapping: bool) {
    let [files, mapping, group] = commands_under(SERVICE, "systemd")[..] else {
        panic!("files, a mapping, a member of the group");
    };
    machine.succeed(files);
    if with_mapping {
        machine.succeed(mapping);
    }
    machine.succeed(group);
}

#[test]
fn somebody_with_the_readme_forwards_a_port() {
    if !available() {
        return;
    }
    let site = Site::new();
    let machine = &site.machine;
    machine.succeed(
        "printf '#!/bin/sh\\nshift 3; exec /checkout/target/dist/tml-proxy \"$@\"\\n' >/usr/local/bin/cargo
         chmod 755 /usr/local/bin/cargo",
    );
    let [start, hello, ports] = commands_under(README, "Start")[..] else {
        panic!("the README starts with three blocks");
    };
    let mut proxy = Session::start(machine, &format!("{start} 2>&1"));
    proxy.says("listening");
    assert_eq!(machine.succeed(hello), "hello\n");
    proxy.interrupt(machine);

    let [ssh] = commands_under(README, "ssh")[..] else {
        panic!("one block about ssh");
    };
    let mut proxy = Session::start(machine, &format!("{ports} 2>&1"));
    proxy.says("listening");
    machine.succeed(&format!("head -c 3000000 /dev/urandom >image.bin\n{ssh}"));
    machine.succeed("cmp image.bin /home/user/image.bin; rm /home/user/image.bin");
    proxy.interrupt(machine);

    // The configuration of the first screen, in a file, with the ranges of a lab elsewhere.
    install(machine, true);
    let file = "/etc/tml-proxy/tml-proxy.toml";
    let text = first_block(README, "toml");
    machine.succeed(&format!(
        "cat >{file} <<'END'\n{text}END\ntml-proxy check --config {file}"
    ));
    machine.succeed("systemctl reload tml-proxy");
    let [more] = commands_under(SSH, "ssh through a mapping")[..] else {
        panic!("one block about ssh");
    };
    machine.succeed(&format!("mkdir -p dir; echo text >dir/file\n{more}"));
    machine.succeed("cmp image.bin /home/user/image.bin; cmp dir/file /home/user/dir/file");
    for shown in [
        "status",
        "sessions",
        "top --once",
        &format!("doctor --config {file}"),
    ] {
        machine.succeed(&format!("tml-proxy {shown}"));
    }
    wait_until("the sessions to be logged", || {
        machine.journal().matches("session ended").count() == 3
    });
}

#[test]
fn somebody_with_the_manual_takes_the_place_of_a_haproxy_with_a_live_session() {
    if !available() {
        return;
    }
    let site = Site::new();
    let machine = &site.machine;
    let listens = (14..18).chain([20]).map(|number| {
        let host = if number == 20 { "192.0.2.1".to_owned() } else { format!("fd9d:773b:e6f8:cafe::{number}") };
        format!(
            "\n# The board in slot {number}.\nlisten board-{number}\n    mode tcp\n    option tcplog\n    \
             bind :::220{number} v4v6\n    timeout tunnel 8h\n    server board {host}:22\n"
        )
    });
    let listens = listens.collect::<String>();
    machine.succeed(&format!(
        "cat >>/etc/haproxy/haproxy.cfg <<'END'\n{listens}END\n\
         systemctl unmask haproxy; systemctl enable --now haproxy"
    ));
    let ssh = |port: &str, command: &str| format!("ssh -p {port} user@proxy.example {command}");
    let mut live = Session::start(machine, &ssh("22014", "cat"));
    live.echoes("through HAProxy");

    install(machine, false);
    for command in commands_under(HAPROXY, "Taking its place") {
        machine.succeed(command);
    }
    live.echoes("still through HAProxy");
    // It is on its way to an end, for which systemd would give it 90 seconds.
    let timeout = machine.succeed("pidof haproxy; systemctl show -p TimeoutStopUSec haproxy");
    assert!(timeout.ends_with("=infinity\n"), "{timeout}");
    for port in ["22014", "22015", "22016", "22017", "22020"] {
        machine.succeed(&ssh(port, "true"));
    }
    wait_until("five sessions of ours", || {
        machine.journal().matches("session ended").count() == 5
    });
    live.echoes("to its end");
    live.finish();
    wait_until("HAProxy to end", || {
        !machine.sh("pidof haproxy").status.success()
    });
    machine
        .succeed("! systemctl is-failed --quiet haproxy; ! systemctl is-enabled --quiet haproxy");
    machine.succeed(&ssh("22014", "true"));
}

#[test]
fn somebody_with_the_manual_adds_a_switchboard() {
    if !available() {
        return;
    }
    let site = Site::new();
    let machine = &site.machine;
    let board = machine.inside(|| {
        Switchboard::of(Kind {
            secure: true,
            port: Some(443),
            ..Kind::default()
        })
    });
    board.add_host(1);
    let job = board.add_job(1, 1, "initializing");
    board.change(&job, |job| {
        job["state"] = json!("ready");
        job["job_ip_address"] = json!("fd9d:773b:e6f8:cafe::15");
    });
    // As if somebody whom all trust had signed it.
    machine.succeed("mkdir -p /etc/ssl/certs");
    machine.put(
        &board.ca_file().expect("it has TLS"),
        "/etc/ssl/certs/ca-certificates.crt",
    );
    let board_token = board.token();
    install(machine, true);

    let [first, renewal] = commands_under(SWITCHBOARD, "Jobs of a switchboard")[..] else {
        panic!("a token, and one that takes its place");
    };
    machine.succeed(&format!("printf '{board_token}' >token\n{first}"));
    let section = first_block(SWITCHBOARD, "toml");
    machine.succeed(&format!(
        "cat >>/etc/tml-proxy/tml-proxy.toml <<'END'\n{section}END\nsudo systemctl reload tml-proxy"
    ));
    wait_until("the job to have a port", || {
        machine.succeed("tml-proxy endpoints").contains(&job)
    });
    let reach = format!("tml-proxy ssh user@{job} -- echo reached");
    assert_eq!(machine.succeed(&reach), "reached\n");

    board.accept_only("another+/=");
    machine.succeed(&format!(
        "printf 'another+/=' >token\n{renewal}\nsudo systemctl reload tml-proxy"
    ));
    machine.succeed("tml-proxy doctor --config /etc/tml-proxy/tml-proxy.toml");
    assert_eq!(machine.succeed(&reach), "reached\n");
}
