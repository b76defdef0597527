//! The kinds of values that more than one setting has.

use std::{
    fmt::Display,
    marker::PhantomData,
    net::IpAddr,
    num::NonZeroU64,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserializer, de::SeqAccess};

#[cfg(test)]
use super::schema;
use super::{
    AutoOr, Found, Json, Kind, Refusal, Words,
    address::{NOT_LINK_LOCAL, is_broadcast, is_link_local, is_scoped},
    items,
};
use crate::units;

/// The longest path of a unix socket, in bytes: what the kernel takes (unix(7)) without the byte that
/// ends it.
pub(crate) const LONGEST_SOCKET_PATH: usize = 107;

/// The seconds of the longest year; keeps every deadline within reach of the clock.
const YEAR: u64 = 366 * 86_400;

/// Makes a [`Kind`] of functions.
macro_rules! kind {
    ($name:ident, $value:ty, $read:expr, $write:expr, $schema:expr) => {
        pub(crate) struct $name;

        impl Kind for $name {
            type Value = $value;

            fn read(found: Found<'_>) -> Result<$value, Refusal> {
                $read(found)
            }

            fn write(value: &$value) -> Json {
                $write(value)
            }

            #[cfg(test)]
            fn schema() -> Json {
                $schema
            }
        }
    };
}

/// `"off"` or 0, or another kind.
pub struct Off<K>(PhantomData<K>);

impl<K: Kind> Kind for Off<K> {
    type Value = Option<K::Value>;

    const LISTS: bool = K::LISTS;
    const TABLES: bool = K::TABLES;

    fn read(found: Found<'_>) -> Result<Self::Value, Refusal> {
        if found.is("off") || found.integer() == Some(0) {
            return Ok(None);
        }
        let refusal = |refusal: Refusal| refusal.or_first("\"off\"");
        K::read(found).map(Some).map_err(refusal)
    }

    fn list<'de, A: SeqAccess<'de>>(items: A) -> Result<Self::Value, A::Error> {
        K::list(items).map(Some)
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self::Value, D::Error> {
        K::table(table).map(Some)
    }

    fn write(value: &Self::Value) -> Json {
        value.as_ref().map_or("off".into(), K::write)
    }

    #[cfg(test)]
    fn schema() -> Json {
        schema::or(
            schema::words(&["off"]),
            schema::or(serde_json::json!({ "const": 0 }), K::schema()),
        )
    }
}

/// `"off"` or 0 for the value that is 0, or another kind.
pub(crate) struct OffIsZero<K>(PhantomData<K>);

impl<K: Kind> Kind for OffIsZero<K>
where
    K::Value: Default + PartialEq,
{
    type Value = K::Value;

    fn read(found: Found<'_>) -> Result<Self::Value, Refusal> {
        Off::<K>::read(found).map(Option::unwrap_or_default)
    }

    fn write(value: &Self::Value) -> Json {
        match *value == K::Value::default() {
            true => "off".into(),
            false => K::write(value),
        }
    }

    #[cfg(test)]
    fn schema() -> Json {
        Off::<K>::schema()
    }
}

/// `"auto"`, or another kind.
pub struct Auto<K>(PhantomData<K>);

impl<K: Kind> Kind for Auto<K> {
    type Value = AutoOr<K::Value>;

    fn read(found: Found<'_>) -> Result<Self::Value, Refusal> {
        if found.is("auto") {
            return Ok(AutoOr::Auto);
        }
        let refusal = |refusal: Refusal| refusal.or_first("\"auto\"");
        K::read(found).map(AutoOr::Value).map_err(refusal)
    }

    fn write(value: &Self::Value) -> Json {
        match value {
            AutoOr::Auto => "auto".into(),
            AutoOr::Value(value) => K::write(value),
        }
    }

    #[cfg(test)]
    fn schema() -> Json {
        schema::or(schema::words(&["auto"]), K::schema())
    }
}

/// `"keep"`, or another kind.
pub(crate) struct KeepOr<K>(PhantomData<K>);

impl<K: Kind> Kind for KeepOr<K> {
    type Value = Option<K::Value>;

    fn read(found: Found<'_>) -> Result<Self::Value, Refusal> {
        if found.is("keep") {
            return Ok(None);
        }
        let refusal = |refusal: Refusal| refusal.or("\"keep\"");
        K::read(found).map(Some).map_err(refusal)
    }

    fn write(value: &Self::Value) -> Json {
        value.as_ref().map_or("keep".into(), K::write)
    }

    #[cfg(test)]
    fn schema() -> Json {
        schema::or(schema::words(&["keep"]), K::schema())
    }
}

/// A value of another kind that may be left out.
pub(crate) struct Given<K>(PhantomData<K>);

impl<K: Kind> Kind for Given<K> {
    type Value = Option<K::Value>;

    const LISTS: bool = K::LISTS;
    const TABLES: bool = K::TABLES;

    fn read(found: Found<'_>) -> Result<Self::Value, Refusal> {
        K::read(found).map(Some)
    }

