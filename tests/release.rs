//! What a release consists of: files with their sums, the crates in the program, and an image whose root
//! file system is run as a container would have it.

mod harness;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use harness::{
    Peer, Target, TempDir, config,
    lab::Netns,
    mapping,
    process::{self, Running},
    proxy::PROGRAM,
    require::{Need, require},
    wait_until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn available() -> bool {
    let tools = [
        "buildah", "dpkg-deb", "ip", "jq", "objdump", "strip", "tar", "unshare",
    ];
    let tools = tools.map(Need::Tool);
    require(&[Need::Root]) && require(&tools)
}

/// A script that makes something of the program under test, with what it says it has made.
fn make(script: &str, arguments: &[&Path]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
    command
        .args(arguments)
        .env("BINARY", PROGRAM)
        .envs([
            ("DEBFULLNAME", "A Maintainer"),
            ("DEBEMAIL", "maintainer@treadmill.ci"),
        ])
        // Nobody waits for a small file here.
        .envs([
            ("DPKG_DEB_COMPRESSOR_TYPE", "gzip"),
            ("DPKG_DEB_COMPRESSOR_LEVEL", "1"),
        ]);
    command
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// Crates whose sources the program names, in what it says when it panics.
fn named_by_the_program() -> BTreeSet<String> {
    let program = fs::read(PROGRAM).expect("the program under test");
    let program = String::from_utf8_lossy(&program);
    let named = program.split("/registry/src/").skip(1).filter_map(|path| {
        let mut parts = path.split('/').skip(1);
        let name = parts.next()?;
        // Not the end of one text before the beginning of another.
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        (parts.next() == Some("src") && name.chars().all(is_name)).then(|| name.to_owned())
    });
    named.collect()
}

#[test]
fn a_release_names_every_crate_that_is_in_the_program() {
    if !require(&[Need::Tool("jq")]) {
        return;
    }
    let bom = json(&process::succeed(
        make("config/release/crates", &[Path::new("sbom")]).env_remove("BINARY"),
    ));
    assert_eq!(bom["bomFormat"], "CycloneDX");
    assert_eq!(
        bom["metadata"]["component"]["version"],
        env!("CARGO_PKG_VERSION")
    );
    let mut listed = BTreeSet::new();
    for component in bom["components"].as_array().expect("a list") {
        let (name, version) = (text(&component["name"]), text(&component["version"]));
        assert_eq!(component["purl"], format!("pkg:cargo/{name}@{version}"));
        assert!(
            !text(&component["licenses"][0]["expression"]).contains('/'),
            "{component}"
        );
        assert_eq!(
            text(&component["hashes"][0]["content"]).len(),
            64,
            "{component}"
        );
        listed.insert(format!("{name}-{version}"));
    }
    let named = named_by_the_program();
    assert!(named.len() > 20, "{named:?}");
    let missing: Vec<_> = named.difference(&listed).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // What is only there for tests is not in the program, nor what only compiles it.
    for absent in ["rcgen-", "proptest-", "syn-", "serde_derive-"] {
        assert!(
            !listed.iter().any(|name| name.starts_with(absent)),
            "{absent}"
        );
    }
    // Each is reached from the program.
    let dependencies = bom["dependencies"].as_array().expect("a list");
    let on: BTreeSet<&str> = dependencies
        .iter()
        .flat_map(|of| of["dependsOn"].as_array().expect("a list"))
        .map(text)
        .collect();
    assert_eq!(on.len(), listed.len());

    let licences = process::succeed(
        make("config/release/crates", &[Path::new("licences")]).env_remove("BINARY"),
    );
    for needed in ["ring ", "Copyright (c) ", "Permission to use, copy, modify"] {
        assert!(licences.contains(needed), "{needed}");
    }
}

/// The root file system of an image, and how a container is made of it.
struct Image {
    root: PathBuf,
    config: Value,
}

impl Image {
    /// Unpacks the archive of one layer.
    fn unpack(archive: &Path, dir: &TempDir) -> Self {
        let (layout, root) = (dir.join("layout"), dir.join("root"));
        for made in [&layout, &root] {
            fs::create_dir(made).expect("own directory");
        }
        process::succeed(
            Command::new("tar")
                .arg("-xf")
                .arg(archive)
                .arg("-C")
                .arg(&layout),
        );
        let blob = |descriptor: &Value| {
            let digest = text(&descriptor["digest"]).replace(':', "/");
            layout.join("blobs").join(digest)
        };
        let read = |path: PathBuf| json(&fs::read_to_string(path).expect("a file of the image"));
        let index = read(layout.join("index.json"));
        let manifest = read(blob(&index["manifests"][0]));
        assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(1));
        let layer = blob(&manifest["layers"][0]);
        process::succeed(
            Command::new("tar")
                .arg("-xf")
                .arg(layer)
                .arg("-C")
                .arg(&root),
        );
        // The runtime makes it in every container.
        fs::create_dir(root.join("proc")).expect("not in the image");
        let config = read(blob(&manifest["config"]))["config"].take();
        Self { root, config }
    }

    /// What it runs, as whom and with what in the environment, as the first process of a network.
    fn start(&self, netns: &Netns, log: fs::File) -> Running {
        let (user, group) = text(&self.config["User"]).split_once(':').expect("both");
        let words = |key: &str| {
            self.config[key]
                .as_array()
                .expect("a list")
                .iter()
                .map(text)
        };
        let mut command = netns.command("unshare");
        command
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--root",
            ])
            .arg(&self.root)
            .args(["--setgid", group, "--setuid", user])
            .args(words("Entrypoint").chain(words("Cmd")))
            .env_clear()
            .envs(words("Env").filter_map(|variable| variable.split_once('=')))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("an open file"))
            .stderr(log);
        Running::start(&mut command)
    }

    /// A command in it, as its user.
    fn exec(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg("--userspec").arg(text(&self.config["User"]));
        command
            .arg(&self.root)
            .arg("/usr/bin/tml-proxy")
            .args(words);
        command
    }
}

