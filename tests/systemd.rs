//! The unit under a systemd that booted: installed as the manual says, with its own sandbox.
//!
//! Needs root, and programs that boot a container; the first run fetches a Debian to boot.

mod harness;

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "systemd/machine.rs"]
mod machine;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use harness::{
    Peer, Stream, Target, TempDir, both_ways,
    manual::{commands, commands_under},
    metrics::Metrics,
    process,
    proxy::PROGRAM,
    require::{Need, require},
    wait_until,
};
use machine::Machine;
use rustix::process::{Pid, Signal, kill_process};

/// The target of the manual's mapping, and its public port.
const TARGET: &str = "fd9d:773b:e6f8:cafe::14";
const PORT: u16 = 22014;

fn available() -> bool {
    require(&[
        Need::Root,
        Need::Tool("systemd-nspawn"),
        Need::Tool("debootstrap"),
        Need::Tool("nsenter"),
        Need::Tool("ip"),
    ])
}

const CHAPTER: &str = include_str!("../src/manual/service.md");

/// Under this heading the manual says how to be rid of it again.
const UNINSTALLING: &str = "Uninstalling";

/// A machine on which somebody called maria has done what the manual says, and a target.
struct Installed {
    machine: Machine,
    target: Target,
}

impl Installed {
    fn new() -> Self {
        Self::on(Machine::boot())
    }

    fn on(machine: Machine) -> Self {
        machine.add_address(&format!("{TARGET}/128"));
        let addr = SocketAddr::new(TARGET.parse().expect("an address"), 22);
        let target = machine.inside(|| Target::bind_to(addr));
        machine.succeed("useradd maria; useradd stranger");
        for (heading, step) in commands(CHAPTER) {
            if heading != UNINSTALLING {
                machine.succeed(step);
            }
        }
        Self { machine, target }
    }

    /// A session through a port of the proxy.
    fn session(&self, port: u16) -> (Peer, Peer) {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let client = self.machine.inside(|| Peer::connect_to(addr));
        (client, self.target.accept())
    }

    fn metrics(&self) -> Metrics {
        let admin = SocketAddr::from(([127, 0, 0, 1], 9422));
        self.machine.inside(|| Metrics::scrape(admin))
    }

    /// A property of the unit.
    fn shown(&self, property: &str) -> String {
        let shown = format!("systemctl show --value -p {property} tml-proxy");
        self.machine.succeed(&shown).trim().to_owned()
    }

    /// How many descriptors systemd keeps for it.
    fn stored(&self) -> u32 {
        let stored = self.shown("NFileDescriptorStore");
        stored.parse().expect("a number")
    }

    /// Has the unit start again with further lines.
    fn restart_with(&self, name: &str, lines: &str) {
        self.machine.succeed(&format!(
            "mkdir -p /etc/systemd/system/tml-proxy.service.d\n\
             printf '[Service]\\n{lines}\\n' >/etc/systemd/system/tml-proxy.service.d/{name}.conf\n\
             systemctl daemon-reload\n\
             systemctl restart tml-proxy"
        ));
    }
}

