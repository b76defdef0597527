//! What the control loop can be asked to do, one thing after the other, each with an answer.
//!
//! The admin endpoint asks and `lifecycle` carries out; neither has to know the other for it.

use std::{convert::Infallible, path::PathBuf, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::table::{MappingName, MappingOverride, Summary};

/// Something for control to do.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again.
    Reload {
        reply: oneshot::Sender<Result<Summary, OrderError>>,
    },
    /// Have another build of the program take over.
    Upgrade {
        /// Where that is, if not where this one was started from.
        binary: Option<PathBuf>,
        /// Answered once that build has shown that it can, and nothing has changed yet.
        reply: oneshot::Sender<Result<UpgradeBegun, OrderError>>,
    },
    /// Pause or drain a mapping, or serve it again.
    SetState {
        mapping: MappingName,
        /// `None` serves it.
        state: Option<MappingOverride>,
        /// How long its live sessions may go on, if that is limited.
        sessions_within: Option<Duration>,
        reply: oneshot::Sender<Result<(), OrderError>>,
    },
}

/// An upgrade that is about to happen.
#[derive(Debug)]
pub struct UpgradeBegun {
    /// Its number, by which its outcome is known.
    pub number: u64,
    /// The version that runs.
    pub from: String,
    /// The one that takes over.
    pub to: String,
    /// It waits for this to be dropped, but not for long: the connection over which it was asked for
    /// ends with it.
    pub told: oneshot::Sender<Infallible>,
}

/// Why an order was not carried out. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no mapping of that name.
    #[error("there is no mapping {0:?}")]
    UnknownMapping(MappingName),
    /// Control tried and could not.
    #[error("{0}")]
    Refused(String),
    /// The process is on its way out.
    #[error("the proxy is stopping")]
    Stopping,
}

/// Where orders go.
#[derive(Debug, Clone)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// The two ends: for those who ask, and for the control loop.
    pub fn channel(waiting: usize) -> (Self, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(waiting);
        (Self(sender), receiver)
    }

    /// Has something done and waits for the outcome.
    pub async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, OrderError>>) -> Order,
    ) -> Result<T, OrderError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.send(order(reply)).await;
        sent.map_err(|_| OrderError::Stopping)?;
        answer.await.unwrap_or(Err(OrderError::Stopping))
    }
}
