//! What this proxy is in its region, by what the database has answered and how long ago.
//!
//! Times are counted on the clock since boot and from before a request was sent, so that the database, which counts
//! from when it got the request, never gives a port away sooner than it is closed here.

use std::time::Duration;

use crate::provider::switchboard::{BootInstant, region::Role};

/// How long a lease to lead lasts.
const LEADS: Duration = Duration::from_secs(6);

/// After so long without an answer the database is away.
const AWAY: Duration = Duration::from_secs(15);

/// The share of a lease after which this proxy takes it to be over, and the most that this may be sooner: clocks
/// are not equally fast.
const MARGIN: (u32, Duration) = (10, Duration::from_secs(60));

/// This proxy's part.
#[derive(Debug)]
pub(super) struct Part {
    /// How long ports stay open without an answer.
    lease: Duration,
    /// Whether it may follow the switchboard.
    follows: bool,
    /// With which term it leads, and until when.
    leads: Option<(u64, BootInstant)>,
    /// Whether the map is known.
    is_informed: bool,
    /// Whether its lease was over, or it was removed, and what is so now was not read since.
    is_out: bool,
}

impl Part {
    pub fn new(lease: Duration, follows: bool) -> Self {
        Self {
            lease,
            follows,
            leads: None,
            is_informed: false,
            is_out: false,
        }
    }

    /// When everything is closed that is not confirmed until then.
    pub fn ends(&self, heard: BootInstant) -> BootInstant {
        let margin = (self.lease / MARGIN.0).min(MARGIN.1);
        heard.after(self.lease - margin)
    }

    /// What it is, if the database was heard of then.
    pub fn role(&mut self, heard: Option<BootInstant>, now: BootInstant) -> Role {
        let is_over = heard.is_some_and(|heard| now >= self.ends(heard));
        self.is_out |= is_over;
        if self.is_out {
            return Role::Expired;
        }
        match (heard, self.leads) {
            (Some(heard), _) if self.follows && now.since(heard) >= AWAY => Role::Alone { heard },
            _ if !self.is_informed => Role::Unknown,
            (_, Some((term, until))) if now < until => Role::Leading { term },
            _ => Role::Serving,
        }
    }

    /// Notes how long the lease is by now that the database knows of.
    pub fn granted(&mut self, lease: Duration) {
        self.lease = lease;
    }

    /// Notes that the map was read after the database has answered.
    pub fn informed(&mut self) {
        self.is_informed = true;
        self.is_out = false;
    }

    /// Notes what was said to a request that was sent then.
    pub fn told(&mut self, term: Option<u64>, asked: BootInstant) {
        self.leads = term.map(|term| (term, asked.after(LEADS)));
    }

    /// Notes that it does not lead.
    pub fn deposed(&mut self) {
        self.leads = None;
    }

    /// Notes that the database has it as a member no more.
    pub fn removed(&mut self) {
        self.is_out = true;
        self.leads = None;
    }

    /// Whether everything is closed until the map is read again.
    pub const fn is_out(&self) -> bool {
        self.is_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::switchboard::region::Heard;

    fn at(seconds: u64) -> BootInstant {
        BootInstant::from_millis(seconds * 1000)
    }

    const LEASE: Duration = Duration::from_secs(600);

    #[test]
    fn a_proxy_that_has_heard_nothing_opens_and_closes_nothing() {
        let mut part = Part::new(LEASE, true);
        assert_eq!(part.role(None, at(10_000)), Role::Unknown);
        // Before an upgrade it was heard of.
        assert_eq!(part.role(Some(at(100)), at(114)), Role::Unknown);
        let heard = at(100);
        assert_eq!(part.role(Some(heard), at(115)), Role::Alone { heard });
        assert_eq!(part.role(Some(heard), at(100 + 540)), Role::Expired);
    }

    #[test]
    fn without_an_answer_it_stops_leading_then_follows_alone_then_closes() {
        let mut part = Part::new(LEASE, true);
        let heard = at(100);
        part.informed();
        part.told(Some(7), heard);
        let mut role = |seconds| part.role(Some(heard), at(seconds));
        assert_eq!(role(105), Role::Leading { term: 7 });
        assert_eq!(role(106), Role::Serving);
        assert_eq!(role(115), Role::Alone { heard });
        assert_eq!(role(639), Role::Alone { heard });
        assert_eq!(role(640), Role::Expired);
        // An answer alone does not say what is whose by now.
        let heard = at(700);
        assert_eq!(part.role(Some(heard), at(700)), Role::Expired);
        part.informed();
        assert_eq!(part.role(Some(heard), at(700)), Role::Serving);
        part.removed();
        assert_eq!(part.role(Some(heard), at(700)), Role::Expired);
    }

    #[test]
    fn a_lease_made_longer_while_the_database_is_away_keeps_no_port_open_that_others_may_have() {
        const MINUTE: Duration = Duration::from_secs(60);
        let heard = Heard::default();
        assert_eq!(heard.may_be_told(MINUTE), MINUTE);
        heard.note(at(100), MINUTE);
        let mut part = Part::new(heard.may_be_told(LEASE), true);
        part.informed();
        assert_eq!(part.role(heard.last(), at(154)), Role::Expired);
        // It knows of the longer one.
        heard.note(at(200), LEASE);
        part.granted(LEASE);
        part.informed();
        assert_eq!(part.role(heard.last(), at(200)), Role::Serving);
        assert_eq!(part.role(heard.last(), at(200 + 540)), Role::Expired);
        // It may know of a shorter one, of which nothing was heard.
        assert_eq!(heard.may_be_told(MINUTE), MINUTE);
        assert_eq!(heard.may_be_told(LEASE), MINUTE);
        assert_eq!(
            Heard::at(heard.last(), heard.lease(), None).may_be_told(LEASE),
            MINUTE
        );
    }

    #[test]
    fn one_that_is_kept_from_following_goes_on_serving() {
        let mut part = Part::new(LEASE, false);
        part.informed();
        assert_eq!(part.role(Some(at(100)), at(639)), Role::Serving);
    }

    #[test]
    fn the_margin_of_a_long_lease_is_a_minute() {
        let part = Part::new(Duration::from_secs(86_400), true);
        assert_eq!(part.ends(at(0)), at(86_340));
    }
}
