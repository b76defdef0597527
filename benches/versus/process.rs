//! Child processes that never outlive the run, whichever way it ends.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use crate::harness::TempDir;

/// What has to be cleared away when a signal ends the run.
static LEFT_BEHIND: Mutex<LeftBehind> = Mutex::new(LeftBehind {
    children: Vec::new(),
    directories: Vec::new(),
    namespaces: Vec::new(),
});

struct LeftBehind {
    children: Vec<Pid>,
    directories: Vec<PathBuf>,
    namespaces: Vec<String>,
}

impl LeftBehind {
    /// Ends the children and removes the directories, as far as that takes a bounded time.
    fn clear_away(&mut self) {
        for name in self.namespaces.drain(..) {
            // Its interfaces go when the last process in it has gone.
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
        for &pid in &self.children {
            let _ = kill_process(pid, Signal::TERM);
        }
        for _ in 0..40 {
            // Whoever is still running, and the main thread until it wants to start something,
            // may write to a directory while it is being removed.
            let running = |pid: &Pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None));
            self.children.retain(running);
            self.directories.retain(|path| {
                let _ = fs::remove_dir_all(path);
                path.exists()
            });
            if self.children.is_empty() && self.directories.is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        for &pid in &self.children {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn left_behind<T>(change: impl FnOnce(&mut LeftBehind) -> T) -> T {
    change(&mut LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A signal that ends the run removes this network namespace; otherwise whoever has it does.
pub fn remove_namespace_on_signal(name: &str) {
    left_behind(|left| left.namespaces.push(name.to_owned()));
}

/// A child process; dropping it ends it.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a program.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        // Under the lock, or a signal could fall between the start and the entry.
        left_behind(|left| {
            let child = command
                .spawn()
                .with_context(|| format!("start {command:?}"))?;
            let process = Self { child };
            left.children.push(process.pid());
            Ok(process)
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid(), signal)?)
    }

    /// Waits for its end; whether it came in time.
    pub fn wait(&mut self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        while Instant::now() < deadline {
            if self.ended().is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = self.pid();
        if self.ended().is_none() {
            // Errors mean that it is gone, which is what is wanted.
            let _ = kill_process(pid, Signal::TERM);
            if !self.wait(Duration::from_secs(5)) {
                let _ = self.child.kill();
            }
            let _ = self.child.wait();
        }
        left_behind(|left| left.children.retain(|child| *child != pid));
    }
}

/// A directory for configurations and logs, removed at the end.
pub struct Workspace(TempDir);

impl Workspace {
    /// Makes an empty directory.
    pub fn new() -> Self {
        let dir = TempDir::new();
        left_behind(|left| left.directories.push(dir.path().to_owned()));
        Self(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        left_behind(|left| left.directories.retain(|path| path != self.path()));
    }
}

/// From now on a signal that would end the run ends the children first.
pub fn clean_up_on_signal() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = [
                    SignalKind::interrupt(),
                    SignalKind::terminate(),
                    SignalKind::hangup(),
                ]
                .map(signal) else {
                    return;
                };
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                // The lock is kept: nothing is started any more.
                left_behind(|left| {
                    left.clear_away();
                    std::process::exit(130);
                });
            });
        })?;
    Ok(())
}
