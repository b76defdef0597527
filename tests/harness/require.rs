//! What a test needs of the machine beyond the ordinary.
//!
//! Without it the test says so and passes, except where `CI=true` is set: there everything is
//! supposed to be present, and what is missing is a failure.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// Something not every machine has.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// To be root.
    Root,
    /// A program.
    Tool(&'static str),
    /// A module of Python's.
    PythonModule(&'static str),
    /// This many file descriptors for the test and for every program it starts.
    Descriptors(u64),
}

/// Whether the machine has all of it; if not, says what is missing.
#[must_use]
pub fn require(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(", ");
    let ci = env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "this machine lacks: {missing}");
    skip(&missing);
    false
}

/// Says that this test is skipped because the machine lacks something: at once, also where what a test
/// prints is kept, and at the end of all tests.
pub fn skip(missing: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    // Nobody has to be able to read it.
    let _ = writeln!(
        io::stderr(),
        "{test}: skipped, this machine lacks: {missing}"
    );
    let kept = OpenOptions::new().create(true).append(true).open(kept());
    let _ = kept.and_then(|mut kept| writeln!(kept, "{test}: {missing}"));
}

/// Where tests that were skipped are noted, for those of one `cargo test`: it starts all of them.
fn kept() -> PathBuf {
    let cargo = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("skipped-{cargo}"))
}

/// What was noted so far, which is then forgotten.
pub fn take_skipped() -> String {
    let skipped = fs::read_to_string(kept()).unwrap_or_default();
    // There is none where nothing was skipped.
    let _ = fs::remove_file(kept());
    skipped
}

/// What to say of them at the end.
pub fn summary(skipped: &str) -> String {
    let tests = match skipped.lines().count() {
        0 => return "no test was skipped\n".to_owned(),
        1 => "1 test was skipped".to_owned(),
        count => format!("{count} tests were skipped"),
    };
    let mut lines: Vec<&str> = skipped.lines().collect();
    lines.sort_unstable();
    format!(
        "{tests}: counted as ok above, and not run. This machine lacks:\n  {}\n\
         `.ci/run`, as root on Debian, installs what is missing and runs all of them.\n",
        lines.join("\n  ")
    )
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!is_root()).then(|| "root".to_owned()),
            Self::Tool(name) => find_program(name)
                .is_none()
                .then(|| format!("the program {name}")),
            Self::PythonModule(name) => {
                let mut python = Command::new("python3");
                let imported = python.args(["-c", &format!("import {name}")]).output();
                let is_there = imported.is_ok_and(|output| output.status.success());
                (!is_there).then(|| format!("Python's module {name}"))
            }
            Self::Descriptors(count) => {
                let most = super::process::raise_descriptor_limit();
                (most < count).then(|| format!("{count} descriptors ({most} is the limit)"))
            }
        }
    }
}

/// Whether this is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where a program is, if it is installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where only root's PATH looks, and PostgreSQL's programs by their version.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let versions = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain(versions)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
