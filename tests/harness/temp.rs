//! A directory that goes with its test.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// A directory of its own, removed when dropped. Every user may enter it.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes one.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tml-proxy-test-{}-{}",
            process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("a fresh directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own directory");
        Self(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A name in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
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
        let path = self.0.join(name);
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

impl Drop for TempDir {
    fn drop(&mut self) {
        // What stays behind is a few files in a temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}
