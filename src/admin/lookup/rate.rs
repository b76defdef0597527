//! How often each source may ask, in bounded memory.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Questions at once.
const BURST: f64 = 20.0;

/// Questions a second after that.
const PER_SECOND: f64 = 5.0;

/// Sources remembered.
const SOURCES: usize = 8192;

/// What each source has left.
#[derive(Debug, Default)]
pub(super) struct Rate {
    sources: HashMap<IpAddr, (f64, Instant)>,
}

impl Rate {
    /// Whether `source` may ask now. An IPv6 source is its network of 64 bits. When there are more
    /// sources than are remembered, new ones are turned away until some have been quiet.
    pub fn allow(&mut self, source: IpAddr, now: Instant) -> bool {
        let source = network(source);
        if !self.sources.contains_key(&source) && self.sources.len() >= SOURCES {
            let full_again = Duration::from_secs_f64(BURST / PER_SECOND);
            self.sources
                .retain(|_, (_, last)| now.duration_since(*last) < full_again);
            if self.sources.len() >= SOURCES {
                return false;
            }
        }
        let (left, last) = self.sources.entry(source).or_insert((BURST, now));
        let earned = now.duration_since(*last).as_secs_f64() * PER_SECOND;
        *left = (*left + earned).min(BURST);
        *last = now;
        let allowed = *left >= 1.0;
        if allowed {
            *left -= 1.0;
        }
        allowed
    }
}

fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) >> 64 << 64)),
        ipv4 => ipv4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_asks_too_often_waits_and_others_do_not() {
        let mut rate = Rate::default();
        let now = Instant::now();
        let one = IpAddr::from([192, 0, 2, 1]);
        let allowed = (0..100).filter(|_| rate.allow(one, now)).count();
        assert_eq!(allowed, BURST as usize);
        assert!(rate.allow(IpAddr::from([192, 0, 2, 2]), now));
        assert!(rate.allow(one, now + Duration::from_secs(1)));
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let mut rate = Rate::default();
        let now = Instant::now();
        let from = |last: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        let allowed = (0..100).filter(|last| rate.allow(from(*last), now)).count();
        assert_eq!(allowed, BURST as usize);
    }

    #[test]
    fn memory_is_bounded_and_comes_free_again() {
        let mut rate = Rate::default();
        let now = Instant::now();
        for number in 0..u32::try_from(SOURCES).expect("few") {
            assert!(rate.allow(IpAddr::from(number.to_be_bytes()), now));
        }
        let late = IpAddr::from([192, 0, 2, 1]);
        assert!(!rate.allow(late, now));
        assert_eq!(rate.sources.len(), SOURCES);
        assert!(rate.allow(late, now + Duration::from_secs(60)));
    }
}