    fn list<'de, A: SeqAccess<'de>>(items: A) -> Result<Self::Value, A::Error> {
        K::list(items).map(Some)
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self::Value, D::Error> {
        K::table(table).map(Some)
    }

    fn write(value: &Self::Value) -> Json {
        value.as_ref().map_or(Json::Null, K::write)
    }

    #[cfg(test)]
    fn schema() -> Json {
        K::schema()
    }
}

/// A list of values of another kind.
pub(crate) struct List<K>(PhantomData<K>);

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    const LISTS: bool = true;

    fn read(_: Found<'_>) -> Result<Self::Value, Refusal> {
        Err(Refusal::new("a list"))
    }

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self::Value, A::Error> {
        items::<K, A>(list)
    }

    fn write(values: &Self::Value) -> Json {
        values.iter().map(K::write).collect()
    }

    #[cfg(test)]
    fn schema() -> Json {
        serde_json::json!({ "type": "array", "items": K::schema() })
    }
}

/// One of the words of a type.
pub(crate) struct Word<T>(PhantomData<T>);

impl<T: Words> Kind for Word<T> {
    type Value = T;

    fn read(found: Found<'_>) -> Result<T, Refusal> {
        let word = found.text().and_then(T::of_word);
        let words = || T::WORDS.iter().map(|(word, _)| format!("{word:?}"));
        word.ok_or_else(|| Refusal::Allowed(words().collect()))
    }

