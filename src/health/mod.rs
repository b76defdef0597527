//! Whether targets are up: connections that are made for nothing else, now and then.
//!
//! A [`Probe`] says what is tried where, a [`Prober`] tries all of them, each as often as its [`Check`]
//! says and spread over that time, and gives out what came of it. A try ends within its time and takes a
//! bounded number of bytes, whatever is at the other end. What follows from an [`Outcome`] is not decided
//! here, and nothing here waits: the prober goes on when it is told what time it is.

mod exchange;
mod prober;
mod settings;

use std::{fmt, time::Duration};

use rustix::io::Errno;

pub(crate) use prober::{MOST_AT_ONCE, Probe, Prober};
pub use settings::{Check, OnDown};

use crate::{os_error::in_words, units};

/// What came of trying a target.
pub(crate) type Outcome = Result<(), Failure>;

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// This machine could not try, which says nothing of the target.
    NotTried(Errno),
    /// It could not be connected to, or ended the connection with an error.
    Refused(Errno),
    /// It did not accept the connection in time.
    NotAccepted(Duration),
    /// It did not give the answer in time.
    NotAnswered(Duration),
    /// It ended its answer too soon.
    BrokeOff,
    /// Its answer is none of HTTP.
    NotHttp,
    /// Its answer has another status.
    Status(u16),
    /// What is expected is not in its answer, of which there was so much.
    NotExpected(usize),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTried(errno) => {
                write!(f, "it could not be tried: {}", in_words(&(*errno).into()))
            }
            Self::Refused(errno) => f.write_str(&in_words(&(*errno).into())),
            Self::NotAccepted(within) => {
                write!(f, "no connection within {}", units::duration(*within))
            }
            Self::NotAnswered(within) => {
                write!(f, "no answer within {}", units::duration(*within))
            }
            Self::BrokeOff => f.write_str("the answer broke off"),
            Self::NotHttp => f.write_str("the answer is not HTTP"),
            Self::Status(status) => write!(f, "the answer has status {status}"),
            Self::NotExpected(bytes) => write!(
                f,
                "what is expected is not in the answer ({})",
                units::count(*bytes as u64, "byte")
            ),
        }
    }
}
