//! Policies, as they are handed over: they are shared by many mappings, so they are written once and
//! named by their place.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    handover::LoadError,
    limit::SessionLimits,
    table::{Policy, PrefixFile, PrefixFileSaver, SavedPrefixFile, sources::SavedSources},
};

/// A policy with what stands beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPolicy {
    policy: Policy,
    #[serde(default)]
    sources: SavedSources,
    #[serde(default)]
    limits: SessionLimits,
}

impl SavedPolicy {
    /// Leaves the files with prefixes that it names with `files`.
    pub fn new(policy: &Policy, files: &mut PrefixFileSaver) -> Self {
        Self {
            policy: policy.clone(),
            sources: SavedSources::new(&policy.sources, files),
            limits: policy.limits.clone(),
        }
    }

    /// The policy with those files.
    ///
    /// # Errors
    ///
    /// One of them is missing.
    pub fn load(self, files: &[Arc<PrefixFile>]) -> Result<Policy, LoadError> {
        let Self {
            policy,
            sources,
            limits,
        } = self;
        Ok(Policy {
            sources: sources.load(files)?,
            limits,
            ..policy
        })
    }
}

/// Writes each policy once, and equal ones as one: most mappings share theirs, and of those with keys
/// of their own, many have the same.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// By where they are in memory.
    known: HashMap<usize, u32>,
    by_value: HashMap<Arc<Policy>, u32>,
    pub(super) saved: Vec<SavedPolicy>,
    pub(super) files: PrefixFileSaver,
}

impl Policies {
    /// The place of a policy.
    pub(super) fn save(&mut self, policy: &Arc<Policy>) -> u32 {
        let Self {
            known,
            by_value,
            saved,
            files,
        } = self;
        let place = known.entry(Arc::as_ptr(policy) as usize);
        *place.or_insert_with(|| {
            *by_value.entry(Arc::clone(policy)).or_insert_with(|| {
                saved.push(SavedPolicy::new(policy, files));
                u32::try_from(saved.len() - 1).unwrap_or(u32::MAX)
            })
        })
    }
}

pub(super) fn load_policies(
    saved: Vec<SavedPolicy>,
    files: Vec<SavedPrefixFile>,
) -> Result<Vec<Arc<Policy>>, LoadError> {
    let files = SavedPrefixFile::load(files);
    let saved = saved.into_iter();
    saved
        .map(|saved| saved.load(&files).map(Arc::new))
        .collect()
}

pub(super) fn policy_at(policies: &[Arc<Policy>], place: u32) -> Result<Arc<Policy>, LoadError> {
    let policy = policies.get(place as usize);
    policy.cloned().ok_or_else(|| {
        let why = format!("number {place} of {}", policies.len());
        LoadError::value("policy of a mapping", why)
    })
}
