//! Reading the configuration while everything else goes on.
//!
//! The file may be on a file system that does not answer, and ten thousand mappings take a while to
//! understand, so both are done by threads that control does not wait for. One reload is under way
//! at a time: who asks for one meanwhile gets the next, because the file may have changed since it
//! was read.

use std::{sync::Arc, time::Instant};

use tokio::{sync::oneshot, task::JoinHandle};

use super::lookups::{self, LookedUp};
use crate::{
    config::{Config, ConfigErrors, Content, Overrides, Source},
    files::{self, FileError},
    orders::OrderError,
    provider::switchboard::{
        Switchboard, SwitchboardStatus,
        exposer::Exposer,
        state::{StateDir, StateError},
    },
    resolve::Names,
    table::{Summary, Table},
};

/// Where a process has its configuration from.
#[derive(Debug)]
pub(super) struct Reader {
    pub source: Source,
    pub overrides: Overrides,
}

/// What comes of reading it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub outcome: Result<(Config, Table), ConfigErrors>,
    /// The names it leads to, as far as they were looked up.
    pub lookups: Vec<LookedUp>,
    /// To read it again.
    pub reader: Reader,
}

impl Reader {
    /// Reads the configuration and makes the table it asks for, sharing with `previous` what did
    /// not change. Names that are not known yet are looked up, but not waited for longer than a lookup may
    /// take.
    pub async fn load(self, previous: Arc<Table>, names: Arc<Names>) -> Loaded {
        let (source, overrides) = (self.source.clone(), self.overrides.clone());
        let of_file = source.clone();
        let content = files::off_thread(move || of_file.content()).await;
        let content = content.unwrap_or_else(|late| Content::File(Err(late.into())));
        let understand = move || {
            let outcome = self.source.understand(content, &self.overrides, &previous);
            Loaded {
                outcome,
                lookups: Vec::new(),
                reader: self,
            }
        };
        let loaded = match files::start(understand) {
            Ok(answer) => answer.wait().await,
            Err(unanswered) => Err(unanswered),
        };
        let mut loaded = loaded.unwrap_or_else(|unanswered| Loaded {
            outcome: Err(source.unreadable(FileError::from(unanswered))),
            lookups: Vec::new(),
            reader: Self { source, overrides },
        });
        if let Ok((config, _)) = &loaded.outcome {
            loaded.lookups = lookups::before(config, &names).await;
        }
        loaded
    }
}

/// Who waits for the outcome of a reload.
pub(super) type Reply = oneshot::Sender<Result<Summary, OrderError>>;

/// A reload whose configuration has been read.
#[derive(Debug)]
pub(super) struct Read {
    pub outcome: Result<(Config, Table), ConfigErrors>,
    pub lookups: Vec<LookedUp>,
    /// The state of the ports, if that is needed now and was not before.
    pub exposer: Option<Result<Exposer, String>>,
    pub since: Instant,
    pub replies: Vec<Reply>,
}

/// What was read, and what came of opening the state of the ports.
type Reading = JoinHandle<(Loaded, Option<Result<Exposer, String>>)>;

/// The reload under way, and who waits for the next.
#[derive(Debug)]
pub(super) struct Loading {
    /// Not here while it is used.
    reader: Option<Reader>,
    reading: Option<Reading>,
    since: Instant,
    replies: Vec<Reply>,
    next: Option<Vec<Reply>>,
}

impl Loading {
    /// No reload is under way.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader: Some(reader),
            reading: None,
            since: Instant::now(),
            replies: Vec::new(),
            next: None,
        }
    }

    /// Notes that a reload is wanted.
    pub fn ask(&mut self, reply: Option<Reply>) {
        self.next.get_or_insert_default().extend(reply);
    }

    /// Whether a reload is wanted and none under way.
    pub fn is_due(&self) -> bool {
        self.next.is_some() && self.reading.is_none()
    }

    /// Whether one is under way.
    pub fn is_under_way(&self) -> bool {
        self.reading.is_some()
    }

    /// Whether one is wanted or under way.
    pub fn is_wanted(&self) -> bool {
        self.next.is_some() || self.reading.is_some()
    }

    /// Begins the reload that is wanted. `status` is given if nobody exposes jobs yet.
    pub fn begin(
        &mut self,
        previous: Arc<Table>,
        names: Arc<Names>,
        status: Option<Arc<SwitchboardStatus>>,
    ) {
        let Some(reader) = self.reader.take() else {
            return;
        };
        self.since = Instant::now();
        self.replies = self.next.take().unwrap_or_default();
        self.reading = Some(tokio::spawn(async move {
            let loaded = reader.load(previous, names).await;
            let config = loaded.outcome.as_ref().map(|(config, _)| config);
            let exposer = match (config.map(|config| config.switchboard.as_ref()), status) {
                (Ok(Some(switchboard)), Some(status)) => Some(open(switchboard, status).await),
                _ => None,
            };
            (loaded, exposer)
        }));
    }

    /// Waits until the configuration of the reload under way has been read.
    pub async fn done(&mut self) -> Read {
        let Some(reading) = &mut self.reading else {
            return std::future::pending().await;
        };
        let (loaded, exposer) = match reading.await {
            Ok(read) => read,
            // It is aborted by nobody, and what may panic in it does so on a thread of its own.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.reading = None;
        self.reader = Some(loaded.reader);
        Read {
            outcome: loaded.outcome,
            lookups: loaded.lookups,
            exposer,
            since: self.since,
            replies: std::mem::take(&mut self.replies),
        }
    }
}

/// Opens the state of the ports, by a thread that may wait for it.
///
/// # Errors
///
/// Why it is not to be had.
pub(super) async fn open(
    switchboard: &Switchboard,
    status: Arc<SwitchboardStatus>,
) -> Result<Exposer, String> {
    let settings = Arc::new(switchboard.clone());
    open_by(switchboard, move || Exposer::new(settings, status)).await
}

/// The same in a directory that this process has already.
///
/// # Errors
///
/// Why it is not to be had.
pub(super) async fn open_again(
    state: StateDir,
    switchboard: &Switchboard,
    status: Arc<SwitchboardStatus>,
) -> Result<Exposer, String> {
    let settings = Arc::new(switchboard.clone());
    open_by(switchboard, move || Exposer::with(state, settings, status)).await
}

async fn open_by(
    switchboard: &Switchboard,
    open: impl FnOnce() -> Result<Exposer, StateError> + Send + 'static,
) -> Result<Exposer, String> {
    let opened = files::off_thread(open).await;
    match opened {
        Ok(Ok(exposer)) => Ok(exposer),
        Ok(Err(error)) => Err(format!("switchboard.state_dir: {error}")),
        Err(late) => Err(format!(
            "switchboard.state_dir: {}: {late}",
            switchboard.state_dir.display()
        )),
    }
}