#[test]
fn a_release_has_a_program_a_package_and_an_image_that_serves_as_nobody_in_particular() {
    if !available() {
        return;
    }
    let dir = TempDir::new();
    let release = dir.join("release");
    process::succeed(&mut make("config/release/build", &[&release]));
    process::succeed(
        Command::new("sha256sum")
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(&release),
    );
    let files: Vec<String> = fs::read_dir(&release)
        .expect("it was made")
        .map(|file| {
            file.expect("a file")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    for end in [
        "-linux-gnu",
        ".deb",
        "-oci.tar",
        ".cdx.json",
        "-licences.txt",
        "SHA256SUMS",
    ] {
        assert!(
            files.iter().any(|file| file.ends_with(end)),
            "{end} of {files:?}"
        );
    }
    // Nothing is written over.
    let again = process::output(&mut make("config/release/build", &[&release]));
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists"));

    let archive = files.iter().find(|file| file.ends_with("-oci.tar"));
    let image = Image::unpack(&release.join(archive.expect("seen above")), &dir);
    assert!(
        !image.root.join("bin").exists(),
        "a shell is of no use there"
    );
    let netns = Netns::new("image");
    let target = netns.run(Target::bind);
    let file = image.root.join("etc/tml-proxy/tml-proxy.toml");
    process::succeed(&mut image.exec(&["check", "--config", "/etc/tml-proxy/tml-proxy.toml"]));
    fs::write(&file, config([mapping("m22014", 22014, target.addr(), "")])).expect("own directory");
    let log = dir.join("log");
    let mut container = image.start(&netns, fs::File::create(&log).expect("own directory"));
    let said = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("it to serve", || {
        assert!(!container.has_ended(), "{}", said());
        said().contains("listening")
    });
    let connect =
        |port: u16| netns.run(|| Peer::connect_to(SocketAddr::from(([127, 0, 0, 1], port))));
    let (mut client, mut server) = (connect(22014), target.accept());
    client.exchange(&mut server, b"before");

    let two = [22014, 22015].map(|port| mapping(&format!("m{port}"), port, target.addr(), ""));
    fs::write(&file, config(two)).expect("own directory");
    let first = process::with_descendants(container.id())
        .pop()
        .expect("a child");
    let status = fs::read_to_string(format!("/proc/{first}/status")).expect("it runs");
    for line in ["NSpid:\t", "Uid:\t990\t990", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{status}");
    }
    assert!(
        status.contains(&format!("NSpid:\t{first}\t1\n")),
        "{status}"
    );
    let signal = |signal| {
        let pid = i32::try_from(first).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("it runs");
    };
    signal(Signal::HUP);
    wait_until("the reload", || said().contains("reload done"));
    let (mut other, mut others) = (connect(22015), target.accept());
    other.exchange(&mut others, b"a new mapping");
    client.exchange(&mut server, b"after");
    process::succeed(&mut image.exec(&["reload"]));
    let status = process::succeed(&mut image.exec(&["status"]));
    assert!(status.contains("2 with 2 listeners"), "{status}");

    signal(Signal::TERM);
    drop((client, server, other, others));
    assert!(container.wait().success(), "{}", said());
    assert!(
        !said().contains("WARN") && !said().contains("ERROR"),
        "{}",
        said()
    );
}
