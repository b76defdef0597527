//! sshd in the target's network, and ssh and scp in the client's, with keys of their own.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use super::harness::{
    DEADLINE, TempDir,
    lab::{Lab, PROXY, TARGET},
    process::{self, Running, succeed},
    wait_until,
};

/// A host key, a user key and the files that go with them.
pub struct Keys {
    dir: TempDir,
    port: u16,
}

impl Keys {
    /// Makes them; `port` is the proxy's.
    pub fn new(port: u16) -> Self {
        let dir = TempDir::new();
        for name in ["host", "user"] {
            succeed(
                Command::new("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                    .arg(dir.join(name)),
            );
        }
        let host = fs::read_to_string(dir.join("host.pub")).expect("just made");
        dir.write("known_hosts", format!("[{PROXY}]:{port} {host}"));
        Self { dir, port }
    }

    /// Has the host key known by these names alone.
    pub fn known_as(&self, names: &[String]) {
        let host = fs::read_to_string(self.dir.join("host.pub")).expect("just made");
        let lines = names.iter().map(|name| format!("{name} {host}"));
        self.dir.write("known_hosts", lines.collect::<String>());
    }

    /// What makes ssh use these keys and nothing of this machine.
    pub fn options(&self) -> Vec<String> {
        let mut command = Command::new("ssh");
        self.own(&mut command);
        let words = command.get_args();
        words
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn client(&self, command: &mut Command, port_flag: &str) {
        command.args(["-F", "none", port_flag, &self.port.to_string()]);
        self.own(command);
    }

    fn own(&self, command: &mut Command) {
        command
            .args(["-i", &self.path("user")])
            .args(["-c", "aes128-gcm@openssh.com"]);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "ControlPath=none",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=none",
            &format!("UserKnownHostsFile={}", self.path("known_hosts")),
        ] {
            command.args(["-o", option]);
        }
    }
}

/// ssh to the proxy; what to run is to be added.
pub fn ssh(lab: &Lab, keys: &Keys) -> Command {
    let mut command = lab.client.command("ssh");
    keys.client(&mut command, "-p");
    command.arg(format!("root@{PROXY}"));
    command
}

/// scp of `near` to `far`, or the other way.
pub fn scp(lab: &Lab, keys: &Keys, near: &Path, far: &Path, up: bool) -> Command {
    let mut command = lab.client.command("scp");
    keys.client(&mut command, "-P");
    let near: PathBuf = near.to_owned();
    let far: PathBuf = format!("root@{PROXY}:{}", far.display()).into();
    command.arg("-q").args(match up {
        true => [near, far],
        false => [far, near],
    });
    command
}

/// sshd, for root with that one key only.
pub struct Sshd(Running);

impl Sshd {
    /// Starts it and waits until it listens.
    pub fn start(lab: &Lab, keys: &Keys) -> Self {
        let dir = &keys.dir;
        fs::set_permissions(dir.join("host"), Permissions::from_mode(0o600)).expect("own file");
        let config = format!(
            "ListenAddress [{TARGET}]:22\n\
             HostKey {}\n\
             AuthorizedKeysFile {}\n\
             StrictModes no\n\
             AllowUsers root\n\
             PermitRootLogin prohibit-password\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             UsePAM no\n\
             UseDNS no\n\
             MaxStartups 1000\n\
             PidFile none\n\
             Subsystem sftp internal-sftp\n",
            keys.path("host"),
            keys.path("user.pub"),
        );
        let config = dir.write("sshd_config", config);
        // Its directory for unprivileged work has to exist, and has to be no business of this
        // machine's: `ip netns exec` gives it a mount namespace of its own.
        let script = "mount -t tmpfs tmpfs /run && mkdir /run/sshd && \
                      exec \"$(command -v sshd || echo /usr/sbin/sshd)\" -D -e -f \"$1\"";
        let mut command = lab.target.command("sh");
        command
            .args(["-c", script, "sshd"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut sshd = Self(Running::start(&mut command));
        lab.target.run(|| {
            wait_until("sshd to listen", || {
                assert!(!sshd.0.has_ended(), "sshd does not start");
                std::net::TcpStream::connect((TARGET, 22)).is_ok()
            });
        });
        sshd
    }

    /// Kills it, and the processes that serve its sessions.
    pub fn kill(&mut self) {
        for pid in process::with_descendants(self.0.id()) {
            process::kill(pid);
        }
        self.0.wait();
    }
}

/// A command run through ssh that answers by lines.
pub struct Remote {
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    running: Running,
}

impl Remote {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut running = Running::start(command);
        let stdout = running.child().stdout.take().expect("asked for");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            stdin: running.child().stdin.take(),
            lines,
            running,
        }
    }

    /// Waits for that line.
    #[track_caller]
    pub fn hears(&self, expected: &str) {
        let line = self.lines.recv_timeout(DEADLINE).expect("a line");
        assert_eq!(line.trim_end(), expected);
    }

    /// Sends a line and waits for it to come back.
    #[track_caller]
    pub fn says_and_hears(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("not closed yet");
        writeln!(stdin, "{line}").expect("ssh runs");
        self.hears(line);
    }

    /// Closes its input and waits for its end.
    #[track_caller]
    pub fn closes(mut self) -> ExitStatus {
        self.stdin = None;
        self.running.wait()
    }

    /// Waits until it ends without having been asked to.
    #[track_caller]
    pub fn ends(mut self) -> ExitStatus {
        let status = self.running.wait();
        self.stdin = None;
        status
    }
}
