//! A file system that does not answer.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::require::skip;

/// A file system over a directory, whose server takes no question. Every access to what is in it
/// waits until this is dropped.
#[derive(Debug)]
pub struct HungDir {
    path: PathBuf,
    /// The server's end; without it the kernel answers with an error.
    server: Option<File>,
}

impl HungDir {
    /// Puts one over `path`, where this kernel has FUSE. It takes root.
    pub fn over(path: &Path) -> Option<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let Ok(server) = device else {
            skip("/dev/fuse");
            return None;
        };
        let end = server.try_clone().expect("a descriptor");
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o"])
            .arg("fd=0,rootmode=040000,user_id=0,group_id=0,allow_other")
            .arg("hung")
            .arg(path)
            .stdin(Stdio::from(end))
            .status();
        assert!(mounted.expect("mount can be run").success());
        Some(Self {
            path: path.to_owned(),
            server: Some(server),
        })
    }
}

impl Drop for HungDir {
    fn drop(&mut self) {
        // First, or umount(8) would wait like everybody else.
        drop(self.server.take());
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
