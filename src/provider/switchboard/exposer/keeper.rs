//! Has allocations kept, one write at a time, and knows what is kept by now.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use crate::{
    files::{self, Answer, Unanswered, Worker},
    provider::switchboard::{
        Owner, SwitchboardStatus,
        boot_instant::{BootInstant, boot},
        ports::{Kept, Ports, Record, Step},
        state::{Found, StateDir, StateError},
    },
};

/// What is on its way to the disk.
#[derive(Debug)]
enum Writing {
    Whole(Record),
    Step(Step),
}

type Late = (Arc<Writing>, Answer<Result<(), StateError>>);

#[derive(Debug)]
pub(super) struct Keeper {
    state: Arc<StateDir>,
    boot: Option<String>,
    /// What was found at the start.
    found: Record,
    /// Ports whose owners are kept.
    saved: BTreeMap<u16, Owner>,
    /// Ports of which something else is kept than there is to be, and whether that is so of who waits.
    unsaved: (BTreeSet<u16>, bool),
    /// A write that did not end in time.
    late: Option<Late>,
    writer: Worker,
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
        let found = match state.load()? {
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
        let boot = boot();
        Ok(Self {
            state: Arc::new(state),
            saved: owners(&found),
            // Another run of the machine has another clock.
            unsaved: (BTreeSet::new(), found.boot != boot),
            boot,
            found,
            late: None,
            writer: Worker::new("state"),
            failure: None,
        })
    }

    pub fn state_dir(&self) -> Weak<StateDir> {
        Arc::downgrade(&self.state)
    }

    /// The allocation that was kept.
    pub fn ports(&self) -> Ports {
        Ports::restore(&self.found, self.boot.as_deref(), BootInstant::now())
    }

    /// What was kept of the owners in it.
    pub fn owners(&self) -> BTreeMap<Owner, Kept> {
        let owned = self.found.owned.iter();
        owned.map(|port| (port.owner.clone(), port.kept)).collect()
    }

    /// Whether it is kept that `owner` has `port`.
    pub fn has_kept(&self, owner: &Owner, port: u16) -> bool {
        self.saved.get(&port) == Some(owner)
    }

    /// Keeps what has changed since it was last kept.
    pub async fn save(
        &mut self,
        ports: &mut Ports,
        kept: &BTreeMap<Owner, Kept>,
        status: &SwitchboardStatus,
    ) {
        self.unsaved.0.append(&mut ports.take_touched());
        self.unsaved.1 |= ports.take_queue_touched();
        if self.is_saved() {
            return;
        }
        let failure = self.write(ports, kept).await.err();
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

    fn is_saved(&self) -> bool {
        self.unsaved.0.is_empty() && !self.unsaved.1 && self.late.is_none()
    }

    /// Writes what has changed, once a write before it has come to its end: one that wakes up late must
    /// not replace what is newer, nor come behind it. After one that failed everything is written.
    async fn write(&mut self, ports: &Ports, kept: &BTreeMap<Owner, Kept>) -> Result<(), String> {
        while !self.is_saved() {
            let (written, mut answer) = match self.late.take() {
                Some(late) => late,
                None => {
                    let kept = |owner: &Owner| kept.get(owner).copied();
                    let writing = Arc::new(match self.state.takes_steps() {
                        true => {
                            let (touched, queue) = &self.unsaved;
                            Writing::Step(ports.step(touched.clone(), *queue, kept))
                        }
                        false => Writing::Whole(ports.record(self.boot.clone(), kept)),
                    });
                    let (state, record) = (Arc::clone(&self.state), Arc::clone(&writing));
                    let started = self.writer.start(move || match &*record {
                        Writing::Whole(record) => state.save(record),
                        Writing::Step(step) => state.save_step(step),
                    });
                    let answer = started.map_err(|error| error.to_string())?;
                    self.unsaved = Default::default();
                    (writing, answer)
                }
            };
            match answer.within(files::WITHIN).await {
                Ok(Ok(())) => self.take_in(&written),
                Ok(Err(error)) => {
                    self.failed(&written);
                    if let Writing::Whole(_) = *written {
                        return Err(error.to_string());
                    }
                }
                Err(unanswered) => {
                    match unanswered {
                        Unanswered::Late(_) => self.late = Some((written, answer)),
                        Unanswered::Busy(_) | Unanswered::Failed => self.failed(&written),
                    }
                    return Err(unanswered.to_string());
                }
            }
        }
        Ok(())
    }

    fn take_in(&mut self, written: &Writing) {
        match written {
            Writing::Whole(record) => self.saved = owners(record),
            Writing::Step(step) => {
                for port in &step.ports {
                    self.saved.remove(port);
                }
                let owned = step.owned.iter();
                self.saved
                    .extend(owned.map(|one| (one.port, one.owner.clone())));
            }
        }
    }

    /// Has everything written again that was not.
    fn failed(&mut self, written: &Writing) {
        let ports = match written {
            Writing::Whole(record) => owners(record).into_keys().collect(),
            Writing::Step(step) => step.ports.clone(),
        };
        self.unsaved.0.extend(ports);
        self.unsaved.1 = true;
    }
}

fn owners(record: &Record) -> BTreeMap<u16, Owner> {
    let owned = record.owned.iter();
    owned.map(|one| (one.port, one.owner.clone())).collect()
}
