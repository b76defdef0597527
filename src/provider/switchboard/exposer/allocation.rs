//! Who gets which port, and what is kept of that.

use std::time::{Duration, SystemTime};

use super::{Changed, Exposer, region::Region};
use crate::provider::switchboard::{
    BootInstant, KnownJobs, Switchboard,
    ports::{Changes, Kept, LEFT_ALONE, Terms, Wanted},
    region::Role,
};

impl Exposer {
    pub(super) fn terms(&self) -> Terms<'_> {
        Self::terms_of(&self.settings, self.region.as_ref())
    }

    pub(super) fn terms_of<'a>(settings: &'a Switchboard, region: Option<&Region>) -> Terms<'a> {
        let own = Terms {
            ranges: &settings.ports,
            cooldown: settings.cooldown,
            left_alone: LEFT_ALONE,
            most: settings.max_total.map_or(usize::MAX, |most| {
                usize::try_from(most).unwrap_or(usize::MAX)
            }),
            gives: true,
        };
        match region {
            None => own,
            // Whether a port rests is what the map says.
            Some(region) => Terms {
                cooldown: Duration::MAX,
                left_alone: Duration::MAX,
                gives: matches!(region.role(), Role::Leading { .. }),
                ..own
            },
        }
    }

    pub(super) fn allocate(&mut self, changed: &mut Changed, known_jobs: &KnownJobs) {
        let terms = Self::terms_of(&self.settings, self.region.as_ref());
        let now = BootInstant::now();
        let everybody = known_jobs.complete.is_some();
        // What was said of a port may not say what holds it.
        let come = changed.come.iter();
        let come = come.filter_map(|owner| self.decisions.desired(owner));
        changed.come = come.map(|desired| desired.owner.clone()).collect();
        if std::mem::take(&mut changed.everything) {
            let owners: Vec<_> = (self.decisions.wanted())
                .map(|desired| desired.owner.clone())
                .collect();
            let wanted = Wanted {
                owners: &owners,
                everybody,
            };
            self.ports.settle(wanted, terms, now);
        } else {
            let changes = Changes {
                come: &changed.come,
                gone: &changed.gone,
                wants: &|owner| self.decisions.desired(owner).is_some(),
                everybody,
            };
            self.ports.change(&changes, terms, now);
        }
        (changed.come, changed.gone) = Default::default();
        let mut served = self.ports.take_served();
        served.append(&mut self.give_reserved());
        changed.owners.extend(served.iter().cloned());
        if let Some(region) = &mut self.region {
            let of_owners = changed.owners.iter();
            let of_owners = of_owners.filter_map(|owner| self.ports.port(owner));
            let touched = self.ports.touched().iter().copied();
            of_owners.chain(touched).for_each(|port| region.note(port));
        }
        for owner in &changed.owners {
            let desired = self.decisions.desired(owner);
            let Some((desired, port)) = desired.zip(self.ports.port(owner)) else {
                // A remembered job may still be there, whatever speaks against its port for now.
                if !known_jobs.remembered.contains_key(&owner.job) {
                    self.kept.remove(owner);
                }
                continue;
            };
            let before = self.kept.get(owner).copied();
            let since = before.filter(|_| !served.contains(owner));
            let kept = Kept {
                address: desired.target.ip(),
                since: since.map_or_else(SystemTime::now, |kept| kept.since),
            };
            if before != Some(kept) {
                self.kept.insert(owner.clone(), kept);
                self.ports.touch(port);
            }
        }
    }
}
