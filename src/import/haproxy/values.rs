//! Times and numbers as HAProxy reads them.

use std::time::Duration;

/// The longest time, in milliseconds.
const LONGEST: u64 = i32::MAX as u64;

/// A time, and what of it HAProxy passes over.
pub fn time(text: &str) -> Result<(Option<Duration>, &str), String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let allowed = "allowed: a whole number with us, ms, s, m, h or d, or without for milliseconds";
    let number: u64 = number.parse().map_err(|_| allowed.to_owned())?;
    let (micros, taken) = match unit.as_bytes() {
        [] => (1000, 0),
        [b'u', b's', ..] => (1, 2),
        [b'm', b's', ..] => (1000, 2),
        [b's', ..] => (1_000_000, 1),
        [b'm', ..] => (60_000_000, 1),
        [b'h', ..] => (3_600_000_000, 1),
        [b'd', ..] => (86_400_000_000, 1),
        _ => return Err(allowed.to_owned()),
    };
    let micros = number.checked_mul(micros);
    let millis = micros.map(|micros| micros.div_ceil(1000));
    let millis = millis.filter(|millis| *millis <= LONGEST);
    let millis = millis.ok_or("longer than 24.8 days, which HAProxy refuses")?;
    let span = (millis > 0).then(|| Duration::from_millis(millis));
    Ok((span, &unit[taken..]))
}

/// The number that C's `atol` finds: digits at the beginning, whatever follows.
pub fn leading_number(text: &str) -> (u64, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    (number.parse().unwrap_or_default(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_haproxy_reads_them() {
        for (text, millis, rest) in [
            ("5000", 5000, ""),
            ("5s", 5000, ""),
            ("500us", 1, ""),
            ("8h", 28_800_000, ""),
            ("1d", 86_400_000, ""),
            ("1m30s", 60_000, "30s"),
            ("2147483647", 2_147_483_647, ""),
        ] {
            let span = Some(Duration::from_millis(millis));
            assert_eq!(time(text), Ok((span, rest)), "{text}");
        }
        assert_eq!(time("0"), Ok((None, "")));
        for text in ["", "s", "1w", "1M", "-1", "1.5s", "25d", "2147483648"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