    fn write(value: &T) -> Json {
        value.word().into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
        schema::words(&words)
    }
}

/// A number within limits.
pub(crate) struct Number<T, const MIN: u32, const MAX: u32>(PhantomData<T>);

/// Any count but 0.
pub(crate) type Count<T> = Number<T, 1, { u32::MAX }>;

impl<T: TryFrom<u32> + Copy + Into<u32>, const MIN: u32, const MAX: u32> Kind
    for Number<T, MIN, MAX>
{
    type Value = T;

    fn read(found: Found<'_>) -> Result<T, Refusal> {
        found
            .integer()
            .filter(|number| (MIN..=MAX).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| Refusal::new(format!("a number from {MIN} to {MAX}")))
    }

    fn write(value: &T) -> Json {
        let number: u32 = (*value).into();
        number.into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        serde_json::json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A duration from so many milliseconds to so many seconds.
pub(crate) struct Span<const MIN_MS: u64 = 1, const MAX_S: u64 = YEAR>;

impl<const MIN_MS: u64, const MAX_S: u64> Kind for Span<MIN_MS, MAX_S> {
    type Value = Duration;

    fn read(found: Found<'_>) -> Result<Duration, Refusal> {
        if let Found::Integer(_) = found {
            let number = found.integer().unwrap_or(90);
            return Err(Refusal::new(format!(
                "a duration with its unit, such as \"{number}s\" or \"{number}m\""
            )));
        }
        let (first, last) = (Duration::from_millis(MIN_MS), Duration::from_secs(MAX_S));
        found
            .text()
            .and_then(|text| units::parse_duration(text).ok())
            .filter(|duration| (first..=last).contains(duration))
            .ok_or_else(|| {
                let (first, last) = (units::duration(first), units::duration(last));
                Refusal::new(format!(
                    "a duration from {first} to {last}, such as \"90s\" or \"1h 30m\""
                ))
            })
    }

    fn write(value: &Duration) -> Json {
        units::duration(*value).into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        schema::text("^ *[0-9]+ *[a-zµ]+( *[0-9]+ *[a-zµ]+)* *$")
    }
}

/// A duration in whole seconds within limits.
pub(crate) struct Seconds<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Kind for Seconds<MIN, MAX> {
    type Value = Duration;

    fn read(found: Found<'_>) -> Result<Duration, Refusal> {
        found
            .text()
            .and_then(|text| units::parse_duration(text).ok())
            .filter(|duration| {
                duration.subsec_nanos() == 0 && (MIN..=MAX).contains(&duration.as_secs())
            })
            .ok_or_else(|| Refusal::new(format!("whole seconds from \"{MIN}s\" to \"{MAX}s\"")))
    }

    fn write(value: &Duration) -> Json {
        units::duration(*value).into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        Span::<1>::schema()
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (number, unit) = units
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    number.trim_end().parse::<u64>().ok()?.checked_mul(*unit)
}

fn write_size(bytes: u64) -> Json {
    units::size(bytes).into()
}

#[cfg(test)]
fn size_schema() -> Json {
    schema::text("^[0-9]+ *(KiB|MiB|GiB)$")
}

fn pipe_size(found: Found<'_>) -> Result<usize, Refusal> {
    const SIZES: RangeInclusive<u64> = 4 << 10..=1 << 20;
    found
        .text()
        .and_then(parse_size)
        .filter(|size| SIZES.contains(size) && size.is_power_of_two())
        .and_then(|size| usize::try_from(size).ok())
        .ok_or_else(|| Refusal::new("a power of two from \"4KiB\" to \"1MiB\", such as \"256KiB\""))
}

kind!(
    PipeSize,
    usize,
    pipe_size,
    |size: &usize| write_size(*size as u64),
    size_schema()
);

fn bytes(found: Found<'_>) -> Result<NonZeroU64, Refusal> {
    const AMOUNTS: RangeInclusive<u64> = 1 << 10..=1 << 40;
    found
        .text()
        .and_then(parse_size)
        .filter(|amount| AMOUNTS.contains(amount))
        .and_then(NonZeroU64::new)
        .ok_or_else(|| Refusal::new("bytes from \"1KiB\" to \"1024GiB\", such as \"10MiB\""))
}

kind!(
    Bytes,
    NonZeroU64,
    bytes,
    |amount: &NonZeroU64| write_size(amount.get()),
    size_schema()
);

fn per_second(found: Found<'_>) -> Result<NonZeroU64, Refusal> {
    Number::<std::num::NonZeroU32, 1, 1_000_000>::read(found).map(NonZeroU64::from)
}

kind!(
    PerSecond,
    NonZeroU64,
    per_second,
    |number: &NonZeroU64| number.get().into(),
    Number::<u32, 1, 1_000_000>::schema()
);

/// A path that does not depend on where the process was started, and that the kernel takes.
fn path_from_root(found: Found<'_>) -> Result<PathBuf, Refusal> {
    /// `PATH_MAX` without the byte that ends it.
    const LONGEST: usize = 4095;
    /// `NAME_MAX`.
    const LONGEST_NAME: usize = 255;
    let text = found.text().filter(|text| text.starts_with('/'));
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

fn write_path(path: &PathBuf) -> Json {
    text(Path::new(path).display())
}

kind!(
    PathFromRoot,
    PathBuf,
    path_from_root,
    write_path,
    schema::text("^/")
);

fn socket_path(found: Found<'_>) -> Result<PathBuf, Refusal> {
    let path = path_from_root(found)?;
    let bytes = path.as_os_str().as_encoded_bytes();
    let names_a_file = path.file_name().is_some() && !bytes.ends_with(b"/");
    match names_a_file && bytes.len() <= LONGEST_SOCKET_PATH {
        true => Ok(path),
        false => Err(Refusal::new(format!(
            "the path of a file, of at most {LONGEST_SOCKET_PATH} bytes"
        ))),
    }
}

kind!(
    SocketPath,
    PathBuf,
    socket_path,
    write_path,
    schema::text("^/")
);

/// Permission bits, in octal as text.
fn file_mode(found: Found<'_>) -> Result<u32, Refusal> {
    let mode = found.text().map(|text| u32::from_str_radix(text, 8));
    mode.and_then(Result::ok)
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| Refusal::new("permission bits in octal, such as \"0660\""))
}

kind!(
    FileMode,
    u32,
    file_mode,
    |mode: &u32| format!("{mode:04o}").into(),
    schema::text("^[0-7]+$")
);

/// A group by name or by number. The largest number there is means "leave it as it is" to chown(2).
fn group(found: Found<'_>) -> Result<String, Refusal> {
    let fit = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    found
        .text()
        .filter(|name| !name.is_empty() && name.chars().all(fit))
        .filter(|name| {
            !is_number(name) || name.parse::<u32>().is_ok_and(|number| number < u32::MAX)
        })
        .map(str::to_owned)
        .ok_or_else(|| Refusal::new("the name or the number of a group, as text"))
}

kind!(Group, String, group, text, schema::text("^[^:\\s]+$"));

/// A name by which others know this machine, in small letters.
fn own_name(found: Found<'_>) -> Result<String, Refusal> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_name = |text: &&str| {
        (1..=253).contains(&text.len())
            && text.chars().all(fit)
            && !text.starts_with(['-', '.'])
            && !text.ends_with('.')
    };
    let name = found.text().filter(is_name);
    name.map(str::to_ascii_lowercase)
        .ok_or_else(|| Refusal::new("a name without a port, such as \"proxy.example.org\""))
}

kind!(
    OwnName,
    String,
    own_name,
    text,
    schema::text("^[A-Za-z0-9_][-A-Za-z0-9._]*$")
);

/// Addresses that share a prefix; an address alone is a prefix too.
fn prefix(found: Found<'_>) -> Result<IpNet, Refusal> {
    let net = found.text().and_then(|text| {
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

kind!(
    Prefix,
    IpNet,
    prefix,
    text,
    schema::text("^[0-9a-fA-F:.]+(/[0-9]+)?$")
);

/// An address of this machine to connect from.
fn local_address(found: Found<'_>) -> Result<IpAddr, Refusal> {
    let text = found.text().unwrap_or_default();
    let address = text.parse::<IpAddr>().map(|ip| ip.to_canonical()).ok();
    if is_scoped(text) || address.is_some_and(is_link_local) {
        return Err(Refusal::new(NOT_LINK_LOCAL));
    }
    address
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast(*ip))
        .ok_or_else(|| Refusal::new("an IP address of this machine"))
}

kind!(
    LocalAddress,
    IpAddr,
    local_address,
    text,
    schema::text("^[0-9a-fA-F:.]+$")
);

fn text(value: impl Display) -> Json {
    value.to_string().into()
}
