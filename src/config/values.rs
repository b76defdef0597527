//! Kinds of values: how each is written, and what a message says is allowed.
//!
//! A kind is a function from a TOML value; kinds are put together with [`or_off`] and [`or_auto`].

use std::{
    fmt, net::IpAddr, num::NonZeroU64, ops::RangeInclusive, path::PathBuf, str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use toml::de::DeValue;

use super::settings::AutoOr;

/// A value, or what would have been allowed in its place.
pub(crate) type Parsed<T> = Result<T, Refusal>;

/// What is allowed in place of a value that is not: one or more alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(Vec<String>);

impl Refusal {
    /// Allowed is only `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self(vec![what.into()])
    }

    /// Allowed is `what` as well.
    pub fn or(mut self, what: impl Into<String>) -> Self {
        self.0.push(what.into());
        self
    }

    /// Allowed is `what` as well, and named first.
    pub fn or_first(mut self, what: &str) -> Self {
        self.0.insert(0, what.to_owned());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_last() {
            Some((last, rest)) if !rest.is_empty() => {
                write!(f, "{} or {last}", rest.join(", "))
            }
            _ => f.write_str(&self.0.concat()),
        }
    }
}

/// The longest duration of any setting; keeps every deadline within reach of the clock.
pub(super) const LONGEST: Duration = Duration::from_secs(31_557_600);

/// Every duration that makes sense as a timeout.
pub(super) const ANY_DURATION: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Parsed<bool> {
    value.as_bool().ok_or_else(|| Refusal::new("true or false"))
}

