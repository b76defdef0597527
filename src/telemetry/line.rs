//! One line of the session log, in the manner of every other line of the log.
//!
//! It is put together here because there is one for every connection: as an event of `tracing` it
//! took 2.3 µs, and two of them a sixth of what a connection takes altogether.

use std::{
    fmt::Display,
    io::Write,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::units::millis;

/// What lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// An object of JSON.
    Json,
    /// Text for people, in colour where a terminal shows it.
    Text {
        /// Whether to send the terminal's codes for colours.
        colour: bool,
    },
}

/// A line being written.
#[derive(Debug)]
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: LineFormat,
}

// Writing to memory cannot fail, hence the results left alone below.
impl<'a> Line<'a> {
    /// Begins a line about something that happened `at`.
    pub(super) fn begin(out: &'a mut Vec<u8>, format: LineFormat, at: SystemTime) -> Self {
        let at = humantime::format_rfc3339_micros(at);
        let _ = match format {
            LineFormat::Json => write!(out, r#"{{"timestamp":"{at}","level":"INFO""#),
            LineFormat::Text { colour: false } => write!(out, "{at}  INFO"),
            LineFormat::Text { colour: true } => {
                write!(out, "\x1b[2m{at}\x1b[0m \x1b[32m INFO\x1b[0m")
            }
        };
        Self { out, format }
    }

    /// Says what happened; comes first.
    pub fn message(&mut self, message: &str) -> &mut Self {
        match self.format {
            LineFormat::Json => self.json("message", message),
            LineFormat::Text { .. } => {
                let _ = write!(self.out, " {message}");
            }
        }
        self
    }

    /// Adds a field.
    pub fn field(&mut self, key: &str, value: impl Display) -> &mut Self {
        match self.format {
            LineFormat::Json => self.json(key, &value.to_string()),
            LineFormat::Text { colour } => self.text(key, value, colour),
        }
        self
    }

    /// Adds a field that is a number.
    pub fn number(&mut self, key: &str, value: u64) -> &mut Self {
        match self.format {
            LineFormat::Json => self.json(key, &value),
            LineFormat::Text { colour } => self.text(key, value, colour),
        }
        self
    }

    /// Adds a time in whole milliseconds.
    pub fn millis(&mut self, key: &str, value: Duration) -> &mut Self {
        self.number(key, millis(value))
    }

    pub(super) fn end(self) {
        if self.format == LineFormat::Json {
            self.out.push(b'}');
        }
        self.out.push(b'\n');
    }

    fn json<V: Serialize + ?Sized>(&mut self, key: &str, value: &V) {
        let _ = write!(self.out, ",\"{key}\":");
        let _ = serde_json::to_writer(&mut *self.out, value);
    }

    fn text(&mut self, key: &str, value: impl Display, colour: bool) {
        let _ = match colour {
            true => write!(self.out, " \x1b[3m{key}\x1b[0m\x1b[2m=\x1b[0m{value}"),
            false => write!(self.out, " {key}={value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::SystemTime,
    };

    use tracing_subscriber::layer::SubscriberExt;

    use super::{super::log, Line, LineFormat};

    fn by_hand(format: LineFormat) -> String {
        let mut out = Vec::new();
        let mut line = Line::begin(&mut out, format, SystemTime::now());
        line.message("session ended")
            .number("session", 17)
            .field("client", "[::1]:9")
            .field("name", "a \"b\"");
        line.end();
        String::from_utf8(out).expect("text")
    }

    fn as_event(format: LineFormat) -> String {
        let out = Arc::new(Mutex::new(Vec::new()));
        let writer = {
            let out = Arc::clone(&out);
            move || Sink(Arc::clone(&out))
        };
        let subscriber = tracing_subscriber::registry().with(log::lines(format, writer));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(session = 17, client = %"[::1]:9", name = %"a \"b\"", "session ended");
        });
        let out = out.lock().expect("written").clone();
        String::from_utf8(out).expect("text")
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("written").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The line with every digit of its time the same.
    fn timeless(line: &str) -> String {
        let (time, rest) = line.split_at(line.find('Z').expect("a time"));
        time.replace(|letter: char| letter.is_ascii_digit(), "0") + rest
    }

    #[test]
    fn a_line_is_like_that_of_an_event() {
        for format in [
            LineFormat::Json,
            LineFormat::Text { colour: false },
            LineFormat::Text { colour: true },
        ] {
            let [ours, theirs] = [by_hand(format), as_event(format)].map(|line| timeless(&line));
            assert_eq!(ours, theirs);
        }
    }
}