#[test]
fn the_steps_of_the_readme_give_a_service_that_forwards_and_answers() {
    if !available() {
        return;
    }
    let installed = Installed::new();
    let machine = &installed.machine;
    machine.succeed("systemctl is-active tml-proxy && systemctl is-enabled tml-proxy");
    let (mut client, mut server) = installed.session(PORT);
    client.exchange(&mut server, b"hello");

    // Root, and a member of the group; nobody else.
    assert!(machine.succeed("tml-proxy status").contains("1 of"));
    for command in ["status", "sessions", "reload", "kill --mapping board-14"] {
        machine.succeed(&format!("runuser -u maria -- tml-proxy {command}"));
    }
    client.expect_reset();
    let refused = machine.sh("runuser -u stranger -- tml-proxy status");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{why}");
    assert!(why.contains("socket_group"), "{why}");

    // SIGHUP reads the file again as well.
    machine.succeed("systemctl kill -s HUP tml-proxy");
    wait_until("two more reloads and no failure", || {
        let metrics = installed.metrics();
        let reloads = |result| metrics.sum("tml_proxy_config_reloads_total", &[("result", result)]);
        reloads("success") == 3 && reloads("failure") == 0
    });

    // A restart waits for the session until it is told to hurry. Who comes meanwhile waits as well.
    let (mut client, _server) = installed.session(PORT);
    machine.succeed("systemctl restart --no-block tml-proxy");
    wait_until("the proxy to stop", || {
        machine.journal().contains("stopping sessions=1")
    });
    let addr = SocketAddr::from(([127, 0, 0, 1], PORT));
    let mut waiting = machine.inside(|| Peer::connect_to(addr));
    waiting.send(b"hello");
    machine.succeed("systemctl kill tml-proxy");
    client.expect_reset();
    let mut server = installed.target.accept();
    server.expect(b"hello");
    server.exchange(&mut waiting, b"and welcome");
    drop((waiting, server));
    machine.succeed("systemctl stop tml-proxy");
    machine.succeed("test ! -e /run/tml-proxy && ! systemctl is-failed tml-proxy");
    wait_until("clients to be refused", || !machine.listens_on(PORT));
}

/// What became of those who came while something happened to the service.
#[derive(Debug, Default)]
struct Clients {
    /// They got an answer from the target.
    served: usize,
    /// Their session was cut. None of them was refused.
    cut: usize,
}

/// How many clients come at a time.
const AT_A_TIME: usize = 2;

/// Clients come all the time and ask the target for a word, while `act` goes on.
fn clients_come_while(installed: &Installed, act: impl FnOnce()) -> Clients {
    /// Set when it is dropped.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let (acted, gone) = (AtomicBool::new(false), AtomicBool::new(false));
    let addr = SocketAddr::from(([127, 0, 0, 1], PORT));
    let come = || {
        let mut clients = Clients::default();
        while !acted.load(Relaxed) {
            let client = Peer::try_connect_to(addr);
            let client = client.unwrap_or_else(|error| panic!("a client was refused: {error}"));
            match client.stream().read_exact(&mut [0; 5]) {
                Ok(()) => clients.served += 1,
                Err(_) => clients.cut += 1,
            }
            thread::sleep(Duration::from_millis(5));
        }
        clients
    };
    let answer = || {
        while !gone.load(Relaxed) {
            if installed.target.is_called(Duration::from_millis(10)) {
                // Who called may have gone.
                _ = installed.target.accept().stream().write_all(b"hello");
            }
        }
    };
    thread::scope(|scope| {
        let _gone = Over(&gone);
        scope.spawn(answer);
        let coming = [(); AT_A_TIME].map(|()| scope.spawn(|| installed.machine.inside(come)));
        {
            let _acted = Over(&acted);
            act();
        }
        let mut all = Clients::default();
        for clients in coming.map(|clients| clients.join().expect("no client was refused")) {
            all.served += clients.served;
            all.cut += clients.cut;
        }
        all
    })
}

#[test]
fn a_restart_and_a_crash_refuse_no_client() {
    if !available() {
        return;
    }
    // The unit may be started ten times in five minutes.
    const TIMES: usize = 4;
    let installed = Installed::new();
    let machine = &installed.machine;
    let restarts = clients_come_while(&installed, || {
        for _ in 0..TIMES {
            machine.succeed("systemctl restart tml-proxy");
        }
    });
    assert_eq!(restarts.cut, 0, "{restarts:?}");
    assert!(restarts.served > TIMES, "{restarts:?}");

    // A process that is killed takes its sessions with it, and nobody else.
    let crashes = clients_come_while(&installed, || {
        for _ in 0..TIMES {
            let before = machine.main_pid().expect("it runs");
            machine.succeed("systemctl kill -s KILL tml-proxy");
            wait_until("another process", || {
                machine.main_pid().is_some_and(|pid| pid != before)
            });
            machine.succeed("systemctl is-active --quiet tml-proxy || sleep 1");
        }
    });
    assert!(crashes.cut <= TIMES * AT_A_TIME, "{crashes:?}");
    assert!(crashes.served > TIMES, "{crashes:?}");
    let journal = machine.journal();
    assert_eq!(
        journal.matches("systemd has kept listeners open").count(),
        2 * TIMES
    );
    assert_eq!(installed.stored(), 1);
}

