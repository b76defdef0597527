//! From what is known of a fleet to the documents of the API.

use std::{collections::HashSet, time::Instant};

use super::{
    model::{self, Absence, Endpoint},
    view::time_of,
};
use crate::{
    admin::Sources,
    fleet::{Contact, Elsewhere, FleetProxy, FleetView, Key},
    provider::switchboard::{JobId, RegionView, ports::PortCounts, region::Role},
    units::{duration_ms, millis},
};

/// How it stands with the fleet, if there is one.
pub fn membership(sources: &Sources) -> Option<model::FleetMembership> {
    let view = sources.fleet.read()?;
    let settings = &view.settings;
    Some(model::FleetMembership {
        name: settings.name.to_string(),
        region: settings.region.to_string(),
        state: view.contact.word().to_owned(),
        error: view.contact.error().map(str::to_owned),
        server: view.server.clone(),
        heard_ms: view.heard.map(ago),
        proxies: view.proxies.len() as u64,
        up: view
            .proxies
            .iter()
            .filter(|one| one.state() == "up")
            .count() as u64,
        ports: region(sources).map(|region| model::RegionPorts {
            role: region.role.word().to_owned(),
            leader: region.leader,
            generation: region.generation,
            applied: region.applied,
        }),
    })
}

fn region(sources: &Sources) -> Option<RegionView> {
    sources.switchboard.read()?.region.clone()
}

/// What a proxy is in the region of this one, as far as that is known here.
fn role(proxy: &FleetProxy, view: &FleetView, region: Option<&RegionView>) -> Option<&'static str> {
    let region = region.filter(|_| proxy.region == view.settings.region)?;
    let name = proxy.name.as_str();
    match () {
        () if proxy.name == view.settings.name => Some(region.role.word()),
        () if region.leader.as_deref() == Some(name) => Some(Role::Leading { term: 0 }.word()),
        () if proxy.state() == "up" => Some(Role::Serving.word()),
        () => None,
    }
}

/// The fleet; empty if there is none.
pub fn fleet(sources: &Sources) -> model::Fleet {
    let Some(view) = sources.fleet.read() else {
        return model::Fleet::default();
    };
    let region = region(sources);
    let proxies = view.proxies.iter().map(|proxy| {
        let (read, entries) = &proxy.published;
        model::FleetProxy {
            proxy: proxy.name.to_string(),
            region: proxy.region.to_string(),
            state: proxy.state().to_owned(),
            version: proxy.version.clone(),
            seen: time_of(proxy.seen),
            age_ms: ago(proxy.seen),
            sessions: proxy.sessions,
            generation: proxy.generation,
            generation_read: *read,
            endpoints: entries
                .keys()
                .filter(|key| matches!(key, Key::Job(..)))
                .count() as u64,
            role: role(proxy, &view, region.as_ref()).map(str::to_owned),
            ports_applied: proxy.applied,
        }
    });
    let regions = view.regions.iter().map(|region| {
        let number =
            |of: fn(&PortCounts) -> usize| region.counts.as_ref().map(|one| of(one) as u64);
        model::FleetRegion {
            region: region.name.to_string(),
            leader: region.leader.clone(),
            generation: region.generation,
            settled: region.is_settled,
            used: number(|ports| ports.used),
            cooling: number(|ports| ports.cooling),
            blocked: number(|ports| ports.blocked),
            reserved: number(|ports| ports.reserved),
            free: number(|ports| ports.free),
        }
    });
    let of_proxy = |proxy: &&FleetProxy| !proxy.is_fenced;
    let mappings = view.proxies.iter().filter(of_proxy).flat_map(|proxy| {
        proxy
            .published
            .1
            .iter()
            .filter_map(|(key, entry)| match key {
                Key::Job(..) => None,
                Key::Mapping(name, _) => Some(model::FleetMapping {
                    mapping: name.clone(),
                    proxy: proxy.name.to_string(),
                    region: proxy.region.to_string(),
                    host: entry.host.clone(),
                    port: entry.port.unwrap_or_default(),
                    last_port: entry.last,
                    target: entry.target.clone().unwrap_or_default(),
                    state: entry.state.clone(),
                    age_ms: ago(proxy.seen),
                }),
            })
    });
    model::Fleet {
        membership: membership(sources),
        proxies: proxies.collect(),
        regions: regions.collect(),
        mappings: mappings.collect(),
    }
}

