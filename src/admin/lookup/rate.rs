//! How often each source may ask, in bounded memory.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    time::Instant,
};

use lru::LruCache;

use crate::limit::{Bucket, Rate, SourceNet};

/// Questions a second, and at once.
const RATE: Rate = Rate {
    burst: NonZeroU64::new(20).expect("not 0"),
    ..Rate::even(NonZeroU64::new(5).expect("not 0"))
};

const SOURCES: NonZeroUsize = NonZeroUsize::new(8192).expect("not 0");

#[derive(Debug)]
pub(super) struct RateLimit {
    sources: LruCache<SourceNet, Bucket>,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            sources: LruCache::new(SOURCES),
        }
    }
}

impl RateLimit {
    /// Whether `source` may ask now. When there are more sources than are remembered, the one is
    /// forgotten that has not asked for longest: a new one may always ask.
    pub fn allow(&mut self, source: SourceNet, now: Instant) -> bool {
        let bucket = self.sources.get_or_insert(source, Bucket::default);
        bucket.take(RATE, now.into())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv6Addr},
        time::Duration,
    };

    use super::*;
    use crate::admin::slots::source;

    fn ipv4(number: u32) -> SourceNet {
        source(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_source_that_asks_too_often_waits_and_others_do_not() {
        let mut rate = RateLimit::default();
        let now = Instant::now();
        let allowed = (0..100).filter(|_| rate.allow(ipv4(1), now)).count();
        assert_eq!(allowed, RATE.burst.get() as usize);
        assert!(rate.allow(ipv4(2), now));
        assert!(rate.allow(ipv4(1), now + Duration::from_secs(1)));
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let mut rate = RateLimit::default();
        let now = Instant::now();
        let from = |last: u16| {
            source(IpAddr::from(Ipv6Addr::new(
                0x2001, 0xdb8, 0, 1, 0, 0, 0, last,
            )))
        };
        let allowed = (0..100).filter(|last| rate.allow(from(*last), now)).count();
        assert_eq!(allowed, RATE.burst.get() as usize);
    }

    #[test]
    fn more_sources_than_are_remembered_keep_nobody_from_asking() {
        let mut rate = RateLimit::default();
        let now = Instant::now();
        let often = ipv4(u32::MAX);
        while rate.allow(often, now) {}
        for number in 0..9000 {
            assert!(rate.allow(ipv4(number), now));
            // Whoever goes on asking is not forgotten.
            assert!(!rate.allow(often, now));
        }
        assert_eq!(rate.sources.len(), SOURCES.get());
    }
}