#[test]
fn an_upgrade_in_the_units_sandbox_keeps_sessions_and_systemd_sees_the_same_process() {
    if !available() {
        return;
    }
    let installed = Installed::new();
    let machine = &installed.machine;
    installed.restart_with("watchdog", "WatchdogSec=2s");
    let process =
        || ["MainPID", "ExecMainStartTimestamp", "NRestarts"].map(|of| installed.shown(of));
    let before = process();
    let (mut client, mut server) = installed.session(PORT);
    let (bulk_client, bulk_server) = installed.session(PORT);
    client.exchange(&mut server, b"before");
    let coming = thread::scope(|scope| {
        let streams = [Stream::new(1), Stream::new(2)];
        let bulk = [(&bulk_client, &bulk_server, streams)];
        scope.spawn(|| both_ways(bulk, 50_000_000));
        clients_come_while(&installed, || {
            // Root, a member of the group, and whoever may send signals.
            let said = machine
                .succeed("install -m 755 target/dist/tml-proxy /usr/local/bin/; tml-proxy upgrade");
            assert!(said.contains("went on"), "{said}");
            machine.succeed("runuser -u maria -- tml-proxy upgrade");
            machine.succeed("systemctl kill -s USR2 tml-proxy");
            wait_until("the third upgrade", || {
                machine.journal().contains("upgraded upgrade=3")
            });
            machine.succeed("cp target/dist/tml-proxy /usr/local/bin/other");
            machine.succeed("tml-proxy upgrade --binary /usr/local/bin/other");
        })
    });
    assert_eq!(coming.cut, 0, "{coming:?}");
    client.exchange(&mut server, b"and after");
    assert_eq!(process(), before);

    // Who may steer the proxy may not have its user run anything.
    let refused = machine.sh("runuser -u maria -- tml-proxy upgrade --binary /bin/sh");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("may name"), "{why}");
    let refused = machine.sh("tml-proxy upgrade --binary /bin/true");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    client.exchange(&mut server, b"nothing happened");

    // The watchdog is fed, and would bite.
    for _ in 0..3 {
        let fed = installed.shown("WatchdogTimestampMonotonic");
        wait_until("the watchdog to be fed", || {
            installed.shown("WatchdogTimestampMonotonic") != fed
        });
    }
    // A reload reads the configuration, and may open a privileged port.
    let file = "/etc/tml-proxy/tml-proxy.toml";
    machine.succeed(&format!("cp {file} /root/good; echo 'colour = 1' >>{file}"));
    assert!(!machine.sh("systemctl reload tml-proxy").status.success());
    assert!(installed.shown("StatusText").contains("colour"));
    let mapping =
        format!("[[mapping]]\\nname = \"added\"\\nlisten = 80\\ntarget = \"[{TARGET}]:22\"");
    machine.succeed(&format!(
        "cp /root/good {file}; printf '{mapping}\\n' >>{file}; systemctl reload tml-proxy"
    ));
    let (mut added, mut at_target) = installed.session(80);
    added.exchange(&mut at_target, b"hello");
    wait_until("systemd to keep both", || installed.stored() == 2);
    let journal = machine.journal();
    let unwanted = ["not permitted", "no effect", "WARN lifecycle"];
    assert!(
        !unwanted.iter().any(|word| journal.contains(word)),
        "{journal}"
    );
    drop((client, server, added, at_target, bulk_client, bulk_server));

    // What systemd kept before is there after a restart, and a stop is a stop.
    let restarted = clients_come_while(&installed, || {
        machine.succeed("systemctl restart tml-proxy");
    });
    assert_eq!(restarted.cut, 0, "{restarted:?}");
    machine.succeed("tml-proxy upgrade; systemctl stop tml-proxy");
    machine.succeed("test ! -e /run/tml-proxy && ! systemctl is-failed tml-proxy");
    assert_eq!(installed.shown("Result"), "success");
    wait_until("clients to be refused", || !machine.listens_on(PORT));
}

