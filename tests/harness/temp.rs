//! A directory that goes with its test.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A directory of its own, removed when dropped. Every user may enter it.
#[derive(Debug)]
pub struct TempDir(tempfile::TempDir);

impl TempDir {
    /// Makes one.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("tml-proxy-test-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a directory for temporary files");
        Self(dir)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A name in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Puts a file into it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).expect("space for a small file");
        path
    }

    /// Copies a program into it, for users who cannot reach the original.
    pub fn copy_program(&self, program: &Path) -> PathBuf {
        let name = program.file_name().expect("a program has a name");
        let path = self.path().join(name);
        if !path.exists() {
            // Were it written here, a program that another test starts meanwhile would hold it open for
            // writing for a moment, and what is open for writing cannot be run.
            let status = Command::new("cp").arg(program).arg(&path).status();
            assert!(status.expect("cp can be run").success(), "no space for it");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own file");
        }
        path
    }
}
