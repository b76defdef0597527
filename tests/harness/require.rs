//! What a test needs of the machine beyond the ordinary.
//!
//! Without it the test says so and passes, except where `CI=true` is set: there everything is
//! supposed to be present, and what is missing is a failure.

use std::{env, fs, path::PathBuf};

/// Something not every machine has.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// To be root.
    Root,
    /// A program.
    Tool(&'static str),
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
    eprintln!("skipped, this machine lacks: {missing}");
    false
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!is_root()).then(|| "root".to_owned()),
            Self::Tool(name) => find_program(name)
                .is_none()
                .then(|| format!("the program {name}")),
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
