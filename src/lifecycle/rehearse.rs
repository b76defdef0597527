//! Showing that this build could go on with what another one has, without doing anything: it reads and
//! builds everything, opens nothing, starts nothing and tells nobody.

use std::io;

use super::{
    candidate::Answer,
    saved::{AdoptError, Loaded, Parts},
};
use crate::{
    config::{ConfigErrors, Overrides, Source},
    handover::{rehearsed, version},
    table::Table,
};

/// Why it could not.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    #[error("it does not accept the configuration: {0}")]
    Config(#[from] ConfigErrors),
}

/// Rehearses with what is on standard input.
pub(crate) fn rehearse(source: &Source, overrides: &Overrides) -> Answer {
    let refused = try_all(source, overrides).err();
    Answer {
        version: version().to_owned(),
        refused: refused.map(|refusal| refusal.to_string()),
    }
}

fn try_all(source: &Source, overrides: &Overrides) -> Result<(), Refusal> {
    build(io::stdin())?;
    // Otherwise no restart would succeed any more, and no reload.
    source.load(overrides, &Table::default())?;
    Ok(())
}

fn build(state: impl io::Read) -> Result<(), AdoptError> {
    let mut parts = Parts::open(rehearsed(state)?)?;
    let process = parts.process()?;
    Loaded::new(&mut parts, &process).map(drop)
}

/// Builds everything that was handed over for a rehearsal, and drops it.
///
/// # Errors
///
/// Why that cannot be, in words.
pub fn build_saved(state: impl io::Read) -> Result<(), String> {
    build(state).map_err(|error| error.to_string())
}
