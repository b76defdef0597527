//! What the control loop can be asked to do, one thing after the other, each with an answer.
//!
//! The admin endpoint asks and `lifecycle` carries out; neither has to know the other for it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::table::{MappingName, MappingOverride, Summary};

/// Something for control to do.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again.
    Reload {
        reply: oneshot::Sender<Result<Summary, OrderError>>,
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
