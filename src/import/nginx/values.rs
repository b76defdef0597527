//! Times and sizes as nginx reads them.

use std::time::Duration;

/// A time of nginx: a sum of numbers with units, or a number of seconds.
pub fn time(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let unit_end = behind
            .find(|c: char| c.is_ascii_digit() || c == ' ')
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let millis = match unit {
            "ms" => 1,
            "s" | "" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        let number: u64 = number.parse().ok()?;
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = behind.trim_start();
    }
    Some(sum)
}

/// A number of bytes, nothing if it is none or is computed.
pub fn size(text: &str) -> Option<u64> {
    let shift = match text.bytes().last()? {
        b'k' | b'K' => 10,
        b'm' | b'M' => 20,
        b'g' | b'G' => 30,
        _ => 0,
    };
    let digits = if shift == 0 {
        text
    } else {
        &text[..text.len() - 1]
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_a_unit_is_in_seconds() {
        for (text, seconds) in [
            ("60", 60),
            ("10m", 600),
            ("1h30m", 5400),
            ("1h 30s", 3630),
            ("1w", 604_800),
        ] {
            assert_eq!(time(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("5x"), None);
    }

    #[test]
    fn a_size_is_in_powers_of_1024() {
        for (text, bytes) in [("0", 0), ("100", 100), ("10k", 10 << 10), ("3M", 3 << 20)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "k", "1x", "$rate"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
