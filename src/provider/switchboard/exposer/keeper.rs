//! Has allocations kept, one write at a time, and knows what is kept by now.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use crate::{
    files::{self, Answer, Unanswered},
    provider::switchboard::{
        Owner, SwitchboardStatus,
        boot_instant::{BootInstant, boot},
        ports::{Kept, Ports, Record},
        state::{Found, StateDir, StateError},
    },
};

/// A record on its way to the disk.
type Writing = (Arc<Record>, Answer<Result<(), StateError>>);

#[derive(Debug)]
pub(super) struct Keeper {
    state: Arc<StateDir>,
    boot: Option<String>,
    /// What was kept last.
    saved: Arc<Record>,
    /// A write that did not end in time.
    late: Option<Writing>,
    /// Why nothing can be kept, if that is so.
    pub failure: Option<String>,
}

impl Keeper {
    /// Reads what was kept in the state directory.
    ///
    /// # Errors
    ///
    /// It cannot be read. A damaged file is no error.
    pub fn with(state: StateDir) -> Result<Self, StateError> {
        let saved = match state.load()? {
            Found::Nothing => Record::default(),
            Found::Record(record) => record,
            Found::Damaged { damage, aside } => {
                tracing::error!(
                    %damage,
                    aside = %aside.display(),
                    "the state of the ports was damaged and is put aside: jobs may get other ports, \
                     and ports that were cooling down may be given away"
                );
                Record::default()
            }
        };
        Ok(Self {
            state: Arc::new(state),
            boot: boot(),
            saved: Arc::new(saved),
            late: None,
            failure: None,
        })
    }

    pub fn state_dir(&self) -> Weak<StateDir> {
        Arc::downgrade(&self.state)
    }

    /// The allocation that was kept.
    pub fn ports(&self) -> Ports {
        Ports::restore(&self.saved, self.boot.as_deref(), BootInstant::now())
    }

    /// What was kept of the owners in it.
    pub fn owners(&self) -> BTreeMap<Owner, Kept> {
        let owned = self.saved.owned.iter();
        owned.map(|port| (port.owner.clone(), port.kept)).collect()
    }

    /// Whether it is kept that `owner` has `port`.
    pub fn has_kept(&self, owner: &Owner, port: u16) -> bool {
        let owned = &self.saved.owned;
        let place = owned.binary_search_by_key(&port, |known| known.port);
        place.is_ok_and(|place| owned[place].owner == *owner)
    }

    /// Keeps what has changed since it was last kept.
    pub async fn save(
        &mut self,
        ports: &Ports,
        kept: &BTreeMap<Owner, Kept>,
        status: &SwitchboardStatus,
    ) {
        let record = ports.record(self.boot.clone(), |owner| kept.get(owner).copied());
        if record == *self.saved && self.late.is_none() {
            return;
        }
        let failure = self.write(Arc::new(record)).await.err();
        status.kept(failure.is_none());
        match (&failure, &self.failure) {
            (Some(error), None) => tracing::error!(
                error,
                "the state of the ports cannot be kept: no further port is opened"
            ),
            (None, Some(_)) => tracing::info!("the state of the ports is kept again"),
            _ => {}
        }
        self.failure = failure;
    }

    /// Writes a record, once a write before it has come to its end: one that wakes up late must not
    /// replace what is newer.
    async fn write(&mut self, record: Arc<Record>) -> Result<(), String> {
        while self.saved != record || self.late.is_some() {
            let (written, mut answer) = match self.late.take() {
                Some(late) => late,
                None => {
                    let (state, writing) = (Arc::clone(&self.state), Arc::clone(&record));
                    let started = files::start(move || state.save(&writing));
                    let answer = started.map_err(|error| error.to_string())?;
                    (Arc::clone(&record), answer)
                }
            };
            match answer.within(files::WITHIN).await {
                Ok(Ok(())) => self.saved = written,
                Ok(Err(error)) => return Err(error.to_string()),
                Err(unanswered) => {
                    if let Unanswered::Late(_) = unanswered {
                        self.late = Some((written, answer));
                    }
                    return Err(unanswered.to_string());
                }
            }
        }
        Ok(())
    }
}
