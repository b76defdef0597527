//! Why a request came to nothing: one value a cause, saying whose fault it was.
//!
//! Texts are for operators. They carry what was found and what would have been allowed, bounded
//! and with control characters escaped where they come from outside, and never the token.

use std::{error::Error, fmt::Write as _, io, time::Duration};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use strum::{EnumDiscriminants, IntoStaticStr, VariantArray};

use crate::{provider::switchboard::read::Unreadable, text::printable};

/// How much of somebody else's words goes into a text, in characters.
const WORDS_AT_MOST: usize = 240;

/// Why a request came to nothing.
#[derive(
    Debug, Clone, PartialEq, Eq, thiserror::Error, EnumDiscriminants, Serialize, Deserialize,
)]
#[strum_discriminants(
    name(FailureKind),
    derive(Hash, PartialOrd, Ord, IntoStaticStr, VariantArray),
    strum(serialize_all = "snake_case"),
    doc = "The causes as they are counted.",
    allow(missing_docs)
)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Failure {
    /// Nothing to talk to, and the words for it.
    #[error("no connection: {} ({words})", cause.text())]
    Connect {
        cause: ConnectCause,
        words: Box<str>,
    },
    #[error("no complete answer within {} s", allowed.as_secs_f64())]
    Timeout { allowed: Duration },
    #[error("the connection ended before the answer: {0}")]
    Cut(Box<str>),
    /// With the token that the file holds now.
    #[error("401: the token of token_file is unknown, expired or revoked")]
    Unauthorized,
    #[error("403: the token's user may not do this, or is locked")]
    Forbidden,
    #[error("404: there is no such thing")]
    NotFound,
    #[error("412: changed by somebody else meanwhile")]
    Outdated,
    /// An admin gets it also for what does not exist.
    #[error("{status}: an error of the server's own")]
    #[strum_discriminants(strum(serialize = "server_error"))]
    Server { status: u16 },
    /// Any other status, redirections among them: the token goes nowhere but to its own server.
    #[error("{status}: not an answer to this request{}", if (300..400).contains(status) {
        " (redirections are not followed)"
    } else {
        ""
    })]
    Status { status: u16 },
    #[error("a body of {} bytes, of which {allowed} are read", match found {
        Some(found) => found.to_string(),
        None => format!("more than {allowed}"),
    })]
    TooLarge {
        /// What the server announced, if it did.
        found: Option<u64>,
        allowed: usize,
    },
    #[error(transparent)]
    Invalid(#[from] Unreadable),
}

/// What a connection failed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, Serialize, Deserialize)]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ConnectCause {
    Name,
    Refused,
    Unreachable,
    #[strum(serialize = "connect_timeout")]
    Silent,
    Certificate,
    Tls,
    #[strum(serialize = "connect")]
    Other,
}

impl ConnectCause {
    const fn text(self) -> &'static str {
        match self {
            Self::Name => "its name cannot be looked up",
            Self::Refused => "connection refused",
            Self::Unreachable => "no way to its host",
            Self::Silent => "its host does not answer",
            Self::Certificate => "its certificate is not trusted",
            Self::Tls => "no agreement on TLS",
            Self::Other => "no connection",
        }
    }

    /// What `error` and its causes show.
    fn of(error: &(dyn Error + 'static)) -> Self {
        use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
        let mut found = Self::Other;
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                // The cause of an I/O error is not what it wraps, but the cause of that.
                match error.get_ref().map(|inner| Self::of(inner)) {
                    None | Some(Self::Other) => {}
                    Some(found) => return found,
                }
                match error.kind() {
                    io::ErrorKind::ConnectionRefused => return Self::Refused,
                    io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                        return Self::Unreachable;
                    }
                    io::ErrorKind::TimedOut => return Self::Silent,
                    _ => {}
                }
            } else if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return match tls {
                    InvalidCertificate(_) | NoCertificatesPresented => Self::Certificate,
                    _ => Self::Tls,
                };
            } else if error.to_string() == "dns error" {
                // The library has no other way to say it.
                found = Self::Name;
            }
            next = error.source();
        }
        found
    }
}

/// Who has to do something about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Whoever runs the network between here and there.
    Network,
    /// Whoever gave this proxy its token and its rights.
    Account,
    /// Whoever runs the switchboard.
    Switchboard,
}

impl Failure {
    /// What a status that is no success says.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::PRECONDITION_FAILED => Self::Outdated,
            status if status.is_server_error() => Self::Server {
                status: status.as_u16(),
            },
            status => Self::Status {
                status: status.as_u16(),
            },
        }
    }

    /// A connection that could not be used, in the words of `error` and its causes.
    pub(in crate::provider::switchboard) fn of_connection(
        error: &(dyn Error + 'static),
        connecting: bool,
    ) -> Self {
        let words = words(error);
        match connecting {
            true => Self::Connect {
                cause: ConnectCause::of(error),
                words,
            },
            false => Self::Cut(words),
        }
    }

    /// A body that cannot be used because of `reason`.
    pub(crate) fn invalid(reason: &str) -> Self {
        Unreadable::new(reason).into()
    }

    /// The cause in one word; for a connection, what it failed at.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Self::Connect { cause, .. } => (*cause).into(),
            other => other.kind().word(),
        }
    }

    /// What an operator has to know at a glance.
    pub(crate) fn in_short(&self) -> String {
        match self {
            Self::Connect { cause, .. } => cause.text().to_owned(),
            Self::Timeout { .. } => self.to_string(),
            Self::Cut(_) => "it ends the connection before its answer".to_owned(),
            other => other.to_string(),
        }
    }

    /// As which cause it is counted.
    pub fn kind(&self) -> FailureKind {
        self.into()
    }
}

impl FailureKind {
    /// Every cause there is, in the order of their numbers.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The cause as a label.
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// Who has to do something about it.
    pub(crate) const fn fault(self) -> Fault {
        match self {
            Self::Connect | Self::Timeout | Self::Cut => Fault::Network,
            Self::Unauthorized | Self::Forbidden => Fault::Account,
            Self::NotFound
            | Self::Outdated
            | Self::Server
            | Self::Status
            | Self::TooLarge
            | Self::Invalid => Fault::Switchboard,
        }
    }
}

/// `error` and what caused it, outermost first.
fn words(error: &(dyn Error + 'static)) -> Box<str> {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    printable(&text, WORDS_AT_MOST).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_outside_are_short_and_printable() {
        let failure = Failure::invalid(&format!("\u{1b}[31m\n{}", "x".repeat(10_000)));
        let text = failure.to_string();
        assert!(text.len() < 400 && !text.chars().any(char::is_control));
    }
}
