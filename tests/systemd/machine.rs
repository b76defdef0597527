//! A Debian booted in a container, with systemd as its first process and the proxy's checkout in it.
//!
//! The root file system is made once and kept in the build directory; what a test changes in it is
//! forgotten with the container. The network is its own and has loopback alone.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use rustix::fs::{FlockOperation, flock};

use crate::harness::{
    TempDir,
    lab::Netns,
    process::{self, Running},
    proxy::PROGRAM,
    wait_for, wait_until,
};

/// The release of Debian that is booted, unless `TML_PROXY_DEBIAN` names another.
const RELEASE: &str = "bookworm";

/// Where the checkout is inside.
const CHECKOUT: &str = "/checkout";

/// A booted container. Dropping it ends every process in it.
pub struct Machine {
    nspawn: Running,
    /// Its first process.
    init: u32,
    console: PathBuf,
    // Its files are in use inside.
    _dir: TempDir,
    _turn: fs::File,
    name: String,
}

impl Machine {
    /// Boots it and waits until it is up.
    #[track_caller]
    pub fn boot() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = root();
        let turn = turn();
        let dir = TempDir::new();
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("tml-proxy-{}-{number}", process::run_id());
        let console = dir.join("console");
        let output = fs::File::create(&console).expect("space for a small file");
        let sudo = dir.write("sudo", "#!/bin/sh\nexec \"$@\"\n");
        process::succeed(Command::new("chmod").arg("755").arg(&sudo));
        let manifest = env!("CARGO_MANIFEST_DIR");
        let bind = |from: &Path, to: &str| format!("--bind-ro={}:{to}", from.display());
        let mut command = Command::new("systemd-nspawn");
        command
            .args([
                "--quiet",
                "--register=no",
                "--keep-unit",
                "--private-network",
            ])
            .args(["--volatile=overlay", "--link-journal=no", "--console=pipe"])
            .args(["--resolv-conf=off", "--timezone=off", "-M", &name, "-D"])
            .arg(&root)
            .arg(bind(
                &Path::new(manifest).join("config"),
                "/checkout/config",
            ))
            .arg(bind(Path::new(PROGRAM), "/checkout/target/dist/tml-proxy"))
            .arg(bind(&sudo, "/usr/local/bin/sudo"))
            .args(["-b", "systemd.unit=multi-user.target"])
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("an open file"))
            .stderr(output);
        let mut nspawn = Running::start(&mut command);
        let init = wait_for("the container's first process", || {
            let log = || fs::read_to_string(&console).unwrap_or_default();
            assert!(!nspawn.has_ended(), "{}", log());
            let family = process::with_descendants(nspawn.id());
            family
                .into_iter()
                .skip(1)
                .find(|pid| comm(*pid) == "systemd")
        });
        let machine = Self {
            nspawn,
            init,
            console,
            _dir: dir,
            _turn: turn,
            name,
        };
        wait_until("the container to be up", || {
            let up = machine.sh("systemctl is-active --quiet multi-user.target");
            up.status.success()
        });
        machine
    }

    /// Runs commands in the checkout as root, until one of them fails.
    pub fn sh(&self, script: &str) -> Output {
        process::output(&mut self.command(script))
    }

    /// What runs commands in the checkout as root, until one of them fails.
    pub fn command(&self, script: &str) -> Command {
        self.command_in(&self.network(), script)
    }

    /// The same in another network.
    pub fn command_in(&self, network: &Path, script: &str) -> Command {
        let init = self.init.to_string();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", network.display()))
            .args(["-t", &init, "-m", "-u", "-i", "-p", "-r", "-w"])
            .args(["env", "-i", "LC_ALL=C", "HOME=/root", "USER=maria"])
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["sh", "-ec", &format!("cd {CHECKOUT}\n{script}")]);
        command
    }

    /// Runs commands, none of which may fail, and gives what they printed.
    #[track_caller]
    pub fn succeed(&self, script: &str) -> String {
        let output = self.sh(script);
        assert!(
            output.status.success(),
            "{script}\n{}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.journal()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Copies a file into it.
    #[track_caller]
    pub fn put(&self, file: &Path, to: &str) {
        let init = self.init.to_string();
        let file = fs::File::open(file).expect("a file that can be read");
        let status = Command::new("nsenter")
            .args(["-t", &init, "-m", "-r", "-w", "sh", "-c", "cat >\"$0\"", to])
            .stdin(file)
            .status();
        assert!(status.expect("asked for").success(), "no space for {to}");
    }

    /// What the unit and systemd logged about it.
    pub fn journal(&self) -> String {
        let output = self.sh("journalctl --no-pager -o cat -u tml-proxy");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a piece of the test in its network; sockets made there stay there.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        Netns::run_in(&self.network(), act)
    }

    /// The file that stands for its network.
    fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.init).into()
    }

    /// Connects its network with another by a cable: each gets an interface of that name.
    pub fn link(&self, own: &str, other: &Netns, others: &str) {
        let init = self.init;
        other.ip(&format!(
            "link add {others} type veth peer name {own} netns {init}"
        ));
        other.ip(&format!("link set {others} up"));
        self.ip(&format!("link set {own} up"));
    }

    /// Whether something inside listens on that port.
    pub fn listens_on(&self, port: u16) -> bool {
        !process::listening_inodes(self.init, port).is_empty()
    }

    /// Gives its loopback interface an address.
    pub fn add_address(&self, addr: &str) {
        self.ip(&format!("addr add {addr} dev lo nodad"));
    }

    /// Runs `ip` with those words in its network.
    #[track_caller]
    pub fn ip(&self, words: &str) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network().display()));
        process::succeed(command.arg("ip").args(words.split_whitespace()));
    }

    /// The main process of the unit, as this side numbers it; none between two.
    pub fn main_pid(&self) -> Option<u32> {
        let family = process::with_descendants(self.init);
        let is_main = |pid: &u32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            comm(*pid) == "tml-proxy" && command.split(|byte| *byte == 0).nth(1) == Some(b"run")
        };
        family.into_iter().find(is_main)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- journal of the unit\n{}\n---", self.journal());
            let console = fs::read_to_string(&self.console).unwrap_or_default();
            eprintln!("--- console\n{console}\n---");
        }
        // All others end with it, and systemd-nspawn cleans up behind them.
        process::kill(self.init);
        _ = self.nspawn.wait();
        _ = fs::remove_dir(format!("/run/systemd/nspawn/propagate/{}", self.name));
    }
}

