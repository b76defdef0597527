//! The whole way of a user: the id of a job, the lookup listener, `tml-proxy ssh`, and sshd in the
//! job. Needs root, network namespaces and OpenSSH.

use std::{fs, process::Command};

use super::{
    board::{Switchboard, job_id},
    harness::{
        Proxy, TempDir, config,
        lab::{Lab, PROXY, TARGET},
        process::{output, succeed},
        proxy::PROGRAM,
        require::{Need, require},
    },
    peers::{Keys, Remote, Sshd},
    stage::{Stage, closes, opens},
};

const LOOKUP: u16 = 9423;

struct User {
    keys: Keys,
    stage: Stage,
    proxy: Proxy,
    sshd: Sshd,
    lab: Lab,
}

impl User {
    fn new() -> Option<Self> {
        Self::with_rule("")
    }

    /// With further keys of the rule that exposes ssh.
    fn with_rule(more: &str) -> Option<Self> {
        let tools = ["ip", "ssh", "sshd", "ssh-keygen", "mount"].map(Need::Tool);
        if !require(&[&[Need::Root], &tools[..]].concat()) {
            return None;
        }
        let lab = Lab::new();
        let mut stage = lab.proxy.run(|| Stage::with(Switchboard::start(), 20));
        stage.public = PROXY.to_string();
        let keys = Keys::new(22);
        keys.known_as(&[1, 2].map(|job| format!("job-{}", job_id(job))));
        let sshd = Sshd::start(&lab, &keys);
        let rule = format!("[[switchboard.expose]]\nname = \"ssh\"\nport = 22\n{more}");
        let section = stage.section_with(&format!("lookup = \"0.0.0.0:{LOOKUP}\""), &rule);
        let proxy = Proxy::start_with(&lab.setup(), &config([section]));
        Some(Self {
            keys,
            stage,
            proxy,
            sshd,
            lab,
        })
    }

    fn command(&self, word: &str) -> Command {
        let mut command = self.lab.client.command(PROGRAM);
        command.args([word, "--lookup", &format!("{PROXY}:{LOOKUP}")]);
        command
    }

    fn ssh(&self, job: &str) -> Command {
        let mut command = self.command("ssh");
        command.args([&format!("root@{job}"), "--", "-F", "none"]);
        command.args(self.keys.options());
        command
    }
}

#[test]
fn a_user_reaches_each_job_by_its_id_and_no_session_outlives_its_job() {
    let Some(user) = User::new() else { return };
    let first = user.stage.ready(1, &TARGET.to_string());
    let port = opens(&user.proxy, &first);
    let mut remote = Remote::start(user.ssh(&first).arg("cat"));
    remote.says_and_hears("first");
    user.stage.finalize(&first);
    assert_eq!(remote.ends().code(), Some(255));
    closes(&user.proxy, &first);
    let second = user.stage.ready(2, &TARGET.to_string());
    assert_ne!(opens(&user.proxy, &second), port);
    let mut remote = Remote::start(user.ssh(&second).arg("cat"));
    remote.says_and_hears("second");
    assert_eq!(remote.closes().code(), Some(0));
    user.proxy.settles();
}

#[test]
fn the_printed_configuration_makes_a_job_a_host_of_ssh() {
    let Some(user) = User::new() else { return };
    let id = user.stage.ready(1, &TARGET.to_string());
    opens(&user.proxy, &id);
    let dir = TempDir::new();
    let file = dir.join("config");
    let text = succeed(user.command("ssh-config").arg(&id));
    fs::write(&file, text).expect("own file");
    let mut command = user.lab.client.command("ssh");
    command.arg("-F").arg(&file).args(user.keys.options());
    let output = succeed(command.args([&format!("root@{id}"), "echo there"]));
    assert_eq!(output, "there\n");
}

#[test]
fn the_next_job_of_a_board_has_another_host_key_at_the_same_port_and_ssh_takes_it_for_no_attack() {
    let Some(mut user) = User::with_rule("allocate = \"host\"\n") else {
        return;
    };
    let dir = TempDir::new();
    let known = format!("UserKnownHostsFile={}", dir.join("known_hosts").display());
    // What comes first counts.
    let learning = ["-o", "StrictHostKeyChecking=accept-new", "-o", &known];
    let ssh = |user: &User, job: &str| {
        let mut command = user.command("ssh");
        command.args([&format!("root@{job}"), "--", "-F", "none"]);
        command.args(learning).args(user.keys.options());
        succeed(command.args(["echo", "there"]))
    };
    let first = user.stage.ready(1, &TARGET.to_string());
    let port = opens(&user.proxy, &first);
    assert_eq!(ssh(&user, &first), "there\n");
    let past_the_job = |user: &User| {
        let mut command = user.lab.client.command("ssh");
        command.args(["-F", "none", "-p", &port.to_string()]);
        command.args(learning).args(user.keys.options());
        output(command.args([&format!("root@{PROXY}"), "true"]))
    };
    assert!(past_the_job(&user).status.success());

    user.stage.finalize(&first);
    closes(&user.proxy, &first);
    user.sshd.kill();
    user.keys = Keys::new(22);
    user.sshd = Sshd::start(&user.lab, &user.keys);
    let second = user.stage.ready(2, &TARGET.to_string());
    assert_eq!(opens(&user.proxy, &second), port);
    assert_eq!(ssh(&user, &second), "there\n");
    let hosts = fs::read_to_string(dir.join("known_hosts")).expect("ssh wrote it");
    for job in [&first, &second] {
        assert!(hosts.contains(&format!("job-{job} ")), "{hosts}");
    }
    // Whoever goes by the port alone is told of an attack.
    let refused = past_the_job(&user);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("HOST IDENTIFICATION HAS CHANGED"), "{said}");
}
