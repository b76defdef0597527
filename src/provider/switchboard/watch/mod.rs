//! One watch: a stream that says when to look again, and never what there is to see.
//!
//! Its end is no error, and that it goes on proves only that the server lives. A stream that has
//! been silent for several keep-alives is taken for dead.

mod events;
mod lanes;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

pub use self::events::{Endless, Events, Heard};
use super::{
    client::{Client, Failure},
    job::{HostId, JobId},
};

pub use self::lanes::{Lanes, Need, Place, Purpose, Tenant};

/// What can be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// Changes of a job and of its services.
    Job(JobId),
    /// Jobs coming to a host and leaving it.
    Host(HostId),
}

impl Watched {
    fn route(&self) -> String {
        match self {
            Self::Job(id) => format!("/jobs/{id}/watch"),
            Self::Host(id) => format!("/hosts/{id}/watch"),
        }
    }
}

/// An open watch.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    body: Incoming,
    events: Events,
    // Given back after the body is gone.
    _place: Place,
}

/// What a watch said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Look again.
    Change,
    /// The server lives.
    Alive,
    /// That was all; open another.
    End,
}

impl Watch {
    /// Opens a watch at `place`.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn open(client: &Client, what: &Watched, place: Place) -> Result<Self, Failure> {
        let opened = {
            let (_turn, connections) = place.turn().await;
            client.watch(connections, &what.route()).await
        };
        if let Err(Failure::Timeout { .. }) = opened {
            place.is_one_too_many();
        }
        Ok(Self {
            client: client.clone(),
            body: opened?,
            events: Events::default(),
            _place: place,
        })
    }

    /// What it says next. Nothing is lost if this is not waited for to the end.
    ///
    /// # Errors
    ///
    /// [`Failure::Timeout`] if it has been silent for too long, else see [`Failure`]. It is of no
    /// use after any.
    pub async fn next(&mut self) -> Result<Sign, Failure> {
        let allowed = self.client.patience().silence;
        loop {
            let frame = timeout(allowed, self.body.frame()).await;
            let frame = match frame.map_err(|_elapsed| Failure::Timeout { allowed })? {
                None => return Ok(Sign::End),
                Some(frame) => frame.map_err(|error| Failure::of_connection(&error, false))?,
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            self.client.availability().heard();
            let heard = self.events.feed(data);
            let heard = heard.map_err(|endless| Failure::invalid(&endless.to_string()))?;
            match heard.changes {
                0 => return Ok(Sign::Alive),
                _ => return Ok(Sign::Change),
            }
        }
    }
}
