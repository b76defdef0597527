//! Reads configurations of other proxies into a neutral [model](Import) and writes that as one of ours.
//!
//! A reader keeps what the source did: where its defaults differ from ours, the setting is written. What
//! has no counterpart is a [`Remark`] with file, line, reason and what to do instead; nothing is left out
//! without one. A front end of which something that forwards, or that keeps clients out, cannot be kept is
//! left to the other proxy as a whole. Nothing here opens a socket or changes anything; whether the result
//! is valid is judged by whoever asked, who knows our own configuration.

mod access;
mod address;
mod forward;
mod haproxy;
mod listen;
mod model;
mod nginx;
mod realm;
mod remark;
mod rinetd;
mod socat;
mod syslog;
mod write;
mod xinetd;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

pub use model::{Import, Left};
pub use remark::{Kind, Place, Remark};
pub use write::toml;

use crate::{files, text};

use listen::{Host, Listen};
use model::{Mapping, Value};

/// The port of our own admin address.
const ADMIN: u16 = 9422;

/// No file of another proxy is longer, in bytes.
const LONGEST: u64 = 8 << 20;

/// Finds the address of a name.
pub type LookUp = dyn Fn(&str) -> Option<IpAddr>;

/// What a reader asks of the machine it runs on.
pub struct Around<'a> {
    /// A variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The address of a name, if names are to be looked up.
    pub resolve: Option<&'a LookUp>,
}

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum From {
    /// HAProxy, `mode tcp`.
    Haproxy,
    /// nginx, `stream`.
    Nginx,
    /// rinetd.
    Rinetd,
    /// Services of xinetd with `redirect`.
    Xinetd,
    /// realm, in TOML.
    Realm,
    /// socat in units of systemd.
    Socat,
}

impl From {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Rinetd => "rinetd",
            Self::Xinetd => "xinetd",
            Self::Realm => "realm",
            Self::Socat => "socat",
        }
    }

    /// Reads `paths`, in this order.
    pub fn read(self, paths: &[PathBuf], around: &Around<'_>) -> Import {
        match self {
            Self::Haproxy => haproxy::read(paths, around),
            Self::Nginx => nginx::read(paths, around),
            Self::Rinetd => rinetd::read(paths, around),
            Self::Xinetd => xinetd::read(paths, around),
            Self::Realm => realm::read(paths, around),
            Self::Socat => socat::read(paths, around),
        }
    }
}

/// The text of a file, or the remark that there is none.
fn text_of(path: &Path) -> Result<String, Remark> {
    let place = Place::whole(path);
    let unreadable = |why: String| {
        Remark::invalid(place.clone(), "this file", why).instead("give a file that can be read")
    };
    let bytes = files::read(path, LONGEST).map_err(|error| unreadable(error.to_string()))?;
    // A byte that is no text can only stand in a comment: whatever else it is in is refused.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Text of others in a message: one line, not too long, and no columns.
fn quoted(words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    text::printable(&words.join(" "), 120)
}

/// What every reader ends with: names that differ, a port for each, everything said once.
fn tidy(import: &mut Import) {
    name_apart(&mut import.mappings);
    let own = Listen {
        host: Host::V4(Ipv4Addr::LOCALHOST),
        first: ADMIN,
        last: ADMIN,
    };
    let taken = import.mappings.iter().find_map(|mapping| {
        let mut listens = mapping.listen.value.iter();
        let listen = listens.find(|listen| listen.overlaps(&own))?;
        Some((mapping.place.clone(), listen.to_string()))
    });
    if let Some((place, listen)) = taken {
        let why = "the port is that of our own admin address, which is off therefore";
        let remark = Remark::different(place, &listen, why);
        import
            .remarks
            .push(remark.instead("give admin.listen another port"));
        import
            .section("admin")
            .set("listen", Value::text("off"), Vec::new());
    }
    once_each(&mut import.remarks);
}

/// Gives mappings that were made of one front end, or that are called alike, names of their own.
fn name_apart(mappings: &mut [Mapping]) {
    let mut known: Vec<String> = Vec::new();
    for mapping in mappings {
        let port = mapping
            .listen
            .value
            .first()
            .map_or(0, |listen| listen.first);
        let mut name: String = mapping.name.chars().take(64).collect();
        let mut more = 0;
        while known.contains(&name) {
            let end = match more {
                0 => format!("-{port}"),
                more => format!("-{port}-{more}"),
            };
            name = mapping.name.chars().take(64 - end.len()).collect();
            name.push_str(&end);
            more += 1;
        }
        known.push(name.clone());
        mapping.name = name;
    }
}

/// Says the same of the same place once, in the order of the files.
fn once_each(remarks: &mut Vec<Remark>) {
    remarks.sort_by(|a, b| {
        let key = |remark: &Remark| {
            (
                remark.place.clone(),
                remark.what.clone(),
                remark.why.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    remarks.dedup();
}