#[test]
fn systemd_keeps_the_listeners_of_the_mappings_there_are_and_of_no_others() {
    if !available() {
        return;
    }
    let installed = Installed::new();
    let machine = &installed.machine;
    let file = "/etc/tml-proxy/tml-proxy.toml";
    let mapping = |listen: &str| {
        let name = listen.replace(['[', ']'], "");
        format!(
            "[[mapping]]\\nname = \"{name}\"\\nlisten = \"{listen}\"\\n\
             target = \"[{TARGET}]:22\"\\n"
        )
    };
    let more = ["127.0.0.1:80", "[::1]:80", "0.0.0.0:8080", "[::]:8080"].map(mapping);
    machine.succeed(&format!(
        "cp {file} /root/one; printf '{}' >>{file}",
        more.concat()
    ));
    machine.succeed("systemctl reload tml-proxy");
    wait_until("all five to be kept", || installed.stored() == 5);

    // What the file does not have any more is not listened on, neither after a reload nor a restart.
    machine.succeed(&format!(
        "cp {file} /root/five; cp /root/one {file}; systemctl reload tml-proxy"
    ));
    wait_until("one to be kept", || installed.stored() == 1);
    assert!(!machine.listens_on(80) && !machine.listens_on(8080));
    machine.succeed(&format!("cp /root/five {file}; systemctl reload tml-proxy"));
    wait_until("all five to be kept again", || installed.stored() == 5);
    machine.succeed(&format!("cp /root/one {file}; systemctl restart tml-proxy"));
    wait_until("one to be kept", || installed.stored() == 1);
    assert!(!machine.listens_on(80) && !machine.listens_on(8080));

    // A port may go to another address meanwhile, and an address to the proxy itself.
    machine.succeed(&format!(
        "cp /root/five {file}; systemctl reload tml-proxy; cp /root/one {file}\n\
         sed -i '0,/^listen = .*/s//listen = \"0.0.0.0:8080\"/' {file}\n\
         printf '{}' >>{file}\n\
         systemctl restart tml-proxy",
        mapping("80")
    ));
    let (mut client, mut server) = installed.session(80);
    client.exchange(&mut server, b"hello");

    // A port that an operator drains is not kept.
    wait_until("two to be kept", || installed.stored() == 2);
    machine.succeed("tml-proxy drain 80");
    wait_until("one to be kept", || installed.stored() == 1);
    assert!(!machine.listens_on(80));
    client.exchange(&mut server, b"still here");
    let journal = machine.journal();
    assert!(
        !journal.contains("WARN") && !journal.contains("ERROR"),
        "{journal}"
    );
}

#[test]
fn a_reload_by_systemctl_fails_and_says_why_where_the_file_is_broken() {
    if !available() {
        return;
    }
    let installed = Installed::new();
    let machine = &installed.machine;
    let (mut client, mut server) = installed.session(PORT);
    let file = "/etc/tml-proxy/tml-proxy.toml";
    machine.succeed(&format!("cp {file} /root/good"));
    machine.succeed(&format!("echo 'colour = \"blue\"' >>{file}"));

    let reload = machine.sh("systemctl reload tml-proxy");
    assert!(!reload.status.success(), "{reload:?}");
    assert!(machine.journal().contains("colour"));
    let status = machine.succeed("systemctl status --no-pager tml-proxy");
    assert!(
        status.contains("last reload failed: ") && status.contains("colour"),
        "{status}"
    );
    machine.succeed("systemctl is-active tml-proxy");
    client.exchange(&mut server, b"still here");

    let mapping =
        "[[mapping]]\\nname = \"added\"\\nlisten = 80\\ntarget = \"[fd9d:773b:e6f8:cafe::14]:22\"";
    machine.succeed(&format!(
        "cp /root/good {file}; printf '{mapping}\\n' >>{file}; systemctl reload tml-proxy"
    ));
    // A privileged port.
    let (mut added, mut at_target) = installed.session(80);
    added.exchange(&mut at_target, b"hello");
    client.exchange(&mut server, b"and on");
}

