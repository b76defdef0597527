//! What the process as a whole hands over, and reading it.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::{
    run::LOG_QUEUE,
    saved_control::{ControlParts, LoadedControl, SavedControl},
};
use crate::{
    admin::Sources,
    handover::{
        Descriptor, HEADER, HandoverError, Header, LoadError, Loader, Part, Records, Saver, Sink,
        Unsuitable, Values, monotonic,
    },
    session::SessionLine,
    telemetry::{LogQueue, UpgradeReport},
    worker::{Adopted, LostListener, PART, WorkerContext},
};

/// Who hands over, and what is known of the process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedProcess {
    #[serde(flatten)]
    pub header: Header,
    #[serde(flatten)]
    pub way_back: SavedWayBack,
    /// The number of the upgrade.
    pub number: u64,
    /// How many sessions stand still; none do in a rehearsal.
    #[serde(default)]
    pub sessions: Option<usize>,
    /// When they were stopped.
    #[serde(with = "monotonic")]
    pub frozen: Instant,
    /// When all was saved.
    #[serde(with = "monotonic")]
    pub saved: Instant,
    /// When the process was started.
    pub started: Started,
    /// How upgrades went before this one.
    #[serde(default)]
    pub upgrades: UpgradeReport,
    /// Whether somebody waits for a reload.
    #[serde(default)]
    pub reload: bool,
}

/// The image that hands over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedWayBack {
    /// Its executable, which need not have a name any more.
    pub executable: Descriptor,
    /// The path of that.
    pub binary_before: PathBuf,
    /// The path of the one that takes over.
    pub binary: PathBuf,
}

/// When the process was started.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Started {
    #[serde(with = "monotonic")]
    pub at: Instant,
    pub time: SystemTime,
}

/// The part with what control has.
const CONTROL: &str = "control";

/// The part with what was counted by everybody.
const COUNTED: &str = "counted";

/// Everything but the process itself, built and not started.
pub(super) struct Loaded {
    pub control: LoadedControl,
    pub shared: WorkerContext,
    pub queue: Arc<LogQueue<SessionLine>>,
    /// Listeners that workers will lose.
    pub lost: mpsc::UnboundedReceiver<LostListener>,
    pub workers: Vec<Adopted>,
}

/// Hands over what control has, which nobody else changes.
pub(super) fn put_control(
    parts: ControlParts<'_>,
    sink: &dyn Sink,
) -> Result<SavedControl, String> {
    let mut saver = Saver::default();
    let saved = SavedControl::new(parts, &mut saver);
    put(sink, CONTROL, &saved, saver)?;
    Ok(saved)
}

/// Hands over what was counted since.
pub(super) fn put_counted(
    control: &SavedControl,
    sources: &Sources,
    sink: &dyn Sink,
) -> Result<(), String> {
    put(sink, COUNTED, &control.counted(sources), Saver::default())
}

impl Loaded {
    /// Builds everything.
    pub fn new(parts: &mut Parts, process: &SavedProcess) -> Result<Self, AdoptError> {
        let (saved, mut loader): (SavedControl, _) = parts.take(CONTROL)?;
        let (counted, _) = parts.take(COUNTED)?;
        let control = saved.load(counted, &mut loader);
        let mut control = control.map_err(|error| AdoptError::Load {
            part: CONTROL.to_owned(),
            error,
        })?;
        let (lose, lost) = mpsc::unbounded_channel();
        let queue = LogQueue::new(LOG_QUEUE).after(control.telemetry.log_dropped);
        let queue = Arc::new(queue);
        let shared = control.worker_context(lose, Arc::clone(&queue));
        let mut workers = Vec::new();
        for (part, (mut values, mut loader)) in parts.take_all(PART) {
            let sessions = control.sessions(&part, (&mut values, &mut loader), &shared);
            workers.push(sessions.map_err(|error| AdoptError::Load { part, error })?);
        }
        let found = workers.iter().map(Adopted::sessions).sum();
        if let Some(said) = process.sessions.filter(|said| *said != found) {
            return Err(AdoptError::Sessions { said, found });
        }
        Ok(Self {
            control,
            shared,
            queue,
            lost,
            workers,
        })
    }
}

