//! What a proxy tells of itself: where its jobs and the mappings of its file can be reached.
//!
//! Others wrote it, perhaps another version, so that each entry is read by itself and left out if it is
//! not what it should be.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::provider::switchboard::{JobId, PublicHost, RuleName};

/// Which entry it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A port of a job, by its rule.
    Job(JobId, RuleName),
    /// A port of a mapping of the file, or the first of a range of them.
    Mapping(String, u16),
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        let (name, last) = rest.rsplit_once('/')?;
        match kind {
            "job" => Some(Self::Job(JobId::parse(name)?, RuleName::parse(last)?)),
            "mapping" => is_plain(name, 128)
                .then(|| Some(Self::Mapping(name.to_owned(), last.parse().ok()?)))
                .flatten(),
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job, rule) => write!(f, "job/{job}/{rule}"),
            Self::Mapping(name, port) => write!(f, "mapping/{name}/{port}"),
        }
    }
}

/// Where it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name to connect to.
    pub host: String,
    /// The port to connect to, unless it waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The last of a range of ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u16>,
    /// Where its sessions go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `open`, `paused`, `drained`, `waiting` or `closed`.
    pub state: String,
    /// Why it is not open, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it has its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// The longest target, in bytes: a mapping may have hundreds of them.
const LONGEST_TARGET: usize = 300;

/// What is told of a target: its beginning, if all of it is too long.
pub fn target_told(target: &str) -> String {
    const MORE: &str = " ...";
    let plain: String = target.chars().filter(|c| matches!(c, ' '..='~')).collect();
    match plain.len() {
        ..=LONGEST_TARGET => plain,
        _ => format!("{}{MORE}", &plain[..LONGEST_TARGET - MORE.len()]),
    }
}

impl Entry {
    fn is_sound(&self) -> bool {
        let Self {
            host,
            port,
            last,
            target,
            state,
            reason,
            since,
        } = self;
        let words = [Some(state), reason.as_ref(), since.as_ref()];
        PublicHost::parse(host).is_some()
            && *port != Some(0)
            && last.is_none_or(|last| port.is_some_and(|port| port < last))
            && words.into_iter().flatten().all(|word| is_plain(word, 40))
            && target
                .as_ref()
                .is_none_or(|target| is_plain(target, LONGEST_TARGET))
    }
}

/// Whether it can be shown and is not longer than that.
fn is_plain(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Everything that a proxy tells.
pub type Entries = BTreeMap<Key, Entry>;

/// Entries as the database has them; none for what is gone.
pub(super) type Stored = BTreeMap<String, Option<Box<RawValue>>>;

/// Puts into `entries` what is sound of `stored`.
pub(super) fn take(entries: &mut Entries, stored: &Stored) {
    for (key, entry) in stored {
        let Some(key) = Key::parse(key) else { continue };
        let entry = entry
            .as_ref()
            .and_then(|entry| serde_json::from_str::<Entry>(entry.get()).ok());
        match entry.filter(Entry::is_sound) {
            Some(entry) => _ = entries.insert(key, entry),
            None => _ = entries.remove(&key),
        }
    }
}

/// What leads from `before` to `after`: entries by key, none for what is gone.
pub(super) fn changes<'a>(
    before: &Entries,
    after: &'a Entries,
) -> BTreeMap<String, Option<&'a Entry>> {
    let is_new = |(key, entry): &(&Key, &Entry)| before.get(key) != Some(entry);
    let new = after.iter().filter(is_new);
    let new = new.map(|(key, entry)| (key.to_string(), Some(entry)));
    let gone = before.keys().filter(|key| !after.contains_key(key));
    new.chain(gone.map(|key| (key.to_string(), None))).collect()
}

/// What is read of entries in the database, as a proxy would tell it.
///
/// # Errors
///
/// They are no entries by their keys.
pub fn reread_entries(stored: &[u8]) -> Result<String, serde_json::Error> {
    let mut entries = Entries::new();
    take(&mut entries, &serde_json::from_slice(stored)?);
    serde_json::to_string(&changes(&Entries::new(), &entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "00000001-0000-4000-8000-000000000000";

    fn stored(entries: &[(&str, &str)]) -> Stored {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("JSON");
        let one =
            |(key, text): &(&str, &str)| (key.to_string(), (*text != "null").then(|| raw(text)));
        entries.iter().map(one).collect()
    }

    #[test]
    fn what_is_not_sound_is_left_out_and_spoils_nothing_else() {
        let good = r#"{"host":"p.example.org","port":1,"state":"open","unheard_of":[1]}"#;
        let key = |rule: &str| format!("job/{JOB}/{rule}");
        let evil = [
            r#"{"host":"-oProxyCommand=x","port":1,"state":"open"}"#,
            r#"{"host":"p","port":0,"state":"open"}"#,
            r#"{"host":"p","port":1,"state":"op\u001ben"}"#,
            r#"{"host":"p","port":"x","state":"open"}"#,
            "7",
        ];
        let keys: Vec<_> = (0..evil.len()).map(|at| key(&format!("r{at}"))).collect();
        let mut all: Vec<(&str, &str)> = keys.iter().map(String::as_str).zip(evil).collect();
        let ssh = key("ssh");
        all.extend([
            (&*ssh, good),
            ("job/x/ssh", good),
            ("x", good),
            ("mapping/web/80", good),
        ]);
        let mut entries = Entries::new();
        take(&mut entries, &stored(&all));
        let found: Vec<_> = entries.keys().map(ToString::to_string).collect();
        assert_eq!(found, [ssh.clone(), "mapping/web/80".to_owned()]);
        take(&mut entries, &stored(&[(&ssh, "null")]));
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn a_mapping_with_hundreds_of_targets_is_told_of() {
        let targets: Vec<_> = (0..256).map(|n| format!("[2001:db8::{n}]:22")).collect();
        let told = target_told(&targets.join(", "));
        assert!(
            told.ends_with(" ...") && is_plain(&told, LONGEST_TARGET),
            "{told}"
        );
        assert_eq!(target_told("192.0.2.1:22-31"), "192.0.2.1:22-31");
    }

    #[test]
    fn changes_lead_from_one_set_to_the_other() {
        let entry = |port| Entry {
            host: "p".to_owned(),
            port: Some(port),
            last: None,
            target: None,
            state: "open".to_owned(),
            reason: None,
            since: None,
        };
        let set = |ports: &[(&str, u16)]| -> Entries {
            let one =
                |(name, port): &(&str, u16)| (Key::Mapping((*name).to_owned(), 1), entry(*port));
            ports.iter().map(one).collect()
        };
        let before = set(&[("a", 1), ("b", 2), ("c", 3)]);
        let after = set(&[("a", 1), ("b", 4), ("d", 5)]);
        let changes = changes(&before, &after);
        let keys: Vec<_> = changes
            .iter()
            .map(|(key, entry)| (&**key, entry.is_some()))
            .collect();
        assert_eq!(
            keys,
            [
                ("mapping/b/1", true),
                ("mapping/c/1", false),
                ("mapping/d/1", true)
            ]
        );
        let text = serde_json::to_string(&changes).expect("JSON");
        let mut reached = before;
        take(&mut reached, &serde_json::from_str(&text).expect("JSON"));
        assert_eq!(reached, after);
    }
}
