//! Showing that this build could go on with what another one has, without doing anything: it reads and
//! builds everything, opens nothing, starts nothing and tells nobody.

use std::io;

use super::{
    candidate::Answer,
    saved::{AdoptError, Parts, SavedProcess},
};
use crate::{
    config::{Content, Overrides, Source},
    handover::{Loader, rehearsed, version},
    table::Table,
};

/// Why it could not.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    #[error("the configuration in force is not valid any more: {0}")]
    Config(#[from] crate::config::ConfigErrors),
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
    let parts = rehearsed(io::stdin()).map_err(AdoptError::from)?;
    let mut parts = Parts::open(parts)?;
    let (process, loader) = parts.process()?;
    let content = content(&process, &loader)?;
    source.understand(content, overrides, &Table::default())?;
    Ok(())
}

/// What the configuration in force was read from.
pub(super) fn content(process: &SavedProcess, loader: &Loader) -> Result<Content, AdoptError> {
    let Some(text) = process.text else {
        return Ok(Content::Known);
    };
    let text = loader.bytes(text).map_err(|error| AdoptError::Load {
        part: "configuration".to_owned(),
        error,
    })?;
    Ok(Content::File(Ok(text.to_vec())))
}