#[test]
fn what_the_proxy_asks_of_the_kernel_is_not_refused_by_the_units_own_sandbox() {
    if !available() {
        return;
    }
    let installed = Installed::new();
    let machine = &installed.machine;
    assert_eq!(bulk_nice(machine), ["2"]);
    let (client, server) = installed.session(PORT);
    both_ways(
        [(&client, &server, [Stream::new(1), Stream::new(2)])],
        5_000_000,
    );
    wait_until("all of it to be counted", || {
        installed.metrics().sum("tml_proxy_sessions_open", &[]) == 0
    });
    let metrics = installed.metrics();
    assert!(metrics.sum("tml_proxy_spliced_bytes_total", &[]) > 0);
    let journal = machine.journal();
    let unwanted = ["not permitted", "no effect", "WARN", "ERROR"];
    assert!(
        !unwanted.iter().any(|word| journal.contains(word)),
        "{journal}"
    );

    // A token that only root can read, and a directory for what is kept.
    let switchboard = "[switchboard]\\nurl = \"https://127.0.0.1:1\"\\n\
        token_file = \"/run/credentials/tml-proxy.service/switchboard-token\"\\n\
        public_host = \"proxy.example\"\\nports = \"40000-40099\"\\n\
        targets = { allow = [\"fd9d:773b:e6f8::/48\"] }\\n\
        [[switchboard.expose]]\\nname = \"ssh\"\\nport = 22\\n";
    machine.succeed(&format!(
        "install -m 600 /dev/null /etc/tml-proxy/switchboard-token\n\
         echo 0123456789abcdef >/etc/tml-proxy/switchboard-token\n\
         printf '{switchboard}' >>/etc/tml-proxy/tml-proxy.toml"
    ));
    let credential = "LoadCredential=switchboard-token:/etc/tml-proxy/switchboard-token";
    installed.restart_with("token", credential);
    machine.succeed("test -n \"$(ls -A /var/lib/tml-proxy)\"");
    let journal = machine.journal();
    assert!(
        !journal.contains("not permitted") && !journal.contains("denied"),
        "{journal}"
    );
    let status = machine.succeed("tml-proxy status");
    assert!(status.contains("switchboard"), "{status}");

    // The group of somebody else's choice, of which the process has to be.
    let file = "/etc/tml-proxy/tml-proxy.toml";
    machine.succeed(&format!(
        "sed -i 's/^socket_group = .*/socket_group = \"adm\"/' {file}"
    ));
    assert!(!machine.sh("systemctl reload tml-proxy").status.success());
    let journal = machine.journal();
    assert!(journal.contains("SupplementaryGroups="), "{journal}");
    installed.restart_with("group", "SupplementaryGroups=adm");
    machine.succeed("usermod -aG adm stranger; runuser -u stranger -- tml-proxy status");

    // What a stricter sandbox refuses is told, and nothing else changes.
    installed.restart_with("strict", "SystemCallFilter=~setpriority splice");
    let journal = machine.journal();
    assert!(
        journal.contains("process.bulk_nice has no effect"),
        "{journal}"
    );
    assert_eq!(bulk_nice(machine), ["0"]);
    let (client, server) = installed.session(PORT);
    both_ways(
        [(&client, &server, [Stream::new(1), Stream::new(2)])],
        5_000_000,
    );
    wait_until("the first refusal to be told", || {
        let journal = machine.journal();
        journal.matches("splice(2) is refused").count() == 1
    });
}

/// The nice values of the threads for bulk, each once.
fn bulk_nice(machine: &Machine) -> Vec<String> {
    let pid = machine.main_pid().expect("it runs");
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let stats = tasks.map(|task| {
        fs::read_to_string(task.expect("a thread").path().join("stat")).expect("it does not end")
    });
    let nice = |stat: String| {
        let (name, rest) = stat.rsplit_once(") ")?;
        // Field 19 of proc_pid_stat(5); the first two are gone.
        let nice = rest.split(' ').nth(16)?.to_owned();
        name.ends_with("-bulk").then_some(nice)
    };
    let mut values: Vec<String> = stats.filter_map(nice).collect();
    values.dedup();
    values
}

