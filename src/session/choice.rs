//! Which of several targets a session is led to.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{
    end_reason::EndReason,
    proxy_protocol::Version,
    table::Route,
    target::{NoMember, Place, Target},
};

/// The target chosen for a session out of a group. It counts there until it is dropped.
#[derive(Debug)]
pub struct Choice {
    pub(super) place: Place,
}

impl Choice {
    /// Chooses a target for a client of a route, if there is a choice.
    ///
    /// # Errors
    ///
    /// The reason for which the client is refused; it has not been counted.
    pub fn make(route: &Route, client: IpAddr, now: Instant) -> Result<Option<Self>, EndReason> {
        let Target::Group(group) = &route.target else {
            return Ok(None);
        };
        let balance = route.mapping.policy.balance;
        match group.choose(balance, client, &[], now.into()) {
            Ok(place) => Ok(Some(Self { place })),
            Err(NoMember::Full) => Err(EndReason::TargetFull),
            Err(NoMember::Down | NoMember::Tried) => Err(EndReason::NoTarget),
        }
    }

    /// What was said of PROXY headers for this target alone.
    pub(super) fn send_proxy(&self) -> Option<Option<Version>> {
        self.place.member().settings.send_proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.place.member().address
    }
}