fn ago(at: Instant) -> u64 {
    millis(at.elapsed())
}

/// What this proxy knows of some jobs, or of all, together with what others told, nearest first.
pub fn with_others(own: Vec<Endpoint>, view: &FleetView, jobs: Option<&[JobId]>) -> Vec<Endpoint> {
    let own = own.into_iter().map(|one| Endpoint {
        region: Some(view.settings.region.to_string()),
        proxy: Some(view.settings.name.to_string()),
        age_ms: Some(0),
        ..one
    });
    let Some(jobs) = jobs else {
        let mut all: Vec<_> = own.collect();
        all.extend(view.elsewhere(None).iter().map(endpoint));
        all.sort_by(|one, other| {
            (&one.job, place(one, view)).cmp(&(&other.job, place(other, view)))
        });
        return all;
    };
    let mut own: Vec<_> = own.collect();
    let mut all = Vec::new();
    let mut told = HashSet::new();
    for job in jobs.iter().filter(|job| told.insert(*job)) {
        let mut of_job: Vec<_> = own.extract_if(.., |one| one.job == job.as_str()).collect();
        let others = view.elsewhere(Some(job));
        if others.is_empty() {
            match of_job.first_mut() {
                None => of_job.push(absent(job, view)),
                // Others may know, and have not been heard.
                Some(one) if one.absence() == Some(Absence::Unknown) && !is_heard(view) => {
                    *one = absent(job, view);
                }
                Some(_) => {}
            }
        } else {
            of_job.retain(|one| one.absence().is_none());
            of_job.extend(others.iter().map(endpoint));
            of_job.sort_by_key(|one| place(one, view));
        }
        all.extend(of_job);
    }
    all
}

fn is_heard(view: &FleetView) -> bool {
    view.contact == Contact::Connected
}

/// The nearest first, and what may be gone last.
fn place(endpoint: &Endpoint, view: &FleetView) -> (bool, usize) {
    let region = endpoint.region.as_deref().unwrap_or_default();
    (endpoint.state == UNKNOWN, view.distance(region))
}

/// The state of an endpoint whose proxy was not heard of for long.
const UNKNOWN: &str = "unknown";

fn endpoint(one: &Elsewhere<'_>) -> Endpoint {
    let Elsewhere {
        proxy,
        job,
        rule,
        entry,
    } = one;
    let age = ago(proxy.seen);
    let (state, note) = match entry.state.as_str() {
        "open" if proxy.is_silent() => {
            let age = duration_ms(age);
            (
                UNKNOWN,
                Some(format!("its proxy was last heard of {age} ago")),
            )
        }
        state => (state, None),
    };
    Endpoint {
        job: job.to_string(),
        rule: Some(rule.to_string()),
        host: entry.host.clone(),
        port: entry.port,
        target: entry.target.clone(),
        state: state.to_owned(),
        reason: entry.reason.clone(),
        note,
        since: entry.since.clone(),
        region: Some(proxy.region.to_string()),
        proxy: Some(proxy.name.to_string()),
        age_ms: Some(age),
        ..Endpoint::default()
    }
}

/// A job of which nobody has told.
fn absent(job: &JobId, view: &FleetView) -> Endpoint {
    let settings = &view.settings;
    let host = settings.public_host.as_ref();
    let (absence, note) = match (is_heard(view), view.heard) {
        (true, _) => (
            Absence::Unknown,
            "no proxy of the fleet tells of such a job".to_owned(),
        ),
        (false, Some(heard)) => {
            let age = duration_ms(ago(heard));
            let note = format!("not known here, and what is known of other proxies is {age} old");
            (Absence::NotHeardOf, note)
        }
        (false, None) => {
            let note = "not known here, and other proxies have not been heard of yet";
            (Absence::NotHeardOf, note.to_owned())
        }
    };
    Endpoint {
        job: job.to_string(),
        host: host.map_or_else(|| settings.name.to_string(), ToString::to_string),
        state: "closed".to_owned(),
        reason: Some(absence.word().to_owned()),
        note: Some(note),
        region: Some(settings.region.to_string()),
        proxy: Some(settings.name.to_string()),
        ..Endpoint::default()
    }
}
