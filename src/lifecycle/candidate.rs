//! The build of the program that is to take over: whether it can.
//!
//! It has to show that itself: a child of it reads everything that would be handed over and says
//! whether it could go on with that. The child has no socket and no pipe of ours, and is killed when it
//! takes too long.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    fs::{Access, access},
    process::{Pid, Signal, kill_process_group},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    runtime::Handle,
    time::timeout,
};

use super::invocation::REHEARSE;
use crate::{files, os_error::in_words, text::printable, units};

/// How long a rehearsal may take: reading ten thousand sessions and as many mappings takes a second.
const WITHIN: Duration = Duration::from_secs(20);

/// Bytes of an answer that are read.
const LONGEST_ANSWER: u64 = 64 << 10;

/// Of what it complains about, so many bytes are kept: the last ones.
const LONGEST_COMPLAINT: usize = 2 << 10;

/// What a rehearsal says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The version that rehearses.
    pub version: String,
    /// Why it could not go on, if it could not.
    #[serde(default)]
    pub refused: Option<String>,
}

/// A build that has shown that it can take over.
#[derive(Debug)]
pub(super) struct Candidate {
    pub path: PathBuf,
    pub version: String,
    seen: Identity,
}

/// Which file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

/// Why there is no candidate.
#[derive(Debug)]
pub(super) struct Refusal {
    pub why: String,
    /// The version that refused, if it said which it is.
    pub version: Option<String>,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, version: None }
    }
}

impl Candidate {
    /// Whether it still is what has rehearsed. It takes no longer than stat(2).
    pub fn is_unchanged(&self) -> Result<(), String> {
        let path = self.path.display();
        match Identity::of(&self.path) {
            Ok(now) if now == self.seen => Ok(()),
            Ok(_) => Err(format!(
                "{path}: another file has taken its place since it was tried; upgrade again"
            )),
            Err(why) => Err(format!("{path}: {why}")),
        }
    }

    /// Has the executable at `path`, started with `words`, show that it can go on with `state`.
    pub async fn rehearse(path: PathBuf, words: &[OsString], state: File) -> Result<Self, Refusal> {
        let mut command = Command::new(&path);
        command
            .args(words.iter().skip(1))
            .arg(REHEARSE)
            // It is none of its business to tell systemd anything.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::from(state))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What it may start itself is ended with it.
            .process_group(0)
            .kill_on_drop(true);
        let place = path.clone();
        let runtime = Handle::current();
        // The file system may not answer.
        let started = files::off_thread(move || {
            let seen = executable(&place)?;
            let _entered = runtime.enter();
            let child = command.spawn().map_err(|error| in_words(&error))?;
            Ok::<_, String>((seen, child))
        });
        let named = |why: String| format!("{}: {why}", path.display());
        let started = started.await.map_err(|late| named(late.to_string()))?;
        let (seen, child) = started.map_err(named)?;
        let Answer { version, refused } = answer(child).await.map_err(named)?;
        match refused {
            None => Ok(Self {
                path,
                version,
                seen,
            }),
            Some(why) => Err(Refusal {
                why: named(format!("version {version} cannot go on: {why}")),
                version: Some(version),
            }),
        }
    }
}

impl Identity {
    fn of(path: &Path) -> Result<Self, String> {
        let found = fs::metadata(path).map_err(|error| in_words(&error))?;
        match found.is_file() {
            true => Ok(Self {
                device: found.dev(),
                inode: found.ino(),
                length: found.len(),
                changed: (found.mtime(), found.mtime_nsec()),
            }),
            false => Err("it is no file".to_owned()),
        }
    }
}

fn executable(path: &Path) -> Result<Identity, String> {
    let seen = Identity::of(path)?;
    match access(path, Access::EXEC_OK) {
        Ok(()) => Ok(seen),
        Err(errno) => Err(format!("it is not executable: {}", in_words(&errno.into()))),
    }
}

/// What the child answers, if it does in time.
async fn answer(mut child: Child) -> Result<Answer, String> {
    let (out, complaints) = (child.stdout.take(), child.stderr.take());
    let mut text = Vec::new();
    let mut complaint = Vec::new();
    let ended = timeout(WITHIN, async {
        let read = async {
            if let Some(out) = out {
                // What cannot be read is missing, and that is found.
                let _ = out.take(LONGEST_ANSWER).read_to_end(&mut text).await;
            }
        };
        let complain = async {
            if let Some(complaints) = complaints {
                read_last(complaints, &mut complaint).await;
            }
        };
        tokio::join!(read, complain);
        child.wait().await
    });
    let ended = ended.await;
    let complaint = String::from_utf8_lossy(&complaint);
    let complaint = printable(complaint.trim(), LONGEST_COMPLAINT);
    let after = match complaint.is_empty() {
        true => String::new(),
        false => format!("; it said: {complaint}"),
    };
    match ended {
        Err(_) => {
            kill_all(&child);
            let within = units::duration(WITHIN);
            Err(format!(
                "it did not answer within {within} and was ended{after}"
            ))
        }
        Ok(Err(error)) => Err(in_words(&error)),
        Ok(Ok(status)) => match serde_json::from_slice(&text) {
            Ok(answer) if status.success() => Ok(answer),
            _ => Err(format!(
                "{} without saying that it can take over (is it a tml-proxy that can?){after}",
                how_ended(status)
            )),
        },
    }
}

/// Ends it, with all that it has started. It is no great matter if that fails.
fn kill_all(child: &Child) {
    let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(leader) = leader {
        let _ = kill_process_group(leader, Signal::KILL);
    }
}

fn how_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// Reads to the end, and keeps the last of it.
async fn read_last(mut from: impl AsyncRead + Unpin, kept: &mut Vec<u8>) {
    let mut some = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut some).await {
        kept.extend_from_slice(&some[..count]);
        let beyond = kept.len().saturating_sub(LONGEST_COMPLAINT);
        kept.drain(..beyond);
    }
}
