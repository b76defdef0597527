//! Parsed TOML as serde reads it, with everything that is wrong noted in its place.
//!
//! A [`Block`] is a table of the file that is read into one or more structs. Serde gives up at the
//! first value that a struct does not take; that is noted, and the struct is read again without the
//! key, until nothing is left that is wrong. So every key of a block is reported, and what could be
//! read is there for further checks. A key that no struct asked for is unknown.

mod value;

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

pub(super) use value::quoted;

use super::{problem::Fault, report::Report, similar::nearest};
use crate::table::Origin;
use value::{Error, Path, written, written_key};

type Node<'a> = Spanned<DeValue<'a>>;

/// A key whose table is completed by that of the block below, as a table of its own.
const COMPLETED: &str = "keepalive";

/// Keys of an earlier version with the names that they have now. A field has the former as an alias;
/// it is read for one version and said to be outdated.
const FORMER: &[(&str, &str)] = &[("penalty", "ban")];

/// A table that has what another leaves out, and the report of its file.
#[derive(Clone, Copy)]
struct Below<'a> {
    report: &'a Report<'a>,
    table: &'a DeTable<'a>,
}

impl Below<'_> {
    /// What completes the table under `key`.
    fn completes(self, key: &str) -> Option<Self> {
        let node = (key == COMPLETED).then(|| self.table.get(key))?;
        match node?.get_ref() {
            DeValue::Table(table) => Some(Self { table, ..self }),
            _ => None,
        }
    }
}

/// A table of the file.
pub(super) struct Block<'a> {
    report: &'a Report<'a>,
    /// What an operator calls it, up to its keys.
    name: String,
    offset: usize,
    table: &'a DeTable<'a>,
    /// The table that has what this one leaves out.
    below: Option<Below<'a>>,
    /// The keys that somebody asked for.
    known: RefCell<Vec<&'static str>>,
    /// The keys of the structs that were read.
    structs: RefCell<Vec<&'static [&'static str]>>,
}

impl<'a> Block<'a> {
    /// The outermost table.
    pub fn root(report: &'a Report<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            report,
            name: String::new(),
            offset: 0,
            table,
            below: None,
            known: RefCell::default(),
            structs: RefCell::default(),
        }
    }

    /// Takes note that `key` is known.
    pub fn ask(&self, key: &'static str) {
        self.known.borrow_mut().push(key);
    }

    /// The table under `key`, if there is one.
    pub fn section(&self, key: &'static str) -> Option<Block<'a>> {
        self.ask(key);
        let node = self.table.get(key)?;
        self.table(node, format!("{key}."))
    }

    /// The tables in the list under `key`, in its order; `allowed` says what the list is.
    pub fn tables(
        &self,
        key: &'static str,
        allowed: &str,
    ) -> impl Iterator<Item = &'a Node<'a>> + use<'a> {
        self.ask(key);
        let items = match self.table.get(key).map(Spanned::get_ref) {
            Some(DeValue::Array(items)) => items.iter().as_slice(),
            Some(_) => {
                self.refuse(&[key], allowed);
                &[]
            }
            None => &[],
        };
        items.iter()
    }

    /// `node` as a table whose keys an operator finds behind `name`.
    pub fn table(&self, node: &'a Node<'a>, name: String) -> Option<Block<'a>> {
        let DeValue::Table(table) = node.get_ref() else {
            let name = name.trim_end_matches([':', '.', ' ']);
            let fault = Fault::Value {
                found: written(node.get_ref()),
                allowed: "a table".to_owned(),
            };
            self.report.add(node.span().start, name, fault);
            return None;
        };
        Some(Block {
            report: self.report,
            name,
            offset: node.span().start,
            table,
            below: None,
            known: RefCell::default(),
            structs: RefCell::default(),
        })
    }

    /// The same, with what it leaves out as in `below`.
    pub fn over(self, below: Option<&Block<'a>>) -> Self {
        Self {
            below: below.map(|&Block { report, table, .. }| Below { report, table }),
            ..self
        }
    }

    /// Whether there are no keys but these.
    pub fn has_only(&self, keys: &[&str]) -> bool {
        let known = |key: &str| keys.contains(&key);
        self.table.iter().all(|(key, _)| known(key.get_ref()))
    }

    /// What stands under `key`.
    pub fn value(&self, key: &str) -> Option<&'a DeValue<'a>> {
        self.table.get(key).map(Spanned::get_ref)
    }

    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the value of `key` stands; at its default if it does not.
    pub fn origin(&self, key: &str) -> Origin {
        let offset = self.table.get(key).map(|node| node.span().start);
        offset.map_or(Origin::BuiltIn, |offset| self.report.origin(offset))
    }

    /// The struct in this table; nothing if it lacks a key that has no default.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        loop {
            match T::deserialize(self) {
                Ok(value) => return Some(value),
                // One key less each time.
                Err(Error::Noted) => {}
                Err(Error::Missing(key)) => {
                    self.require(&[key]);
                    return None;
                }
                Err(error) => {
                    let path = Path::Block(&self.name);
                    error.note(self.report, self.offset, &path, "a table".to_owned());
                    return None;
                }
            }
        }
    }

    /// Each of `keys` has to be there.
    pub fn require(&self, keys: &[&'static str]) {
        for key in keys.iter().filter(|key| !self.table.contains_key(**key)) {
            self.missing(key);
        }
    }

    fn missing(&self, key: &'static str) {
        if self.report.once(self.offset, key) {
            let path = Path::Block(&self.name).key(key).to_string();
            let needed = needed(&path, key).to_owned();
            self.report
                .add(self.offset, path, Fault::Missing { needed });
        }
    }

    /// Notes that the value under a path of keys is not what is allowed.
    pub fn refuse(&self, keys: &[&str], allowed: &str) {
        let found = self.node(keys).map(|node| written(node.get_ref()));
        self.fault(
            keys,
            Fault::Value {
                found: found.unwrap_or_default(),
                allowed: allowed.to_owned(),
            },
        );
    }

    /// Notes that the value under a path of keys does not go together with something else.
    pub fn contradicts(&self, keys: &[&str], why: impl Into<String>) {
        self.fault(keys, Fault::Contradiction(why.into()));
    }

    /// Notes that an item of a list does not go together with something else.
    pub fn item_contradicts(&self, key: &str, index: usize, why: String) {
        let items = self.value(key).and_then(DeValue::as_array);
        let item = items.and_then(|items| items.get(index));
        let offset = item.map_or(self.offset, |item| item.span().start);
        let path = format!("{}{key} (item {})", self.name, index + 1);
        self.report.add(offset, path, Fault::Contradiction(why));
    }

    fn fault(&self, keys: &[&str], fault: Fault) {
        let offset = self
            .node(keys)
            .map_or(self.offset, |node| node.span().start);
        let path: Vec<_> = keys.iter().map(|key| written_key(key)).collect();
        let path = format!("{}{}", self.name, path.join("."));
        self.report.add(offset, path, fault);
    }

    fn node(&self, keys: &[&str]) -> Option<&'a Node<'a>> {
        let (first, rest) = keys.split_first()?;
        let step = |node: &'a Node<'a>, key: &&str| match node.get_ref() {
            DeValue::Table(table) => table.get(*key),
            _ => None,
        };
        rest.iter().try_fold(self.table.get(*first)?, step)
    }

    /// Every key that nobody asked for is a problem.
    pub fn finish(self) {
        let structs = self.structs.borrow();
        let known = self.known.borrow();
        let known: Vec<_> = known
            .iter()
            .chain(structs.iter().copied().flatten())
            .collect();
        for &(former, now) in FORMER {
            if known.contains(&&former) && self.table.contains_key(former) {
                let at = self.origin(former);
                let (former, now) = (
                    format!("{}{former}", self.name),
                    format!("{}{now}", self.name),
                );
                self.report.outdated(format!(
                    "{at}: {former} is called {now} now; the former name is read in this version only"
                ));
            }
        }
        unknown_keys(self.report, self.table, &Path::Block(&self.name), &known);
    }
}

