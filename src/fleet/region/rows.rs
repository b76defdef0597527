//! Ports of a region as the database has them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{
    provider::switchboard::{
        HostId, JobId, Owner, RuleName,
        region::{PortChange, PortOwner, PortRefused, RefusedWhy, RegionPort},
        reserve::Use,
    },
    shared_map::SharedMap,
    units::millis,
};

/// What is said of a port.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    port: u16,
    generation: u64,
    owner: Option<String>,
    target: Option<String>,
    #[serde(default)]
    since_ms: u64,
    left_by: Option<String>,
    holder: Option<String>,
    #[serde(default)]
    is_blocked: bool,
    #[serde(default)]
    is_resting: bool,
    reserved: Option<Reserved>,
}

/// Who has a port beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reserved {
    /// This proxy.
    Own,
    #[serde(other)]
    Other,
}

fn owner(text: &str, holder: Option<&str>) -> Option<Owner> {
    let (job, rule) = text.split_once('/')?;
    let owner = Owner {
        job: JobId::parse(job)?,
        rule: RuleName::parse(rule)?,
        host: match holder {
            None => None,
            Some(text) => {
                let (host, _) = text.strip_prefix("host/")?.split_once('/')?;
                Some(HostId::parse(host)?)
            }
        },
    };
    let is_same = owner.holder().map(|holder| holder.to_string()).as_deref() == holder;
    is_same.then_some(owner)
}

fn holder(owner: &Owner) -> Option<String> {
    owner.holder().map(|holder| holder.to_string())
}

impl Row {
    /// What there is to know of the port; none if it is free. One that cannot be read is nobody's to have.
    fn known(&self) -> Option<RegionPort> {
        let owner = |text: &str| owner(text, self.holder.as_deref());
        match (&self.owner, &self.left_by) {
            _ if self.is_blocked => Some(RegionPort::Blocked),
            _ if self.reserved.is_some() => Some(RegionPort::Reserved),
            (Some(text), _) => {
                let target = self.target.as_ref().and_then(|target| target.parse().ok());
                let (Some(owner), Some(target)) = (owner(text), target) else {
                    return Some(RegionPort::Blocked);
                };
                let since = UNIX_EPOCH + Duration::from_millis(self.since_ms);
                let generation = self.generation;
                Some(RegionPort::Owned {
                    owner,
                    target,
                    since,
                    generation,
                })
            }
            (None, Some(text)) => {
                let left = owner(text).map(|owner| RegionPort::Left { owner });
                Some(left.unwrap_or(RegionPort::Blocked))
            }
            (None, None) => self.is_resting.then_some(RegionPort::Cooling),
        }
    }

    /// The port, and since when this proxy has it beforehand, if it does.
    pub fn reserved(&self) -> (u16, Option<u64>) {
        let is_own = self.reserved == Some(Reserved::Own);
        (self.port, is_own.then_some(self.generation))
    }
}

/// Puts what is said of ports into what is known.
pub(super) fn take(ports: &mut SharedMap<u16, RegionPort>, rows: &[Row]) {
    for row in rows {
        match row.known() {
            Some(known) => _ = ports.insert(row.port, known),
            None => _ = ports.remove(&row.port),
        }
    }
}

/// A change, as it is written.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    port: u16,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl From<&PortChange> for Change {
    fn from(change: &PortChange) -> Self {
        let (owner, target) = match &change.to {
            PortOwner::Owned { owner, target } => (owner, Some(target.to_string())),
            PortOwner::Released { owner } => (owner, None),
        };
        Self {
            port: change.port,
            owner: owner.to_string(),
            holder: holder(owner),
            target,
        }
    }
}

/// A port as this proxy has it: what it serves, or has beforehand if there is no owner.
#[derive(Debug, Default, Serialize)]
pub(super) struct Asserted {
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    /// Whether it could not be bound, and is to be left alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_blocked: bool,
}

fn since_ms(since: &SystemTime) -> Option<u64> {
    let since = since.duration_since(UNIX_EPOCH).ok()?;
    Some(millis(since))
}

/// Ports that this proxy has beforehand, each with the generation since when.
pub(super) fn asserted_reserve(ports: &[(u16, u64)]) -> impl Iterator<Item = Asserted> {
    ports.iter().map(|(port, since)| Asserted {
        port: *port,
        generation: Some(*since),
        ..Asserted::default()
    })
}

/// What has become of ports that this proxy had beforehand.
pub(super) fn used(ports: &[(u16, Use)]) -> Vec<Asserted> {
    let used = ports.iter().map(|(port, what)| {
        let owner = what.owner();
        let (target, since) = match what {
            Use::Given { target, since, .. } => (Some(target.to_string()), since_ms(since)),
            _ => (None, None),
        };
        Asserted {
            port: *port,
            owner: owner.map(Owner::to_string),
            holder: owner.and_then(holder),
            target,
            since_ms: since,
            is_blocked: matches!(
                what,
                Use::Unfit {
                    is_blocked: true,
                    ..
                }
            ),
            ..Asserted::default()
        }
    });
    used.collect()
}

/// Everything that has an owner.
pub(super) fn asserted(ports: &SharedMap<u16, RegionPort>) -> Vec<Asserted> {
    let owned = ports.iter().filter_map(|(port, known)| match known {
        RegionPort::Owned {
            owner,
            target,
            since,
            generation,
        } => Some(Asserted {
            port: *port,
            owner: Some(owner.to_string()),
            holder: holder(owner),
            target: Some(target.to_string()),
            since_ms: since_ms(since).or(Some(0)),
            generation: Some(*generation),
            is_blocked: false,
        }),
        _ => None,
    });
    owned.collect()
}

