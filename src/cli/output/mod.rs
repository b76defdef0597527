//! Writing to people: tables that fit the terminal, numbers with units, colour where there is some.

mod columns;
mod screen;
mod wrap;

pub use crate::units::{bytes, duration_ms, rate};
pub use columns::{Align, Column, GAP, columns, table};
pub use screen::{Paint, Screen};
pub use wrap::{one_line, wrapped};

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

use super::{client::ClientError, code};
use crate::{
    admin::api::model::{Failure, Severity},
    os_error::in_words,
};

pub fn print(text: &str) -> ExitCode {
    print_one(text).unwrap_or(ExitCode::SUCCESS)
}

/// Prints one of several texts, and says with which code to leave if nobody wants the others.
pub fn print_one(text: &str) -> Option<ExitCode> {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => None,
        // Whoever read it has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Some(ExitCode::SUCCESS),
        Err(error) => {
            complain(&format_args!("standard output: {}", in_words(&error)));
            Some(ExitCode::from(code::FAILED))
        }
    }
}

pub fn json(document: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(document)
        .expect("text, numbers and lists of them are always JSON");
    text.push('\n');
    text
}

pub fn complain(what: &dyn Display) {
    // When that fails too, the exit code still tells.
    let _ = writeln!(io::stderr(), "{what}");
}

/// Prints an answer as JSON or in words, or says why there is none.
pub fn answer<T: Serialize>(
    answer: Result<T, ClientError>,
    json: bool,
    words: impl FnOnce(&T) -> String,
) -> ExitCode {
    match answer {
        Ok(answer) if json => print(&self::json(&answer)),
        Ok(answer) => print(&words(&answer)),
        Err(error) => give_up(&error, json),
    }
}

/// A cell of a table, which may have nothing to say.
pub fn or_dash(cell: Option<impl Display>) -> String {
    cell.map_or_else(|| "-".to_owned(), |cell| cell.to_string())
}

/// A port of a host as it is copied into a command.
pub fn at(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// How bad a problem is, as it stands before it.
pub fn severity(screen: &Screen, severity: Severity) -> String {
    let paint = match severity {
        Severity::Error => Paint::Bad,
        Severity::Warning => Paint::Warn,
        Severity::Note => Paint::Dim,
    };
    screen.paint(paint, severity.word())
}

/// A document in a line, for where there are several.
pub fn json_line(document: &impl Serialize) -> String {
    let text = serde_json::to_string(document);
    text.expect("text, numbers and lists of them are always JSON") + "\n"
}

/// Says what went wrong; with `--json` as JSON, where the answer would have been.
pub fn refuse(why: &dyn Display, json: bool, code: u8) -> ExitCode {
    match json {
        false => complain(why),
        true => {
            let error = why.to_string();
            // That this may fail is no news beside it.
            print(&json_line(&Failure { error }));
        }
    }
    ExitCode::from(code)
}

/// Says why there is no answer, and with which code to leave.
pub fn give_up(error: &ClientError, json: bool) -> ExitCode {
    let code = match error {
        ClientError::Unreachable { .. } | ClientError::NoServer { .. } => code::UNREACHABLE,
        ClientError::Usage(_) => code::USAGE,
        ClientError::Busy(_) | ClientError::Refused(_) => code::REFUSED,
        ClientError::Strange(_) => code::FAILED,
    };
    match json {
        true => refuse(error, json, code),
        false => refuse(&format_args!("tml-proxy: {error}"), json, code),
    }
}
