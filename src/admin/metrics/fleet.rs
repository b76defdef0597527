//! The series of a fleet; none if there is none.

use std::sync::atomic::Ordering::Relaxed;

use super::Sources;
use crate::{
    fleet::{Contact, FleetProxy},
    telemetry::metric,
};

/// Tells the scrape's recorder how things are.
pub(super) fn record(sources: &Sources) {
    let Some(view) = sources.fleet.read() else {
        return;
    };
    let word = view.contact.word();
    for &state in Contact::WORDS {
        metric::FLEET_CONTACT.set(&[state], u8::from(state == word));
    }
    if let Some(heard) = view.heard {
        metric::FLEET_HEARD.set(&[], heard.elapsed());
    }
    metric::FLEET_FAILURES.set_total(&[], sources.fleet.failures.load(Relaxed));
    for state in FleetProxy::STATES {
        let proxies = view.proxies.iter().filter(|proxy| proxy.state() == state);
        metric::FLEET_PROXIES.set(&[state], proxies.count() as f64);
    }
}