/// What is read of rows in the database, as a proxy would assert it.
///
/// # Errors
///
/// They are no rows.
pub fn reread_ports(rows: &[u8]) -> Result<String, serde_json::Error> {
    let rows: Vec<Row> = serde_json::from_slice(rows)?;
    let mut ports = SharedMap::default();
    take(&mut ports, &rows);
    serde_json::to_string(&asserted(&ports))
}

/// A change that was refused, or what was asserted in vain.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    /// The port.
    pub port: u16,
    /// Who was to have it; none if it was to be had beforehand.
    pub owner: Option<String>,
    why: Why,
    /// Who has it.
    pub by: Option<String>,
    /// Which port the owner has.
    pub has: Option<u16>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Why {
    Taken,
    Blocked,
    HasPort,
    Unsettled,
    #[serde(other)]
    Cooling,
}

impl Refusal {
    /// It for whoever has asked.
    pub fn told(&self) -> Option<PortRefused> {
        let why = match (self.why, self.has) {
            (Why::HasPort, Some(port)) => RefusedWhy::HasPort(port),
            (Why::Taken, _) => RefusedWhy::Taken,
            (Why::Blocked, _) => RefusedWhy::Blocked,
            (Why::Unsettled, _) => RefusedWhy::Unsettled,
            (Why::HasPort | Why::Cooling, _) => RefusedWhy::Cooling,
        };
        Some(PortRefused {
            port: self.port,
            owner: owner(self.owner.as_deref()?, None)?,
            why,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "00000001-0000-4000-8000-000000000000";
    const HOST: &str = "00000002-0000-4000-8000-000000000000";

    fn known(text: &str) -> Option<RegionPort> {
        let row: Row = serde_json::from_str(text).expect("a row");
        row.known()
    }

    #[test]
    fn a_port_of_which_nothing_sensible_is_said_is_not_opened_and_not_given_away() {
        for owner in ["x", &format!("{JOB}/"), &format!("{JOB}/a b"), "/ssh"] {
            let row =
                format!(r#"{{"port":1,"generation":2,"owner":"{owner}","target":"192.0.2.1:22"}}"#);
            assert_eq!(known(&row), Some(RegionPort::Blocked), "{owner}");
            let row = format!(r#"{{"port":1,"generation":2,"left_by":"{owner}"}}"#);
            assert_eq!(known(&row), Some(RegionPort::Blocked), "{owner}");
        }
        for target in ["", "192.0.2.1", "example.org:22", "192.0.2.1:99999"] {
            let row =
                format!(r#"{{"port":1,"generation":2,"owner":"{JOB}/ssh","target":"{target}"}}"#);
            assert_eq!(known(&row), Some(RegionPort::Blocked), "{target}");
        }
        for holder in ["", "host/x/ssh", HOST, &format!("host/{HOST}/web")] {
            let row =
                format!(r#"{{"port":1,"generation":2,"left_by":"{JOB}/ssh","holder":"{holder}"}}"#);
            assert_eq!(known(&row), Some(RegionPort::Blocked), "{holder}");
        }
        assert_eq!(known(r#"{"port":1,"generation":2}"#), None);
        let rests = known(r#"{"port":1,"generation":2,"is_resting":true}"#);
        assert_eq!(rests, Some(RegionPort::Cooling));
        for whose in ["own", "other", ""] {
            let row = format!(r#"{{"port":1,"generation":2,"reserved":"{whose}"}}"#);
            assert_eq!(known(&row), Some(RegionPort::Reserved));
            let row: Row = serde_json::from_str(&row).expect("a row");
            assert_eq!(row.reserved(), (1, (whose == "own").then_some(2)));
        }
    }

    #[test]
    fn a_reserved_port_that_cannot_be_bound_is_told_as_one_to_leave_alone() {
        let owner = owner(&format!("{JOB}/ssh"), None).expect("an owner");
        let unfit = |is_blocked| Use::Unfit {
            owner: owner.clone(),
            is_blocked,
        };
        let told = used(&[(1, unfit(true)), (2, unfit(false)), (3, Use::Unused)]);
        let whose = format!("{JOB}/ssh");
        assert_eq!(
            serde_json::to_value(told).expect("JSON"),
            serde_json::json!([
                {"port": 1, "owner": whose, "is_blocked": true},
                {"port": 2, "owner": whose},
                {"port": 3},
            ])
        );
    }

    #[test]
    fn what_is_asserted_is_what_was_read() {
        let row = format!(
            r#"{{"port":1,"generation":2,"owner":"{JOB}/ssh","holder":"host/{HOST}/ssh",
                "target":"[2001:db8::1]:22","since_ms":3}}"#
        );
        let rows: Vec<Row> = serde_json::from_str(&format!(
            r#"[{row},{{"port":2,"generation":2,"left_by":"{JOB}/ssh"}}]"#
        ))
        .expect("rows");
        let mut ports = SharedMap::default();
        take(&mut ports, &rows);
        assert_eq!(ports.len(), 2);
        let again = serde_json::to_value(asserted(&ports)).expect("JSON");
        let row: serde_json::Value = serde_json::from_str(&row).expect("JSON");
        assert_eq!(again, serde_json::json!([row]));
        take(
            &mut ports,
            &[Row {
                port: 1,
                generation: 3,
                owner: None,
                target: None,
                since_ms: 0,
                left_by: None,
                holder: None,
                is_blocked: false,
                is_resting: false,
                reserved: None,
            }],
        );
        assert_eq!(ports.len(), 1);
    }
}
