//! What is wrong with a configuration: every problem with its place, the key and what would do.

use std::{fmt, mem::discriminant, path::PathBuf, sync::Arc};

use crate::{
    files::FileError,
    table::{Conflict, Origin},
};

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
    #[error("unknown key{}, allowed: {}", DidYouMean(*near), allowed.join(", "))]
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

/// Everything that is wrong with a configuration, in the order of the places.
#[derive(Debug, thiserror::Error)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// The problems; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl From<Vec<Problem>> for ConfigErrors {
    fn from(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(Problem::position);
        Self(problems)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl Problem {
    fn position(&self) -> (usize, usize) {
        let origin = match self {
            Self::Unreadable { .. } => return (0, 0),
            Self::Key { origin, .. } => origin,
            Self::Conflict { conflict, .. } => conflict.origin(),
        };
        match origin {
            Origin::File { line, column, .. } => (*line, *column),
            Origin::Argument(_) | Origin::Switchboard | Origin::BuiltIn => (0, 0),
        }
    }
}

/// One problem per pair of statements, however many ports they disagree on. Names used twice are
/// left out: who read them has said so already, and where the name stands.
pub(super) fn problems_of(conflicts: Vec<Conflict>) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for conflict in conflicts {
        if matches!(conflict, Conflict::Name { .. }) {
            continue;
        }
        let known = problems.iter_mut().find_map(|problem| match problem {
            Problem::Conflict {
                conflict: first,
                others,
            } if same_statements(first, &conflict) => Some(others),
            _ => None,
        });
        match known {
            Some(others) => *others += 1,
            None => problems.push(Problem::Conflict {
                conflict,
                others: 0,
            }),
        }
    }
    problems
}

fn same_statements(a: &Conflict, b: &Conflict) -> bool {
    discriminant(a) == discriminant(b) && statements(a) == statements(b)
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

struct DidYouMean(Option<&'static str>);

impl fmt::Display for DidYouMean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(near) => write!(f, " (did you mean \"{near}\"?)"),
            None => Ok(()),
        }
    }
}
