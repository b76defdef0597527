//! Kinds of values: how each is written, and what a message says is allowed.
//!
//! A kind is a function from a TOML value; kinds are put together with [`or_off`] and [`or_auto`].

use std::{fmt, net::IpAddr, num::NonZeroU64, ops::RangeInclusive, path::PathBuf, time::Duration};

use ipnet::IpNet;
use toml::de::DeValue;

use super::address::{
    NOT_LINK_LOCAL, OWN_LISTEN, is_broadcast, is_link_local, is_scoped, own_listen,
};
use crate::{auto_or::AutoOr, table::ListenAddr, units};

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

/// The longest path of a unix socket, in bytes: what the kernel takes (unix(7)) without the byte that
/// ends it.
pub(crate) const SOCKET_PATH_AT_MOST: usize = 107;

/// The longest duration of any setting, the longest year; keeps every deadline within reach of the
/// clock.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 86_400);

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
                    units::duration(*range.start()),
                    units::duration(*range.end()),
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

/// The address of a listener that is no mapping.
pub(super) fn own_listener(value: &DeValue<'_>) -> Parsed<ListenAddr> {
    let port = integer(value).map(|port| port.to_string());
    value
        .as_str()
        .or(port.as_deref())
        .ok_or_else(|| Refusal::new(OWN_LISTEN))
        .and_then(own_listen)
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

/// A path that does not depend on where the process was started, and that the kernel takes.
pub(super) fn absolute_path(value: &DeValue<'_>) -> Parsed<PathBuf> {
    /// `PATH_MAX` without the byte that ends it.
    const LONGEST: usize = 4095;
    /// `NAME_MAX`.
    const LONGEST_NAME: usize = 255;
    let text = value.as_str().filter(|text| text.starts_with('/'));
    let text = text.ok_or_else(|| {
        Refusal::new("a path from the root, such as \"/run/tml-proxy/admin.sock\"")
    })?;
    let names = || text.split('/');
    if text.contains('\0') || text.len() > LONGEST || names().any(|name| name.len() > LONGEST_NAME)
    {
        return Err(Refusal::new(format!(
            "a path of at most {LONGEST} bytes, {LONGEST_NAME} between two slashes, and none of them 0"
        )));
    }
    Ok(PathBuf::from(text))
}

/// The path of a unix socket.
pub(super) fn socket_path(value: &DeValue<'_>) -> Parsed<PathBuf> {
    let path = absolute_path(value)?;
    let names_a_file =
        path.file_name().is_some() && !path.as_os_str().as_encoded_bytes().ends_with(b"/");
    match names_a_file && path.as_os_str().len() <= SOCKET_PATH_AT_MOST {
        true => Ok(path),
        false => Err(Refusal::new(format!(
            "the path of a file, of at most {SOCKET_PATH_AT_MOST} bytes"
        ))),
    }
}

/// Permission bits, in octal as text.
pub(super) fn file_mode(value: &DeValue<'_>) -> Parsed<u32> {
    let mode = value.as_str().map(|text| u32::from_str_radix(text, 8));
    mode.and_then(Result::ok)
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| Refusal::new("permission bits in octal, such as \"0660\""))
}

/// A group by name or by number. The largest number there is means "leave it as it is" to chown(2).
pub(super) fn group_name(value: &DeValue<'_>) -> Parsed<String> {
    let fit = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    value
        .as_str()
        .filter(|name| !name.is_empty() && name.chars().all(fit))
        .filter(|name| {
            !is_number(name) || name.parse::<u32>().is_ok_and(|number| number < u32::MAX)
        })
        .map(str::to_owned)
        .ok_or_else(|| Refusal::new("the name or the number of a group, as text"))
}

/// A name by which others know this machine, in small letters.
pub(super) fn own_name(value: &DeValue<'_>) -> Parsed<String> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_name = |text: &&str| {
        (1..=253).contains(&text.len())
            && text.chars().all(fit)
            && !text.starts_with(['-', '.'])
            && !text.ends_with('.')
    };
    let name = value.as_str().filter(is_name);
    name.map(str::to_ascii_lowercase)
        .ok_or_else(|| Refusal::new("a name without a port, such as \"proxy.example.org\""))
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
    let text = value.as_str().unwrap_or_default();
    let address = text.parse::<IpAddr>().map(|ip| ip.to_canonical()).ok();
    if is_scoped(text) || address.is_some_and(is_link_local) {
        return Err(Refusal::new(NOT_LINK_LOCAL));
    }
    address
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast(*ip))
        .ok_or_else(|| Refusal::new("an IP address of this machine"))
}
