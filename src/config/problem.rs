//! What is wrong with a configuration: every problem with its place, the key and what would do.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    mem::discriminant,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    files::FileError,
    table::{Conflict, Origin},
    text::{TOLD, clipped},
};

/// The longest a problem is told, in bytes. A list of all keys of a mapping has half of that.
const LONGEST: usize = 1500;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file as the operator named it.
        path: Arc<PathBuf>,
        /// Why.
        error: FileError,
    },
    /// A key, or the text around it, is not right.
    #[error("{origin}: {}{fault}", Prefix(key))]
    Key {
        /// Where.
        origin: Origin,
        /// The key as a path, such as `mapping "board-14": keepalive.idle`; empty for the file as
        /// a whole.
        key: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// Two statements contradict each other.
    #[error("{conflict}{}", Others(*others))]
    Conflict {
        /// The contradiction.
        conflict: Conflict,
        /// How many more the same two statements cause: ranges overlap port by port.
        others: usize,
    },
}

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its value.
    #[error("found {found}, allowed: {allowed}")]
    Value {
        /// The value, as written.
        found: String,
        /// What it could be instead.
        allowed: String,
    },
    /// It has to be there and is not.
    #[error("missing, needed: {needed}")]
    Missing {
        /// What its value could be.
        needed: String,
    },
    /// There is no such key here.
    #[error("unknown key, {}", KnownKeys { near: *near, allowed })]
    UnknownKey {
        /// The key that was probably meant.
        near: Option<&'static str>,
        /// The keys there are.
        allowed: Vec<&'static str>,
    },
    /// It does not go together with something else.
    #[error("{0}")]
    Contradiction(String),
    /// The text is not TOML.
    #[error("{0}")]
    Text(String),
}

/// Problems while they are found: of however many, those that come first in the file are kept, and
/// how many more there are.
#[derive(Debug, Default)]
pub struct Problems {
    told: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Whether a problem at the place of `origin` would be told, were it found now.
    pub(super) fn would_tell(&self, origin: &Origin) -> bool {
        let later = |known: &Problem| known.position() > position(origin);
        self.told.len() < TOLD || self.told.iter().any(later)
    }

    /// Takes note of a problem that is not told.
    pub(super) fn count(&mut self) {
        self.more += 1;
    }

    /// Takes note of a problem.
    pub fn push(&mut self, problem: Problem) {
        if self.told.len() == TOLD {
            self.more += 1;
            let places = self.told.iter().map(Problem::position).enumerate();
            let last = places.max_by_key(|(index, place)| (*place, *index));
            match last {
                Some((index, place)) if problem.position() < place => {
                    self.told.remove(index);
                }
                _ => return,
            }
        }
        self.told.push(problem);
    }

    /// Takes note of those of another file.
    pub(super) fn append(&mut self, other: Self) {
        self.more += other.more;
        self.extend(other.told);
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Those that are told, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.told.iter()
    }
}

impl Extend<Problem> for Problems {
    fn extend<T: IntoIterator<Item = Problem>>(&mut self, problems: T) {
        problems.into_iter().for_each(|problem| self.push(problem));
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<T: IntoIterator<Item = Problem>>(problems: T) -> Self {
        let mut all = Self::default();
        all.extend(problems);
        all
    }
}

/// What is wrong with a configuration, in the order of the places: the first problems, and how many
/// more there are.
#[derive(Debug, thiserror::Error)]
pub struct ConfigErrors(Problems);

impl ConfigErrors {
    /// The first problems; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.0.told
    }

    /// How many more there are.
    pub fn more(&self) -> usize {
        self.0.more
    }
}

impl From<Problems> for ConfigErrors {
    fn from(mut problems: Problems) -> Self {
        problems
            .told
            .sort_by(|one, other| one.position().cmp(&other.position()));
        Self(problems)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&clipped(problem.to_string(), LONGEST))?;
        }
        match self.0.more {
            0 => Ok(()),
            1 => f.write_str("\nand 1 more problem"),
            more => write!(f, "\nand {more} more problems"),
        }
    }
}

impl Problem {
    fn position(&self) -> Position<'_> {
        let origin = match self {
            Self::Unreadable { path, .. } => return (path, 0, 0),
            Self::Key { origin, .. } => origin,
            Self::Conflict { conflict, .. } => conflict.origin(),
        };
        position(origin)
    }
}

/// Where something stands: the file, the line, the column.
type Position<'p> = (&'p Path, usize, usize);

fn position(origin: &Origin) -> Position<'_> {
    match origin {
        Origin::File { path, line, column } => (path, *line, *column),
        Origin::Argument(_) | Origin::Switchboard | Origin::BuiltIn => (Path::new(""), 0, 0),
    }
}

/// One problem per pair of statements, however many ports they disagree on. Names used twice are
/// left out: who read them has said so already, and where the name stands.
pub(super) fn problems_of(conflicts: Vec<Conflict>) -> Vec<Problem> {
    let mut found: Vec<(Conflict, usize)> = Vec::new();
    let mut known = HashMap::<_, usize>::new();
    for conflict in conflicts {
        if matches!(conflict, Conflict::Name { .. }) {
            continue;
        }
        let (one, other) = statements(&conflict);
        match known.entry((discriminant(&conflict), one.clone(), other.clone())) {
            Entry::Occupied(place) => found[*place.get()].1 += 1,
            Entry::Vacant(place) => {
                place.insert(found.len());
                found.push((conflict, 0));
            }
        }
    }
    let found = found.into_iter();
    found
        .map(|(conflict, others)| Problem::Conflict { conflict, others })
        .collect()
}

/// Where the two statements of a conflict stand.
fn statements(conflict: &Conflict) -> (&Origin, &Origin) {
    match conflict {
        Conflict::Name { first, second, .. } | Conflict::Listen { first, second, .. } => {
            (first, second)
        }
        Conflict::Loop {
            listener_at, at, ..
        } => (listener_at, at),
    }
}

struct Prefix<'a>(&'a str);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            key => write!(f, "{key}: "),
        }
    }
}

struct Others(usize);

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (and 1 more port)"),
            n => write!(f, " (and {n} more ports)"),
        }
    }
}

/// The key that was probably meant, or else all there are.
struct KnownKeys<'a> {
    near: Option<&'static str>,
    allowed: &'a [&'static str],
}

impl fmt::Display for KnownKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.near {
            Some(near) => write!(f, "did you mean \"{near}\"?"),
            None => write!(f, "allowed: {}", self.allowed.join(", ")),
        }
    }
}
