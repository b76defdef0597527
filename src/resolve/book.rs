//! What is known of names: shared by who looks them up, who uses their addresses and who shows them.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};

use super::{Family, Found, LookupError, Unfit};
use crate::{
    mutex::lock,
    setting::{As, Word},
};

/// A name, and which of its addresses are wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub name: Arc<str>,
    pub family: Family,
}

/// What is known of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// What it led to when that was last known; none if it never was.
    pub addresses: Vec<IpAddr>,
    /// Whether a server said so.
    pub from_server: bool,
    /// How many addresses it has beyond those.
    pub beyond: usize,
    /// Why the last lookup failed, if it did.
    pub error: Option<String>,
    /// Those of its addresses that are no targets, and why.
    pub left_out: Vec<(IpAddr, Unfit)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<BTreeMap<Name, Known>>);

/// All of them, as they are handed over to the next image of the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SavedNames(Vec<SavedName>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedName {
    name: String,
    #[serde(default, with = "As::<Word<Family>>")]
    family: Family,
    addresses: Vec<IpAddr>,
    #[serde(default)]
    from_server: bool,
    #[serde(default)]
    beyond: usize,
    #[serde(default)]
    error: Option<String>,
}

/// What a lookup changed, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// It failed as never before, or for the first time in a while.
    Fails(String),
    /// It is known again, or for the first time.
    Works,
    /// It leads elsewhere.
    Moved,
}

impl Names {
    /// What is known of a name.
    pub fn of(&self, name: &Name) -> Known {
        lock(&self.0).get(name).cloned().unwrap_or_default()
    }

    /// Everything.
    pub fn all(&self) -> Vec<(Name, Known)> {
        let names = lock(&self.0);
        let all = names.iter();
        all.map(|(name, known)| (name.clone(), known.clone()))
            .collect()
    }

    /// Forgets all names but these.
    pub fn keep(&self, wanted: impl Fn(&Name) -> bool) {
        lock(&self.0).retain(|name, _| wanted(name));
    }

    /// Takes note of what a lookup found. One that failed leaves the addresses as they were.
    pub fn note(&self, name: &Name, found: &Result<Found, LookupError>) -> Option<News> {
        let mut names = lock(&self.0);
        let known = names.entry(name.clone()).or_default();
        let failed_before = known.error.is_some();
        let was_known = !known.addresses.is_empty();
        match found {
            Err(error) => {
                known.error = Some(error.to_string());
                (!failed_before).then(|| News::Fails(error.to_string()))
            }
            Ok(found) => {
                let found = found.clone().with_unknown_of(&known.addresses);
                let error = found.unknown.as_ref();
                let error = error.map(|(records, error)| {
                    format!("its {} addresses are not known: {error}", records.word())
                });
                let moved = known.addresses != found.addresses;
                known.from_server = found.from_server;
                known.beyond = found.beyond;
                known.addresses = found.addresses;
                known.error.clone_from(&error);
                match error {
                    Some(error) if !failed_before => Some(News::Fails(error)),
                    None if failed_before || !was_known => Some(News::Works),
                    _ => moved.then_some(News::Moved),
                }
            }
        }
    }

    /// Takes note of which of its addresses are no targets; those that were not before.
    pub fn leave_out(&self, name: &Name, left_out: Vec<(IpAddr, Unfit)>) -> Vec<(IpAddr, Unfit)> {
        let mut names = lock(&self.0);
        let known = names.entry(name.clone()).or_default();
        let is_new = |one: &&(IpAddr, Unfit)| !known.left_out.contains(one);
        let new = left_out.iter().filter(is_new).copied().collect();
        known.left_out = left_out;
        new
    }

    /// Why a name leads to no target, if it does not.
    pub fn why_nowhere(&self, name: &Name) -> Option<String> {
        let Known {
            addresses,
            error,
            left_out,
            ..
        } = self.of(name);
        if addresses.len() > left_out.len() {
            return None;
        }
        let left_out = left_out.first();
        let left_out = left_out.map(|(address, why)| format!("{address}: {why}"));
        let why = left_out.or(error);
        let why = why.unwrap_or_else(|| "it is being looked up".to_owned());
        Some(format!("{}: {why}", name.name))
    }

    pub fn save(&self) -> SavedNames {
        let names = lock(&self.0);
        let saved = names.iter().map(|(name, known)| {
            let Known {
                addresses,
                from_server,
                beyond,
                error,
                left_out: _,
            } = known;
            SavedName {
                name: name.name.to_string(),
                family: name.family,
                addresses: addresses.clone(),
                from_server: *from_server,
                beyond: *beyond,
                error: error.clone(),
            }
        });
        SavedNames(saved.collect())
    }

    pub fn load(saved: SavedNames) -> Self {
        let loaded = saved.0.into_iter().map(|saved| {
            let SavedName {
                name,
                family,
                addresses,
                from_server,
                beyond,
                error,
            } = saved;
            let name = Name {
                name: name.into(),
                family,
            };
            let known = Known {
                addresses,
                from_server,
                beyond,
                error,
                left_out: Vec::new(),
            };
            (name, known)
        });
        Self(Mutex::new(loaded.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name {
            name: "db.test".into(),
            family: Family::PreferIpv4,
        }
    }

    fn found(number: u8) -> Result<Found, LookupError> {
        Ok(Found::new(
            vec![[192, 0, 2, number].into()],
            None,
            true,
            None,
        ))
    }

    #[test]
    fn a_failure_is_news_once_and_leaves_the_addresses() {
        let names = Names::default();
        let failed = || Err(LookupError::System("no".to_owned()));
        let news = [failed(), failed(), found(1), found(1), found(2), failed()]
            .map(|found| names.note(&name(), &found));
        let fails = Some(News::Fails("no".to_owned()));
        let expected = [
            fails.clone(),
            None,
            Some(News::Works),
            None,
            Some(News::Moved),
            fails,
        ];
        assert_eq!(news, expected);
        let known = names.of(&name());
        assert_eq!(known.addresses, [IpAddr::from([192, 0, 2, 2])]);
        assert_eq!(known.error.as_deref(), Some("no"));
    }

    #[test]
    fn what_is_known_survives() {
        let names = Names::default();
        names.note(&name(), &found(1));
        names.note(&name(), &Err(LookupError::NoName));
        let json = serde_json::to_string(&names.save()).expect("plain values");
        let again = Names::load(serde_json::from_str(&json).expect("as it was written"));
        assert_eq!(again.all(), names.all());
        assert_eq!(again.save(), names.save());
    }
}
