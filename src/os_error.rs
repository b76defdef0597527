//! Errors of the operating system as a message for people has them.

use std::io;

/// The error in words, without the number that the standard library puts behind them.
pub fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let number = error
        .raw_os_error()
        .map(|code| format!(" (os error {code})"));
    match number.and_then(|number| text.strip_suffix(&number)) {
        Some(words) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_follows_the_words() {
        let gone = io::Error::from_raw_os_error(2);
        assert_eq!(in_words(&gone), "No such file or directory");
        let own = io::Error::other("longer than 64 MiB");
        assert_eq!(in_words(&own), "longer than 64 MiB");
    }
}
