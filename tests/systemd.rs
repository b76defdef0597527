//! The unit under a systemd that booted: installed as the README says, with its own sandbox.
//!
//! Needs root, and programs that boot a container; the first run fetches a Debian to boot.

mod harness;

#[path = "systemd/machine.rs"]
mod machine;

use std::{fs, net::SocketAddr, thread, time::Duration};

use harness::{
    Peer, Stream, Target, both_ways,
    metrics::Metrics,
    require::{Need, require},
    wait_until,
};
use machine::Machine;
use rustix::process::{Pid, Signal, kill_process};

/// The target of the README's mapping, and its public port.
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

/// The commands of the README's section about systemd.
fn steps() -> Vec<String> {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("\n## systemd\n").expect("there is one");
    let section = section.split("\n## ").next().expect("split gives one");
    let blocks = section.split("```sh\n").skip(1);
    let steps = blocks.map(|block| {
        block
            .split("```")
            .next()
            .expect("split gives one")
            .to_owned()
    });
    steps.collect()
}

/// A machine on which somebody called maria has done what the README says, and a target.
struct Installed {
    machine: Machine,
    target: Target,
}

impl Installed {
    fn new() -> Self {
        let machine = Machine::boot();
        machine.add_address(&format!("{TARGET}/128"));
        let addr = SocketAddr::new(TARGET.parse().expect("an address"), 22);
        let target = machine.inside(|| Target::bind_to(addr));
        machine.succeed("useradd maria; useradd stranger");
        for step in steps() {
            machine.succeed(&step);
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

    // A restart waits for the session, and refuses clients meanwhile, until it is told to hurry.
    let (mut client, _server) = installed.session(PORT);
    machine.succeed("systemctl restart --no-block tml-proxy");
    wait_until("clients to be refused", || !machine.listens_on(PORT));
    machine.succeed("systemctl kill tml-proxy");
    client.expect_reset();
    wait_until("clients to be served", || machine.listens_on(PORT));
    machine.succeed("systemctl stop tml-proxy");
    machine.succeed("test ! -e /run/tml-proxy && ! systemctl is-failed tml-proxy");
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
