//! `filter bwlim-in` and `bwlim-out`, which HAProxy has since 2.7.
//!
//! A limit that all connections of a source share has a counterpart. One of each connection has none, and
//! is said with what comes closest.

use super::{limits, proxy::Proxy, sections::Line, values};
use crate::{
    import::{
        Remark,
        model::{Settings, Value},
    },
    units,
};

/// The least and the most that can be written, in bytes.
const AMOUNTS: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 40;

/// Writes the limits of a front end and the back end it leads to.
pub fn set(
    settings: &mut Settings,
    proxies: &[&Proxy],
    tables: &[Proxy],
    remarks: &mut Vec<Remark>,
) {
    let mut found: Vec<(&Line, u64, u64)> = Vec::new();
    let lines = proxies.iter().flat_map(|proxy| &proxy.bandwidths);
    for line in lines {
        let asks =
            |rule: &&Line| rule.word(2) == "set-bandwidth-limit" && rule.word(3) == line.word(2);
        let rules = proxies.iter().flat_map(|proxy| proxy.rules());
        let rules: Vec<&Line> = rules.filter(asks).collect();
        let value = |key: &str| {
            let at = line.words.iter().position(|word| word == key)?;
            line.words.get(at + 1).map(String::as_str)
        };
        match rules[..] {
            [] => {
                remarks.push(line.dropped("no rule makes use of it"));
                continue;
            }
            [rule] if rule.words.len() == 4 => {}
            [rule, ..] => {
                let why = "a rule makes it of some connections, or of another amount";
                let remark = rule.dropped(why);
                remarks.push(remark.instead("see bandwidth and bandwidth_per_source"));
                continue;
            }
        }
        if let (Some(limit), Some(key)) = (value("limit").and_then(size), value("key")) {
            let own = line.words.iter().position(|word| word == "table");
            let name = own.and_then(|at| line.words.get(at + 1));
            let table = tables.iter().find(|proxy| {
                name.is_none_or(|name| proxy.name == *name) && proxy.stick_table.is_some()
            });
            let period = table.and_then(|table| {
                let counters = ["bytes_in_rate", "bytes_out_rate"];
                limits::period(table.stick_table.as_ref()?, &counters)
            });
            match (key, period) {
                ("src", Some(period)) => found.push((line, limit, period)),
                _ => {
                    let remark =
                        line.dropped("it is shared by others than the connections of a source");
                    remarks.push(remark.instead("see bandwidth"));
                }
            }
            continue;
        }
        let limit = value("default-limit").and_then(size);
        let period = value("default-period").and_then(|text| values::time(text).ok()?.0);
        let why = "it is of each connection, and there is no such limit here";
        let instead = match (limit, period) {
            (Some(limit), Some(period)) => {
                let second = u128::from(limit) * 1000 / period.as_millis().max(1);
                let second = u64::try_from(second).unwrap_or(u64::MAX);
                let amount = units::size(second.clamp(*AMOUNTS.start(), *AMOUNTS.end()));
                format!(
                    "bandwidth_per_source = \"{amount}\" is the same for a source with one connection"
                )
            }
            _ => "see bandwidth_per_source".to_owned(),
        };
        remarks.push(line.dropped(why).instead(instead));
    }
    let least = found
        .iter()
        .min_by_key(|(_, limit, period)| limit / (*period).max(1));
    let Some((line, limit, seconds)) = least else {
        return;
    };
    let mut directions = found.iter().map(|(line, ..)| line.word(1));
    let one = directions.next();
    if found.len() == 1 || directions.all(|other| Some(other) == one) {
        let why = "it is of one direction, and bandwidth_per_source is of each of both";
        remarks.push(line.different(why));
    } else if found.iter().any(|(_, other, _)| other != limit) {
        let why = "both directions have the lower of two limits";
        remarks.push(line.different(why));
    }
    let amount = Value::Text(units::size(
        (*limit).clamp(*AMOUNTS.start(), *AMOUNTS.end()),
    ));
    let value = match seconds {
        1 => amount,
        seconds => {
            let per = std::time::Duration::from_secs(*seconds);
            let per = Value::Text(units::duration(per));
            Value::Table(vec![("rate", amount), ("per", per)])
        }
    };
    settings.set("bandwidth_per_source", value, line.comments.clone());
}

/// A number of bytes as HAProxy reads it.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = values::leading_number(text);
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_powers_of_1024() {
        for (text, bytes) in [
            ("100", 100),
            ("625k", 640_000),
            ("1m", 1 << 20),
            ("2G", 2 << 30),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "0", "1x", "k"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