#[test]
fn a_process_that_hangs_is_killed_and_started_again() {
    if !available() {
        return;
    }
    let installed = Installed::new();
    let machine = &installed.machine;
    installed.restart_with("watchdog", "WatchdogSec=2s");
    let before = machine.main_pid().expect("it runs");
    let pid = i32::try_from(before).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), Signal::STOP).expect("it runs");
    wait_until("the unit to be started again", || {
        machine.main_pid().is_some_and(|pid| pid != before)
    });
    wait_until("it to be ready", || {
        machine
            .sh("systemctl is-active --quiet tml-proxy")
            .status
            .success()
    });
    let journal = machine.journal();
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    let (mut client, mut server) = installed.session(PORT);
    client.exchange(&mut server, b"hello again");

    // A stop waits for sessions as long as they may take, which a reload can change, and not longer.
    drop((client, server));
    installed.restart_with("impatient", "TimeoutStopSec=1s");
    let (mut client, mut server) = installed.session(PORT);
    machine.succeed("systemctl stop --no-block tml-proxy");
    for _ in 0..30 {
        client.exchange(&mut server, b"not yet");
        thread::sleep(Duration::from_millis(100));
    }
    drop((client, server));
    wait_until("the unit to be stopped", || {
        let shown = machine.succeed("systemctl show -p ActiveState -p Result tml-proxy");
        assert!(shown.contains("Result=success"), "{shown}");
        shown.contains("ActiveState=inactive")
    });
    machine.succeed("systemctl start tml-proxy");
    let (mut client, _server) = installed.session(PORT);
    machine.succeed(
        "sed -i 's/^shutdown_timeout = .*/shutdown_timeout = \"1ms\"/' /etc/tml-proxy/tml-proxy.toml\n\
         systemctl reload tml-proxy\n\
         systemctl stop tml-proxy",
    );
    client.expect_reset();
    let journal = machine.journal();
    assert!(!journal.contains("timed out"), "{journal}");
}

/// A package of the program under test that says it is of that version.
fn package(dir: &TempDir, version: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/debian/package");
    let made = process::succeed(
        Command::new(script)
            .args([PROGRAM.as_ref(), dir.path()])
            .env("VERSION", version)
            .envs([
                ("DEBFULLNAME", "A Maintainer"),
                ("DEBEMAIL", "maintainer@treadmill.ci"),
            ])
            // Nobody waits for a small file here.
            .envs([
                ("DPKG_DEB_COMPRESSOR_TYPE", "gzip"),
                ("DPKG_DEB_COMPRESSOR_LEVEL", "1"),
            ]),
    );
    PathBuf::from(made.trim_end())
}