/// A number within `range`.
pub(super) fn number<T: TryFrom<u32>>(
    range: RangeInclusive<u32>,
) -> impl Fn(&DeValue<'_>) -> Parsed<T> {
    move |value| {
        integer(value)
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                Refusal::new(format!(
                    "a number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }
}

/// The integer in `value`, if it fits.
pub(super) fn integer(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A duration within `range`.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&DeValue<'_>) -> Parsed<Duration> {
    move |value| {
        if value.is_integer() {
            let number = integer(value).unwrap_or(90);
            return Err(Refusal::new(format!(
                "a duration with its unit, such as \"{number}s\" or \"{number}m\""
            )));
        }
        value
            .as_str()
            .and_then(parse_duration)
            .filter(|duration| range.contains(duration))
            .ok_or_else(|| {
                Refusal::new(format!(
                    "a duration from {} to {}, such as \"90s\" or \"1h 30m\"",
                    humantime::format_duration(*range.start()),
                    humantime::format_duration(*range.end()),
                ))
            })
    }
}

/// A duration as humantime reads it.
///
/// It panics where a sum ends just past the last second there is. Eleven digits do not get there,
/// not even as years.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    if digits > 11 {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// A duration in whole seconds within `range`.
pub(super) fn whole_seconds(
    range: RangeInclusive<u64>,
) -> impl Fn(&DeValue<'_>) -> Parsed<Duration> {
    move |value| {
        let (first, last) = (range.start(), range.end());
        duration(ANY_DURATION)(value)
            .ok()
            .filter(|duration| duration.subsec_nanos() == 0 && range.contains(&duration.as_secs()))
            .ok_or_else(|| Refusal::new(format!("whole seconds from \"{first}s\" to \"{last}s\"")))
    }
}

/// One of a table of words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> Parsed<T> {
    move |value| {
        words
            .iter()
            .find(|(word, _)| value.as_str() == Some(word))
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| Refusal(words.iter().map(|(word, _)| format!("{word:?}")).collect()))
    }
}

/// `"off"` or 0, or another kind.
pub(super) fn or_off<T>(
    read: impl Fn(&DeValue<'_>) -> Parsed<T>,
) -> impl Fn(&DeValue<'_>) -> Parsed<Option<T>> {
    move |value| {
        if is_off(value) {
            return Ok(None);
        }
        read(value)
            .map(Some)
            .map_err(|refusal| refusal.or_first("\"off\""))
    }
}

/// Whether a setting is turned off by `value`.
pub(super) fn is_off(value: &DeValue<'_>) -> bool {
    value.as_str() == Some("off") || integer(value) == Some(0)
}

/// `"auto"`, or another kind.
pub(super) fn or_auto<T>(
    read: impl Fn(&DeValue<'_>) -> Parsed<T>,
) -> impl Fn(&DeValue<'_>) -> Parsed<AutoOr<T>> {
    move |value| {
        if value.as_str() == Some("auto") {
            return Ok(AutoOr::Auto);
        }
        read(value)
            .map(AutoOr::Value)
            .map_err(|refusal| refusal.or_first("\"auto\""))
    }
}

/// Text that a type of ours reads; `allowed` describes it.
pub(super) fn text<T: FromStr>(allowed: &'static str) -> impl Fn(&DeValue<'_>) -> Parsed<T> {
    move |value| {
        value
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Refusal::new(allowed))
    }
}

/// The size of a pipe.
pub(super) fn pipe_size(value: &DeValue<'_>) -> Parsed<usize> {
    const SIZES: RangeInclusive<usize> = 4 << 10..=1 << 20;
    value
        .as_str()
        .and_then(parse_size)
        .filter(|size| SIZES.contains(size) && size.is_power_of_two())
        .ok_or_else(|| Refusal::new("a power of two from \"4KiB\" to \"1MiB\", such as \"256KiB\""))
}

/// An amount of bytes worth limiting.
pub(super) fn bytes(value: &DeValue<'_>) -> Parsed<NonZeroU64> {
    const AMOUNTS: RangeInclusive<usize> = 1 << 10..=1 << 40;
    value
        .as_str()
        .and_then(parse_size)
        .filter(|amount| AMOUNTS.contains(amount))
        .and_then(|amount| NonZeroU64::new(amount as u64))
        .ok_or_else(|| Refusal::new("bytes from \"1KiB\" to \"1024GiB\", such as \"10MiB\""))
}

fn parse_size(text: &str) -> Option<usize> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (number, unit) = units
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    number.trim_end().parse::<usize>().ok()?.checked_mul(*unit)
}

/// A path that does not depend on where the process was started.
pub(super) fn absolute_path(value: &DeValue<'_>) -> Parsed<PathBuf> {
    let path = value.as_str().map(PathBuf::from);
    path.filter(|path| path.is_absolute())
        .ok_or_else(|| Refusal::new("a path from the root, such as \"/run/tml-proxy/admin.sock\""))
}

/// Permission bits, in octal as text.
pub(super) fn file_mode(value: &DeValue<'_>) -> Parsed<u32> {
    let mode = value.as_str().map(|text| u32::from_str_radix(text, 8));
    mode.and_then(Result::ok)
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| Refusal::new("permission bits in octal, such as \"0660\""))
}

/// A group by name or by number.
pub(super) fn group_name(value: &DeValue<'_>) -> Parsed<String> {
    let name = value.as_str().filter(|name| !name.is_empty());
    name.map(str::to_owned)
        .ok_or_else(|| Refusal::new("the name or the number of a group, as text"))
}

/// Addresses that share a prefix; an address alone is a prefix too.
pub(super) fn prefix(value: &DeValue<'_>) -> Parsed<IpNet> {
    let net = value.as_str().and_then(|text| {
        let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
        text.parse::<IpNet>().ok().or_else(address)
    });
    match net {
        // Sources and targets are compared as IPv4, so this would never match.
        Some(IpNet::V6(net)) if net.network().to_ipv4_mapped().is_some() => {
            Err(Refusal::new("an IPv4 prefix written as IPv4"))
        }
        Some(net) => Ok(net.trunc()),
        None => Err(Refusal::new(
            "a prefix such as \"203.0.113.0/24\" or \"2001:db8::/32\"",
        )),
    }
}

/// An address of this machine to connect from.
pub(super) fn source_address(value: &DeValue<'_>) -> Parsed<IpAddr> {
    let address = value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    address
        .map(|ip| ip.to_canonical())
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
        .ok_or_else(|| Refusal::new("an IP address of this machine"))
}
