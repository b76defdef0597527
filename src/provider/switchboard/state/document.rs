//! The file: a line that says what it is, with version and checksum, and JSON.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::provider::switchboard::{
    JobId, Owner, RuleName,
    boot_instant::BootInstant,
    ports::{BlockedRecord, LeftRecord, PortsRecord},
    stable,
};

/// The first word of the file.
const MAGIC: &str = "tml-proxy-ports";

/// The version of the format.
const VERSION: u32 = 1;

/// Everything that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The run of the machine that its moments belong to.
    pub boot: Option<String>,
    /// The allocation.
    pub ports: PortsRecord,
    /// What is known of the owners in it, in the same order as [`PortsRecord::owned`].
    pub kept: Vec<Kept>,
}

/// What is kept of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Where its job was last.
    pub address: IpAddr,
    /// Since when it has its port.
    pub since: SystemTime,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not begin as it should.
    #[error("it is no state file")]
    Strange,
    /// It is of another version.
    #[error("it was written by another version (format {0}, known: {VERSION})")]
    Version(u32),
    /// What it says is not what was written.
    #[error("its checksum does not fit")]
    Checksum,
    /// Its content cannot be understood.
    #[error("its content makes no sense")]
    Content,
}

#[derive(Serialize, Deserialize)]
struct Body {
    boot: Option<String>,
    owned: Vec<Owned>,
    left: Vec<Left>,
    blocked: Vec<BlockedRecord>,
    waiting: Vec<Name>,
}

#[derive(Serialize, Deserialize)]
struct Name {
    job: String,
    rule: String,
}

#[derive(Serialize, Deserialize)]
struct Owned {
    port: u16,
    #[serde(flatten)]
    owner: Name,
    address: IpAddr,
    /// Seconds since 1970.
    since: u64,
}

#[derive(Serialize, Deserialize)]
struct Left {
    port: u16,
    #[serde(flatten)]
    owner: Name,
    at: BootInstant,
}

impl From<&Owner> for Name {
    fn from(owner: &Owner) -> Self {
        Self {
            job: owner.job.to_string(),
            rule: owner.rule.to_string(),
        }
    }
}

impl Name {
    fn owner(&self) -> Option<Owner> {
        Some(Owner {
            job: JobId::parse(&self.job)?,
            rule: RuleName::parse(&self.rule)?,
        })
    }
}

pub(super) fn write(record: &Record) -> Vec<u8> {
    let ports = &record.ports;
    let owned = ports.owned.iter().zip(&record.kept);
    let body = Body {
        boot: record.boot.clone(),
        owned: owned
            .map(|((port, owner), kept)| Owned {
                port: *port,
                owner: owner.into(),
                address: kept.address,
                since: seconds(kept.since),
            })
            .collect(),
        left: (ports.left.iter())
            .map(|left| Left {
                port: left.port,
                owner: (&left.owner).into(),
                at: left.at,
            })
            .collect(),
        blocked: ports.blocked.clone(),
        waiting: ports.waiting.iter().map(Name::from).collect(),
    };
    let body = serde_json::to_vec(&body).expect("text, numbers and lists are always JSON");
    let sum = stable::hash(&body);
    let mut bytes = format!("{MAGIC} {VERSION} {sum:016x}\n").into_bytes();
    bytes.extend(body);
    bytes
}

pub(super) fn read(bytes: &[u8]) -> Result<Record, Damage> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (head, body) = bytes.split_at(end.ok_or(Damage::Strange)?);
    let body = &body[1..];
    let head = std::str::from_utf8(head).map_err(|_| Damage::Strange)?;
    let words: Vec<&str> = head.split(' ').collect();
    let [MAGIC, version, sum] = words[..] else {
        return Err(Damage::Strange);
    };
    let version = version.parse().map_err(|_| Damage::Strange)?;
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    if u64::from_str_radix(sum, 16) != Ok(stable::hash(body)) {
        return Err(Damage::Checksum);
    }
    let body: Body = serde_json::from_slice(body).map_err(|_| Damage::Content)?;
    record(body).ok_or(Damage::Content)
}

fn record(body: Body) -> Option<Record> {
    let mut record = Record {
        boot: body.boot,
        ..Record::default()
    };
    for owned in body.owned {
        record.ports.owned.push((owned.port, owned.owner.owner()?));
        record.kept.push(Kept {
            address: owned.address,
            since: UNIX_EPOCH.checked_add(Duration::from_secs(owned.since))?,
        });
    }
    for left in body.left {
        record.ports.left.push(LeftRecord {
            port: left.port,
            owner: left.owner.owner()?,
            at: left.at,
        });
    }
    record.ports.blocked = body.blocked;
    for name in body.waiting {
        record.ports.waiting.push(name.owner()?);
    }
    Some(record)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
