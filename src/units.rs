//! Numbers with units, short enough for a column, and durations as a configuration has them.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use humantime::DurationError;

/// Bytes: `0`, `999`, `1.5K`, `12M`, in powers of 1024.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    let mut value = count as f64;
    let mut unit = "";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match unit.is_empty() || value >= 9.95 {
        true => format!("{value:.0}{unit}"),
        false => format!("{value:.1}{unit}"),
    }
}

/// How many there are: `1 mapping`, `2 mappings`.
pub fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Bytes per second.
pub fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", bytes(bytes_per_second.max(0.0) as u64))
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration by its two largest units: `350ms`, `12s`, `3m 05s`, `2h 07m`, `12d 04h`.
pub fn duration_ms(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A duration as it may stand in a configuration, to the nanosecond: `0s`, `1h 30m`, `31days`.
///
/// Days are the largest unit. [`humantime::format_duration`] goes on to months and years, which are
/// fractions of days: to it 31 days are `1month 13h 26m 24s`.
pub fn duration(duration: Duration) -> String {
    const DAY: u64 = 86_400;
    let days = duration.as_secs() / DAY;
    let rest = duration - Duration::from_secs(days * DAY);
    let plural = if days == 1 { "" } else { "s" };
    let short = humantime::format_duration(rest);
    match (days, rest.is_zero()) {
        (0, _) => short.to_string(),
        (_, true) => format!("{days}day{plural}"),
        (_, false) => format!("{days}day{plural} {short}"),
    }
}

/// Bytes as they may stand in a configuration, down to whole KiB: `64KiB`, `10MiB`.
pub fn size(bytes: u64) -> String {
    match bytes >> 10 {
        kib if kib % 1024 == 0 => format!("{}MiB", kib >> 10),
        kib => format!("{kib}KiB"),
    }
}

/// A duration as [`humantime`] reads it.
///
/// It panics where a sum ends just past the last second there is. Eleven digits do not get there, not
/// even as years.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    match text.chars().filter(char::is_ascii_digit).count() {
        ..=11 => humantime::parse_duration(text),
        _ => Err(DurationError::NumberOverflow),
    }
}

/// A random duration between half of `wait` and all of it, so that those who were stopped together
/// do not come back together.
pub fn jittered(wait: Duration) -> Duration {
    // Keyed anew from the system's randomness every time.
    let random = RandomState::new().hash_one(0) as u32;
    wait.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_stay_days_where_a_duration_is_printed_back() {
        for text in [
            "0s",
            "90s",
            "1day",
            "1h 30m",
            "31days",
            "365days 1ms",
            "400days 23h 59m 59s",
        ] {
            let span = humantime::parse_duration(text).expect("valid");
            let printed = duration(span);
            assert_eq!(humantime::parse_duration(&printed), Ok(span), "{printed}");
            if text != "90s" {
                assert_eq!(printed, text);
            }
        }
        assert_eq!(duration(Duration::from_secs(90)), "1m 30s");
    }

    #[test]
    fn no_duration_is_too_long_to_be_refused() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for text in [
            "18446744073709551615s 1s",
            "584542046090years 100years",
            "1h1",
            "",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_is_singular() {
        let counts = [0, 1, 2].map(|number| count(number, "mapping"));
        assert_eq!(counts, ["0 mappings", "1 mapping", "2 mappings"]);
    }

    #[test]
    fn bytes_take_at_most_four_characters() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1.0K"),
            (1536, "1.5K"),
            (10 * 1024, "10K"),
            (1023 * 1024, "1.0M"),
            (3 << 30, "3.0G"),
            (u64::MAX, "16E"),
        ];
        for (count, expected) in cases {
            assert_eq!(bytes(count), expected, "{count}");
        }
    }

    #[test]
    fn durations_have_two_units() {
        let cases = [
            (0, "0ms"),
            (999, "999ms"),
            (59_999, "59s"),
            (185_000, "3m 05s"),
            (7_620_000, "2h 07m"),
            (1_051_200_000, "12d 04h"),
        ];
        for (millis, expected) in cases {
            assert_eq!(duration_ms(millis), expected);
        }
    }
}