/// Waits until no other container is there: all would be in one and the same control group.
fn turn() -> fs::File {
    let path = env::temp_dir().join("tml-proxy-test-systemd.lock");
    let file = fs::File::create(path).expect("a name of its own");
    flock(&file, FlockOperation::LockExclusive).expect("an open file");
    file
}

fn comm(pid: u32) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.trim_end().to_owned()
}

/// The root file system to boot, made if it is not there yet.
fn root() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let release = env::var("TML_PROXY_DEBIAN").unwrap_or(RELEASE.to_owned());
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let root = kept.join(format!("debian-{release}"));
    if root.exists() {
        return root;
    }
    let new = kept.join(format!("debian-{release}.{}", process::run_id()));
    let packages = "--include=systemd,systemd-sysv,dbus,haproxy,openssh-server,rsync";
    let made = Command::new("debootstrap")
        .args(["--variant=minbase", packages, &release])
        .arg(&new)
        .stdin(Stdio::null())
        .output()
        .expect("asked for");
    let said = String::from_utf8_lossy(&made.stdout);
    assert!(made.status.success(), "debootstrap: {said}");
    // So that the first boot asks nothing, and nothing runs that a container has no use for.
    fs::write(
        new.join("etc/machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    )
    .expect("space");
    let masked = [
        "systemd-firstboot.service",
        "e2scrub_reap.service",
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "fstrim.timer",
        // Until a test wants them.
        "haproxy.service",
        "rsync.service",
        "ssh.service",
    ];
    for unit in masked {
        let link = new.join("etc/systemd/system").join(unit);
        _ = fs::remove_file(&link);
        std::os::unix::fs::symlink("/dev/null", &link).expect("a name of its own");
    }
    fs::rename(&new, &root).expect("both in one directory");
    root
}
