//! What the process as a whole hands over, and reading it.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Instant, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    handover::{
        Bytes, Descriptor, HEADER, HandoverError, Header, LoadError, Loader, Part, Saver, Sink,
        Unsuitable, monotonic,
    },
    telemetry::UpgradeReport,
};

/// Who hands over, and what is known of the process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedProcess {
    #[serde(flatten)]
    pub header: Header,
    /// The executable of the image that hands over; it need not have a name any more.
    pub executable: Descriptor,
    /// The path of the one that takes over.
    pub binary: PathBuf,
    /// The path of the one that hands over.
    pub binary_before: PathBuf,
    /// The number of the upgrade.
    pub number: u64,
    /// When sessions were stopped.
    #[serde(with = "monotonic")]
    pub frozen: Instant,
    /// When the process was started.
    pub started: Started,
    /// How upgrades went before this one.
    #[serde(default)]
    pub upgrades: UpgradeReport,
    /// Whether somebody waits for a reload.
    #[serde(default)]
    pub reload: bool,
    /// What the configuration in force was read from, if that is a file.
    #[serde(default)]
    pub text: Option<Bytes>,
}

/// When the process was started.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Started {
    #[serde(with = "monotonic")]
    pub at: Instant,
    pub time: SystemTime,
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
}

/// What was handed over, by name.
#[derive(Debug)]
pub(super) struct Parts(HashMap<String, (Vec<u8>, Loader)>);

impl Parts {
    /// Opens them all. While the process has one thread the kernel has nobody to wait for when its
    /// table of descriptors grows.
    pub fn open(parts: Vec<Part>) -> Result<Self, AdoptError> {
        let mut open = HashMap::new();
        for part in parts {
            let name = part.name.clone();
            open.insert(name, part.open()?);
        }
        Ok(Self(open))
    }

    /// The values of a part, and what gives out the descriptors and bytes they name.
    pub fn take<T: DeserializeOwned>(&mut self, part: &str) -> Result<(T, Loader), AdoptError> {
        let taken = self.0.remove(part);
        let (values, loader) = taken.ok_or_else(|| AdoptError::Missing {
            part: part.to_owned(),
        })?;
        let values = serde_json::from_slice(&values).map_err(|error| AdoptError::Values {
            part: part.to_owned(),
            error,
        })?;
        Ok((values, loader))
    }

    /// That of the process, if this version understands what is in all of them.
    pub fn process(&mut self) -> Result<(SavedProcess, Loader), AdoptError> {
        let values = self.0.get(HEADER).map(|(values, _)| &values[..]);
        // Nothing else of what another format has need be understood.
        let header: Header =
            serde_json::from_slice(values.unwrap_or(b"null")).map_err(|error| {
                AdoptError::Values {
                    part: HEADER.to_owned(),
                    error,
                }
            })?;
        header.check()?;
        self.take(HEADER)
    }
}

/// Puts values into a part.
pub(super) fn put(
    sink: &dyn Sink,
    part: &str,
    values: &impl Serialize,
    saver: Saver<'_>,
) -> Result<(), String> {
    let values = serde_json::to_vec(values).map_err(|error| format!("{part}: {error}"))?;
    sink.put(part, values, saver)
}
