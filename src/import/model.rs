//! What a configuration of another proxy comes to: the same for all of them.

use std::{fmt, net::IpAddr};

use serde::Serialize;

use super::{Place, Remark, listen::Listen};

/// Everything that was read.
#[derive(Debug, Default)]
pub struct Import {
    /// Comments on the file as a whole.
    pub comments: Vec<String>,
    /// Settings of the process: section, and what stands in it.
    pub sections: Vec<(&'static str, Settings)>,
    pub mappings: Vec<Mapping>,
    pub remarks: Vec<Remark>,
    /// What stays with the other proxy.
    pub left: Vec<Left>,
}

/// A front end that stays with the other proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    #[serde(flatten)]
    pub place: Place,
    /// What it is called there.
    pub what: String,
    /// Where it listens, as it is written there.
    pub listen: Vec<String>,
}

/// A mapping to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub place: Place,
    pub name: String,
    pub comments: Vec<String>,
    pub listen: Noted<Vec<Listen>>,
    /// Where it leads: one or several.
    pub targets: Vec<Target>,
    pub settings: Settings,
}

/// One of the targets of a mapping: a host and the first port, and what counts for it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub host: TargetHost,
    pub port: u16,
    pub comments: Vec<String>,
    pub settings: Settings,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetHost {
    Ip(IpAddr),
    /// Every address that it has.
    Name(String),
}

/// Something, and the comments beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted<T> {
    pub value: T,
    pub comments: Vec<String>,
}

/// A value of our configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
    List(Vec<String>),
    /// A list of what is in a file.
    File(String),
    /// Keys and values in braces.
    Table(Vec<(&'static str, Value)>),
}

/// Keys with their values, in the order in which they are to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(Vec<(&'static str, Noted<Value>)>);

impl Settings {
    /// Gives `key` a value, instead of the one it may have.
    pub fn set(&mut self, key: &'static str, value: Value, comments: Vec<String>) {
        let setting = Noted { value, comments };
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = setting,
            None => self.0.push((key, setting)),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Noted<Value>> {
        let setting = self.0.iter().find(|(known, _)| *known == key);
        setting.map(|(_, setting)| setting)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Noted<Value>> {
        let setting = self.0.iter_mut().find(|(known, _)| *known == key);
        setting.map(|(_, setting)| setting)
    }

    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| *known != key);
    }

    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, Noted<Value>)> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Import {
    /// The settings of a section, which is made if there is none yet.
    pub fn section(&mut self, name: &'static str) -> &mut Settings {
        let known = self.sections.iter().position(|(known, _)| *known == name);
        let at = known.unwrap_or_else(|| {
            self.sections.push((name, Settings::default()));
            self.sections.len() - 1
        });
        &mut self.sections[at].1
    }
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

impl TargetHost {
    /// The host, unless it is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name(_) => None,
        }
    }
}

/// As it stands before a port.
impl fmt::Display for TargetHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}
