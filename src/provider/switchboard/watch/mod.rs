//! One watch: a stream that says when to look again, and never what there is to see.
//!
//! Its end is no error, and that it goes on proves only that the server lives. A stream that has
//! been silent for several keep-alives is taken for dead.

mod events;
mod pool;

use std::io;

use futures_util::StreamExt;
use http_body_util::{BodyDataStream, BodyExt, combinators::MapErr};
use hyper::body::{Bytes, Incoming};
use tokio::time::timeout;
use tokio_util::{codec::FramedRead, io::StreamReader};

use super::{
    client::{Client, Failure},
    job::{HostId, JobId},
};

pub(super) use self::pool::{Priority, Slot, WatchPool};
pub use self::{
    events::{Event, EventDecoder, EventError},
    pool::Purpose,
};

/// What is read of a stream at once, in bytes: there are many, and each says little.
const READ_AT_ONCE: usize = 64;

/// What can be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Watched {
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

    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Job(_) => Purpose::Job,
            Self::Host(_) => Purpose::Host,
        }
    }
}

type Body = StreamReader<BodyDataStream<MapErr<Incoming, ToIo>>, Bytes>;
type ToIo = fn(hyper::Error) -> io::Error;

/// An open watch. It ends before its slot is given back.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    client: &'a Client,
    events: FramedRead<Body, EventDecoder>,
    _slot: &'a Slot,
}

impl<'a> Watch<'a> {
    /// Opens a watch in `slot`.
    pub(super) async fn open(
        client: &'a Client,
        what: &Watched,
        slot: &'a Slot,
    ) -> Result<Self, Failure> {
        let opened = {
            let (_turn, connections) = slot.turn().await;
            client.watch(connections, &what.route()).await
        };
        if let Err(Failure::Timeout { .. }) = opened {
            slot.is_one_too_many();
        }
        let body = opened?.map_err(io::Error::other as ToIo);
        let reader = StreamReader::new(BodyDataStream::new(body));
        Ok(Self {
            client,
            events: FramedRead::with_capacity(reader, EventDecoder::default(), READ_AT_ONCE),
            _slot: slot,
        })
    }

    /// What it says next; nothing at its end. Nothing is lost if this is not waited for to the end,
    /// and it is of no use after an error, which is [`Failure::Timeout`] after too long a silence.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        let allowed = self.client.patience().silence;
        let event = timeout(allowed, self.events.next()).await;
        let Some(event) = event.map_err(|_elapsed| Failure::Timeout { allowed })? else {
            return Ok(None);
        };
        let event = event.map_err(|error| match error {
            EventError::LineTooLong => Failure::invalid(&error.to_string()),
            EventError::Broken(error) => Failure::of_connection(&error, false),
        })?;
        self.client.availability().heard();
        Ok(Some(event))
    }
}
