//! Who may connect: allowed and denied source prefixes, the longest match deciding.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::{PrefixFile, prefix_file::PrefixFileSaver};
use crate::{
    handover::LoadError,
    setting::{As, Found, Json, Kind, List, PathFromRoot, Prefix, Refusal},
};

/// Source prefixes that may or may not connect.
///
/// The longest prefix that contains the source decides; of two that are equally long, one of which is in
/// a file, the one that denies. A source that no prefix contains may connect unless something is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SourceRules {
    allow: Prefixes,
    deny: Prefixes,
}

/// Prefixes that stand in the configuration and in files of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Prefixes {
    own: Vec<IpNet>,
    files: Vec<Arc<PrefixFile>>,
}

/// One prefix both allowed and denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is in both allow and deny")]
pub struct RuleConflict(pub IpNet);

impl Prefixes {
    /// These prefixes, without their host bits, and those of the files.
    pub fn new(own: impl IntoIterator<Item = IpNet>, files: Vec<Arc<PrefixFile>>) -> Self {
        let mut own: Vec<_> = own.into_iter().map(|net| net.trunc()).collect();
        own.sort();
        own.dedup();
        Self { own, files }
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.files.is_empty()
    }

    /// The length of the longest that contains an address.
    fn longest(&self, address: IpAddr) -> Option<u8> {
        let own = self.own.iter().filter(|net| net.contains(&address));
        let of_files = self.files.iter().filter_map(|file| file.longest(address));
        own.map(IpNet::prefix_len).chain(of_files).max()
    }

    fn entries(&self) -> Vec<Entry> {
        let files = self.files.iter();
        let files = files.map(|file| Entry::File(file.path().to_owned()));
        files
            .chain(self.own.iter().copied().map(Entry::Prefix))
            .collect()
    }
}

impl SourceRules {
    /// Rules from what is allowed and what is denied.
    ///
    /// # Errors
    ///
    /// A prefix that stands in both, because then no match is the longer.
    pub fn new(allow: Prefixes, deny: Prefixes) -> Result<Self, RuleConflict> {
        match allow
            .own
            .iter()
            .find(|net| deny.own.binary_search(net).is_ok())
        {
            Some(both) => Err(RuleConflict(*both)),
            None => Ok(Self { allow, deny }),
        }
    }

    /// Whether `source` may connect. IPv4-mapped addresses are judged as IPv4.
    pub fn permits(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        match (self.allow.longest(source), self.deny.longest(source)) {
            (Some(allowed), Some(denied)) => allowed > denied,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => self.allow.is_empty(),
        }
    }

    /// The rules as a file has them.
    pub fn lists(&self) -> SourceLists {
        SourceLists {
            allow: self.allow.entries(),
            deny: self.deny.entries(),
        }
    }
}

/// Rules as a file has them.
#[derive(Debug, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SourceLists {
    /// Who may connect: prefixes, and files with one on each line.
    #[serde(with = "As::<List<Entry>>")]
    pub allow: Vec<Entry>,
    /// Who may not.
    #[serde(with = "As::<List<Entry>>")]
    pub deny: Vec<Entry>,
}

/// A prefix, or the path of a file with prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Prefix(IpNet),
    File(PathBuf),
}

/// An entry that is a table.
#[derive(Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OfFile {
    /// The file with the prefixes.
    #[serde(with = "As::<PathFromRoot>")]
    file: PathBuf,
}

impl Kind for Entry {
    type Value = Self;

    const TABLES: bool = true;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        let or_file = |refusal: Refusal| refusal.or("{ file = \"/etc/tml-proxy/office.txt\" }");
        Prefix::read(found).map(Self::Prefix).map_err(or_file)
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self, D::Error> {
        OfFile::deserialize(table).map(|OfFile { file }| Self::File(file))
    }

    fn write(value: &Self) -> Json {
        match value {
            Self::Prefix(net) => Prefix::write(net),
            Self::File(file) => serde_json::json!(OfFile { file: file.clone() }),
        }
    }

    #[cfg(test)]
    fn schema() -> Json {
        use crate::setting::schema::{or, table};
        or(Prefix::schema(), table::<OfFile>())
    }
}

/// [`SourceRules`] as they are handed over, the files by their places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SavedSources {
    #[serde(with = "As::<List<Prefix>>")]
    allow: Vec<IpNet>,
    #[serde(with = "As::<List<Prefix>>")]
    deny: Vec<IpNet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow_files: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny_files: Vec<u32>,
}

impl SavedSources {
    pub fn new(rules: &SourceRules, files: &mut PrefixFileSaver) -> Self {
        let SourceRules { allow, deny } = rules;
        let mut places = |of: &Prefixes| of.files.iter().map(|file| files.save(file)).collect();
        Self {
            allow_files: places(allow),
            deny_files: places(deny),
            allow: allow.own.clone(),
            deny: deny.own.clone(),
        }
    }

    /// # Errors
    ///
    /// There is no file at a place.
    pub fn load(self, files: &[Arc<PrefixFile>]) -> Result<SourceRules, LoadError> {
        let at = |place: u32| {
            let file = files.get(place as usize).cloned();
            file.ok_or_else(|| {
                let why = format!("number {place} of {}", files.len());
                LoadError::value("file with prefixes", why)
            })
        };
        let all = |places: Vec<u32>| places.into_iter().map(at).collect::<Result<Vec<_>, _>>();
        let (allow_files, deny_files) = (all(self.allow_files)?, all(self.deny_files)?);
        let allow = Prefixes::new(self.allow, allow_files);
        let deny = Prefixes::new(self.deny, deny_files);
        let why = |conflict: RuleConflict| LoadError::value("sources", conflict.to_string());
        SourceRules::new(allow, deny).map_err(why)
    }
}