/// Why an image cannot go on with what was handed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdoptError {
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error(transparent)]
    Unsuitable(#[from] Unsuitable),
    #[error("{part}: it was not handed over")]
    Missing { part: String },
    #[error("{part}: {error}")]
    Values {
        part: String,
        error: serde_json::Error,
    },
    #[error("{part}: {error}")]
    Load { part: String, error: LoadError },
    #[error("{found} of {said} sessions were handed over")]
    Sessions { said: usize, found: usize },
}

/// What was handed over, by name.
#[derive(Debug)]
pub(super) struct Parts {
    header: (Vec<u8>, Loader),
    others: HashMap<String, (Values, Loader)>,
}

impl Parts {
    /// Opens them all. While the process has one thread the kernel has nobody to wait for when its
    /// table of descriptors grows.
    pub fn open(parts: Vec<Part>) -> Result<Self, AdoptError> {
        let mut others = HashMap::new();
        for part in parts {
            let name = part.name.clone();
            others.insert(name, part.open()?);
        }
        let header = others.remove(HEADER);
        let (mut values, loader) = header.ok_or_else(|| missing(HEADER))?;
        let text = values.line().map(<[u8]>::to_vec);
        let text = text.map_err(|error| unreadable(HEADER, serde_json::Error::io(error)))?;
        Ok(Self {
            header: (text, loader),
            others,
        })
    }

    /// The first values of a part, and what gives out the descriptors and bytes they name.
    pub fn take<T: DeserializeOwned>(&mut self, part: &str) -> Result<(T, Loader), AdoptError> {
        let taken = self.others.remove(part);
        let (mut values, loader) = taken.ok_or_else(|| missing(part))?;
        let values = values.record().map_err(|error| unreadable(part, error))?;
        Ok((values, loader))
    }

    /// All whose names begin so, opened.
    fn take_all(&mut self, beginning: &str) -> Vec<(String, (Values, Loader))> {
        let wanted = |name: &String, _: &mut _| name.starts_with(beginning);
        self.others.extract_if(wanted).collect()
    }

    /// The way back, which is the same in every format.
    pub fn way_back(&mut self) -> Result<(SavedWayBack, OwnedFd), AdoptError> {
        let back: SavedWayBack = self.header()?;
        let executable = self.header.1.descriptor(back.executable);
        let executable = executable.map_err(|error| AdoptError::Load {
            part: HEADER.to_owned(),
            error,
        })?;
        Ok((back, executable))
    }

    /// What is known of the process, if this version understands what is in all parts.
    pub fn process(&self) -> Result<SavedProcess, AdoptError> {
        // Nothing else of what another format has need be understood.
        let header: Header = self.header()?;
        header.check()?;
        self.header()
    }

    fn header<T: DeserializeOwned>(&self) -> Result<T, AdoptError> {
        serde_json::from_slice(&self.header.0).map_err(|error| unreadable(HEADER, error))
    }
}

fn missing(part: &str) -> AdoptError {
    AdoptError::Missing {
        part: part.to_owned(),
    }
}

fn unreadable(part: &str, error: serde_json::Error) -> AdoptError {
    AdoptError::Values {
        part: part.to_owned(),
        error,
    }
}

/// Puts values into a part.
pub(super) fn put(
    sink: &dyn Sink,
    part: &str,
    values: &impl Serialize,
    saver: Saver<'_>,
) -> Result<(), String> {
    let mut records = Records::default();
    let pushed = records.push(values);
    pushed.map_err(|error| format!("{part}: {error}"))?;
    sink.put(part, &records, saver)
}