#[test]
fn a_package_is_updated_under_a_live_session_and_leaves_nothing_behind() {
    let tools = ["dpkg-deb", "strip", "objdump", "lintian"].map(Need::Tool);
    if !available() || !require(&tools) {
        return;
    }
    let dir = TempDir::new();
    let packages = ["1.0", "1.1"].map(|version| package(&dir, version));
    let lintian = ["--no-cfg", "--allow-root", "--fail-on", "error,warning"];
    process::succeed(Command::new("lintian").args(lintian).arg(&packages[0]));
    let machine = Machine::boot();
    machine.add_address(&format!("{TARGET}/128"));
    for (package, name) in packages.iter().zip(["1.0", "1.1"]) {
        machine.put(package, &format!("/root/{name}.deb"));
    }
    let before = everything_on(&machine);
    machine.succeed("dpkg -i /root/1.0.deb");
    machine.succeed("systemctl is-active tml-proxy && systemctl is-enabled tml-proxy");
    let said = machine.succeed("tml-proxy check --json --config /etc/tml-proxy/tml-proxy.toml");
    assert!(said.contains("\"mappings\": []"), "{said}");
    for file in [
        "man/man1/tml-proxy.1.gz",
        "man/man5/tml-proxy.toml.5.gz",
        "bash-completion/completions/tml-proxy",
        "doc/tml-proxy/examples/tml-proxy.toml",
    ] {
        machine.succeed(&format!("test -s /usr/share/{file}"));
    }
    let file = "/etc/tml-proxy/tml-proxy.toml";
    let mapping =
        format!("[[mapping]]\\nname = \"a\"\\nlisten = {PORT}\\ntarget = \"[{TARGET}]:22\"");
    machine.succeed(&format!(
        "printf '{mapping}\\n' >>{file}; systemctl reload tml-proxy"
    ));
    let target = SocketAddr::new(TARGET.parse().expect("an address"), 22);
    let target = machine.inside(|| Target::bind_to(target));
    let mut client = machine.inside(|| Peer::connect_to(([127, 0, 0, 1], PORT).into()));
    let mut server = target.accept();
    client.exchange(&mut server, b"before");
    let pid = machine.main_pid();

    let said = machine
        .succeed("dpkg -i /root/1.1.deb 2>&1; grep -c mapping /etc/tml-proxy/tml-proxy.toml");
    assert!(said.contains("went on"), "{said}");
    client.exchange(&mut server, b"after an update");
    assert_eq!((machine.main_pid(), pid.is_some()), (pid, true));
    let upgrades = || machine.journal().matches("upgraded upgrade=").count();
    assert_eq!(upgrades(), 1);

    // What the other version cannot use keeps the one that runs, and the package is installed.
    machine.succeed(&format!("cp {file} /root/good; echo colour = 1 >>{file}"));
    let said = machine.succeed("dpkg -i /root/1.0.deb 2>&1");
    assert!(
        said.contains("colour") && said.contains("goes on with every session"),
        "{said}"
    );
    client.exchange(&mut server, b"after one that failed");
    assert_eq!((machine.main_pid(), upgrades()), (pid, 1));
    machine.succeed(&format!("cp /root/good {file}; tml-proxy upgrade"));
    client.exchange(&mut server, b"and mended");
    drop((client, server));

    machine.succeed("dpkg -r tml-proxy");
    assert_eq!(machine.main_pid(), None);
    wait_until("clients to be refused", || !machine.listens_on(PORT));
    machine.succeed(&format!(
        "test -e {file}; dpkg -i /root/1.1.deb; systemctl is-active tml-proxy"
    ));
    // What somebody added, and a state.
    machine.succeed("useradd maria; usermod -aG tml-proxy maria; touch /var/lib/tml-proxy/state");
    machine.succeed("dpkg -P tml-proxy; userdel maria; rm /root/good");
    let left: Vec<_> = everything_on(&machine)
        .difference(&before)
        .cloned()
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// Every file, user and group there is, but for logs and what ends with the boot.
fn everything_on(machine: &Machine) -> BTreeSet<String> {
    // Copies of the lists of users as they were before the last change.
    let listed = machine.succeed(
        "find / -xdev ! -path '/var/log/*' ! -path '/etc/*-' ! -path '/var/lib/dpkg/*-old'; \
         find /run -name '*tml-proxy*'; getent passwd; getent group",
    );
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn what_was_installed_by_hand_is_gone_after_the_manuals_last_commands() {
    if !available() {
        return;
    }
    let machine = Machine::boot();
    let before = everything_on(&machine);
    let installed = Installed::on(machine);
    let machine = &installed.machine;
    let (mut client, mut server) = installed.session(PORT);
    client.exchange(&mut server, b"hello");
    drop((client, server));
    for command in commands_under(CHAPTER, UNINSTALLING) {
        machine.succeed(command);
    }
    assert!(!machine.listens_on(PORT));
    // A directory of the system's, which this one does not have from the start.
    machine.succeed("userdel maria; userdel stranger; rmdir /etc/sysusers.d");
    let left: Vec<_> = everything_on(machine)
        .difference(&before)
        .cloned()
        .collect();
    assert!(left.is_empty(), "{left:#?}");
    machine.succeed("test -z \"$(systemctl list-units --all --no-legend 'tml-proxy*')\"");
}
