//! A proxy that can be upgraded, and builds of the program to upgrade to.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::harness::{Scene, Setup, TempDir, process, proxy::PROGRAM};

/// What a build says of itself, see `src/handover/header.rs`.
const BUILD: &str = concat!("tml-proxy ", env!("CARGO_PKG_VERSION"), " handover 001 001");

/// The version of the build under test.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The usual stage with an admin socket, and a place for further builds.
pub struct Stage {
    pub scene: Scene,
    pub dir: TempDir,
}

impl Stage {
    /// Sets it up; `sections` is further lines before the mapping, `more` further lines of it.
    #[track_caller]
    pub fn new(sections: &str, more: &str) -> Self {
        Self::with(&Setup::default(), sections, more)
    }

    /// Sets it up for a proxy of another user, who may make its socket where builds are.
    #[track_caller]
    pub fn for_everybody(setup: &Setup<'_>) -> Self {
        let dir = TempDir::new();
        let all = fs::Permissions::from_mode(0o777);
        fs::set_permissions(dir.path(), all).expect("own directory");
        Self::within(dir, setup, "", "")
    }

    /// Sets it up in a special way.
    #[track_caller]
    pub fn with(setup: &Setup<'_>, sections: &str, more: &str) -> Self {
        Self::within(TempDir::new(), setup, sections, more)
    }

    fn within(dir: TempDir, setup: &Setup<'_>, sections: &str, more: &str) -> Self {
        let socket = dir.join("admin.sock");
        let process = format!("[admin]\nsocket = {socket:?}\n{sections}");
        Self {
            scene: Scene::with(setup, &process, more),
            dir,
        }
    }

    /// Runs a command of the program against the proxy.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        let socket = self.dir.join("admin.sock");
        process::output(command.args(arguments).arg("--socket").arg(socket))
    }

    /// Runs a command that has to succeed and gives its JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat());
        let (text, error) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{arguments:?}: {text}{error}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Upgrades to the build it was started from.
    #[track_caller]
    pub fn upgrade(&self) -> Value {
        self.json(&["upgrade"])
    }

    /// Upgrades to another build.
    #[track_caller]
    pub fn upgrade_to(&self, binary: &Path) -> Value {
        self.json(&["upgrade", "--binary", &binary.display().to_string()])
    }

    /// Tries to upgrade to another build, which has to fail, and says why that is.
    #[track_caller]
    pub fn upgrade_fails(&self, binary: &Path) -> String {
        let output = self.command(&["upgrade", "--binary", &binary.display().to_string()]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let line = self
            .scene
            .proxy
            .wait_for_line(0, "upgrade failed, nothing has changed");
        assert_eq!(line.text("level"), "ERROR");
        said.into_owned()
    }

    /// Another build of the program: its version, and the formats it understands.
    pub fn build(&self, version: &str, formats: &str) -> PathBuf {
        let other = format!("tml-proxy {version} handover {formats}");
        assert_eq!(other.len(), BUILD.len(), "it takes the place of {BUILD}");
        let mut program = fs::read(PROGRAM).expect("it was built");
        let places: Vec<usize> = (0..program.len() - BUILD.len())
            .filter(|at| program[*at..].starts_with(BUILD.as_bytes()))
            .collect();
        assert!(!places.is_empty(), "the build does not say what it is");
        for at in places {
            program[at..at + other.len()].copy_from_slice(other.as_bytes());
        }
        let name = format!("tml-proxy-{version}-{}", formats.replace(' ', "-"));
        self.executable(&name, &program)
    }

    /// A file that can be executed.
    pub fn executable(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let written = self.dir.write(&format!("{name}.data"), content);
        let path = self.dir.join(name);
        // Were it written here, a program that another test starts meanwhile would hold it open for
        // writing for a moment, and what is open for writing cannot be run.
        process::succeed(Command::new("cp").arg(written).arg(&path));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own file");
        path
    }

    /// A script.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        self.executable(name, format!("#!/bin/sh\n{text}\n"))
    }
}
