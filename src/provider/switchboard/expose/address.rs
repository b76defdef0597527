//! Whether an address may be a target at all.

use std::net::IpAddr;

use super::Reason;
use crate::provider::switchboard::Switchboard;

/// Refuses whatever could lead to ourselves, to everybody or out of the allowed prefixes; the
/// prefixes permit nothing that is refused here.
pub(super) fn fit(
    address: IpAddr,
    settings: &Switchboard,
    is_own: &dyn Fn(IpAddr) -> bool,
) -> Result<(), Reason> {
    fit_for_any(address)?;
    let allowed = settings.allow.iter().any(|net| net.contains(&address));
    refuse(!allowed, Reason::NotAllowed)?;
    let bind = settings.policy.bind;
    let other_family = bind.is_some_and(|bind| bind.is_ipv4() != address.is_ipv4());
    refuse(other_family, Reason::Family)?;
    refuse(is_own(address), Reason::Own)
}

/// Refuses what is no job's address whatever the prefixes are.
pub fn fit_for_any(address: IpAddr) -> Result<(), Reason> {
    refuse(address.to_canonical() != address, Reason::Mapped)?;
    refuse(is_compatible(address), Reason::Mapped)?;
    refuse(address.is_unspecified(), Reason::Unspecified)?;
    refuse(address.is_loopback(), Reason::Loopback)?;
    refuse(is_link_local(address), Reason::LinkLocal)?;
    refuse(is_for_many(address), Reason::Multicast)
}

fn refuse(unfit: bool, reason: Reason) -> Result<(), Reason> {
    if unfit { Err(reason) } else { Ok(()) }
}

/// `::a.b.c.d`, which no network routes; `::` and `::1` have reasons of their own.
fn is_compatible(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.segments()[..6] == [0; 6] && u128::from(ip) > 1,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_for_many(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(ip) if ip.is_broadcast());
    broadcast || address.is_multicast()
}
