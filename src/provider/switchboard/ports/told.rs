//! What somebody else has decided of a port.

use super::{Ports, Resting};
use crate::provider::switchboard::{Owner, PortRanges, boot_instant::BootInstant};

/// How it stands with a port, as somebody else says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// It belongs to somebody.
    Owned(&'a Owner),
    /// It belonged to somebody, and nobody else may have it.
    Left(&'a Owner),
    /// It was a proxy's, and nobody may have it.
    Cooling,
    /// It cannot be bound.
    Blocked,
    /// A proxy has it beforehand.
    Reserved,
    /// It may be had.
    Free,
}

impl Ports {
    /// Takes in how it stands with a port, whatever was known of it. An owner that has another port gives
    /// that up. One that loses this one waits for none by itself.
    pub fn told(&mut self, port: u16, told: Told<'_>, ranges: &PortRanges, now: BootInstant) {
        self.forget_all_of(port, ranges);
        let resting = match told {
            Told::Owned(owner) => {
                if let Some(other) = self.port(owner) {
                    self.owned.remove(&other);
                    self.touched.insert(other);
                }
                self.give(port, owner.clone());
                self.leave_queue(|waiting| waiting == owner);
                None
            }
            Told::Left(owner) => {
                self.left.insert((owner.host.is_some(), now, port));
                self.homes.entry(owner.clone()).or_insert(port);
                if let Some(holder) = owner.holder() {
                    self.held.entry(holder).or_insert(port);
                }
                let left = Some((owner.clone(), now));
                Some(Resting {
                    left,
                    ..Resting::default()
                })
            }
            Told::Blocked => {
                self.blocked.insert((now, port));
                let blocked = Some(now);
                Some(Resting {
                    blocked,
                    ..Resting::default()
                })
            }
            Told::Cooling | Told::Reserved => {
                if told == Told::Reserved {
                    self.reserved.insert(port);
                }
                Some(Resting {
                    is_withheld: true,
                    ..Resting::default()
                })
            }
            Told::Free => None,
        };
        if let Some(resting) = resting {
            self.outside += usize::from(!ranges.contains(port));
            self.resting.insert(port, resting);
        }
        self.touched.insert(port);
    }

    /// Takes in that somebody owns a port for the time being: what is held for their host stays so.
    pub fn lent(&mut self, port: u16, owner: &Owner, ranges: &PortRanges, now: BootInstant) {
        let held = owner.holder().and_then(|holder| {
            let port = *self.held.get(&holder)?;
            Some((holder, port))
        });
        self.told(port, Told::Owned(owner), ranges, now);
        self.held.extend(held);
    }

    /// Lets go of everything that is known of a port.
    fn forget_all_of(&mut self, port: u16, ranges: &PortRanges) {
        let mut former = self.owned.remove(&port);
        self.reserved.remove(&port);
        if let Some(Resting { left, blocked, .. }) = self.resting.remove(&port) {
            self.outside -= usize::from(!ranges.contains(port));
            if let Some((owner, at)) = left {
                self.left.remove(&(owner.host.is_some(), at, port));
                former = Some(owner);
            }
            if let Some(at) = blocked {
                self.blocked.remove(&(at, port));
            }
        }
        if let Some(owner) = former {
            self.leave_home(&owner, port);
        }
    }
}
