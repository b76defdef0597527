//! A relay as it is handed over to the next image of the program.
//!
//! Bytes in flight go along: those in a pipe with the pipe, those that were copied beside the values.
//! What is known of the sockets is kept although whoever adopts the relay watches them anew: epoll then
//! reports what is there, and that adds up as it does when a session goes from one worker to another.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{
    Fault, Pipe, PipeBudget, Readiness, Relay, Side,
    direction::{Direction, SavedDirection},
};
use crate::handover::{LoadError, Loader, Saver, is_default};

/// A [`Relay`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedRelay {
    #[serde(skip_serializing_if = "is_default")]
    up: SavedDirection,
    #[serde(skip_serializing_if = "is_default")]
    down: SavedDirection,
    #[serde(skip_serializing_if = "is_default")]
    client: Readiness,
    #[serde(skip_serializing_if = "is_default")]
    target: Readiness,
    /// The side that broke, and the number of the error.
    #[serde(skip_serializing_if = "is_default")]
    fault: Option<(Side, u16)>,
}

impl Relay<Pipe> {
    /// Leaves pipes and bytes in flight with `saver`.
    pub fn save<'a>(&'a self, saver: &mut Saver<'a>) -> SavedRelay {
        let Self {
            up,
            down,
            client,
            target,
            fault,
        } = self;
        SavedRelay {
            up: up.save(saver),
            down: down.save(saver),
            client: *client,
            target: *target,
            fault: fault.map(|Fault { side, errno }| (side, errno.raw_os_error() as u16)),
        }
    }

    /// Takes up a relay that was handed over; its pipes count for `budget`.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub fn load(
        saved: &SavedRelay,
        loader: &mut Loader,
        budget: &PipeBudget,
    ) -> Result<Self, LoadError> {
        let SavedRelay {
            up,
            down,
            client,
            target,
            fault,
        } = saved;
        let fault = fault.map(|(side, number)| {
            let errno = std::io::Error::from_raw_os_error(number.into());
            let errno = Errno::from_io_error(&errno);
            let why = || LoadError::value("fault of a relay", format!("{number} is no error"));
            Ok(Fault {
                side,
                errno: errno.ok_or_else(why)?,
            })
        });
        Ok(Self {
            up: Direction::load(Side::Client, up, loader, budget)?,
            down: Direction::load(Side::Target, down, loader, budget)?,
            client: *client,
            target: *target,
            fault: fault.transpose()?,
        })
    }
}
