//! Ranges of ports to allocate from.

use std::{fmt, ops::RangeInclusive};

/// Ports in ascending ranges that neither overlap nor touch; at least one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRanges(pub(super) Vec<RangeInclusive<u16>>);

impl PortRanges {
    /// Joins ranges that overlap or touch; `None` if there is no port in them.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Option<Self> {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
        sorted.sort_by_key(|range| *range.start());
        let mut joined: Vec<RangeInclusive<u16>> = Vec::new();
        for range in sorted {
            match joined.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                    let end = *last.end().max(range.end());
                    *last = *last.start()..=end;
                }
                _ => joined.push(range),
            }
        }
        (!joined.is_empty()).then_some(Self(joined))
    }

    /// Each range.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = RangeInclusive<u16>> {
        self.0.iter().cloned()
    }

    /// How many ports there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    /// Whether `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// The port at that place, counted from the lowest and around the end.
    pub fn nth(&self, place: usize) -> u16 {
        let mut place = place % self.count();
        for range in &self.0 {
            if let Some(port) = range.clone().nth(place) {
                return port;
            }
            place -= range.len();
        }
        // The place was taken modulo the count.
        *self.0[0].start()
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let before = if index == 0 { "" } else { ", " };
            match range.len() {
                1 => write!(f, "{before}{}", range.start())?,
                _ => write!(f, "{before}{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_and_counted_once() {
        let ports = PortRanges::new([20..=29, 10..=19, 25..=31, 40..=40]).expect("ports");
        assert_eq!(ports.to_string(), "10-31, 40");
        assert_eq!(ports.count(), 23);
        assert_eq!(
            (ports.nth(0), ports.nth(22), ports.nth(23)),
            (10, 40, 10),
            "places go around"
        );
        assert!(ports.contains(31) && !ports.contains(32));
    }

    #[test]
    fn every_port_there_is_can_be_a_range() {
        let ports = PortRanges::new([1..=65535, 65535..=65535]).expect("ports");
        assert_eq!(ports.count(), 65535);
    }
}