/// Notes every key of `table` that is not `known`.
fn unknown_keys(
    report: &Report<'_>,
    table: &DeTable<'_>,
    path: &Path<'_>,
    known: &[&&'static str],
) {
    let keys = table.iter().map(|(key, _)| key);
    let unknown = keys.filter(|key| !known.contains(&&key.get_ref().as_ref()));
    let mut unknown: Vec<_> = unknown
        .map(|key| (key.span().start, key.get_ref().as_ref()))
        .collect();
    // What will not be told is known at once, if those that come first are seen first.
    unknown.sort_unstable();
    let is_former = |key: &str| FORMER.iter().any(|(former, _)| *former == key);
    let allowed = || known.iter().map(|key| **key).filter(|key| !is_former(key));
    for (offset, name) in unknown {
        report.add_lazily(offset, || {
            let allowed: Vec<_> = allowed().collect();
            let fault = Fault::UnknownKey {
                near: nearest(name, &allowed),
                allowed,
            };
            (path.key(name).to_string(), fault)
        });
    }
}

/// What to say of a key that has to be there.
fn needed(path: &str, key: &str) -> &'static str {
    match key {
        "version" => "1",
        "name" if path.starts_with("switchboard") => {
            "1 to 32 lower-case letters, digits and hyphens"
        }
        "name" | "region" if path.starts_with("fleet") => {
            "1 to 63 lower-case letters, digits, hyphens and dots"
        }
        "name" => super::mapping::NAME,
        "listen" => super::address::LISTEN,
        "target" | "address" => super::address::TARGET,
        "url" => "an http or https URL such as \"https://switchboard.example.org\"",
        "database" => {
            "the URL of a PostgreSQL such as \"postgresql://tml_proxy@db.example.org/tml\""
        }
        "token_file" => "the path of a file with the token",
        "public_host" => "the host name or address that users connect to",
        "ports" => "a range of ports such as \"40000-49999\", or a list of them",
        "targets" => "{ allow = [\"fd00::/8\"] } with the prefixes that jobs' addresses are in",
        "allow" => "the prefixes that jobs' addresses are in",
        "expose" => "tables, each headed [[switchboard.expose]]",
        "port" => "the port of the job",
        "rate" if path.contains("bandwidth") => {
            "how much in a second, or in \"per\", such as \"10MiB\""
        }
        "rate" => "how much in a second, or in \"per\", such as 20",
        "drain" => "the time that sessions have left, such as \"30s\"",
        "after" => "how many refusals it takes",
        "within" => "the time they have to fall into, such as \"1m\"",
        "lasts" => "how long the source is refused, such as \"10m\"",
        _ => "a value",
    }
}
