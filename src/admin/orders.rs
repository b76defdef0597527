//! What the admin endpoint has control do: one thing after the other, each with an answer.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Sources;
use crate::table::{Hold, MappingName, Summary};

/// Something for control to do.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again.
    Reload {
        /// Who waits for the outcome.
        reply: oneshot::Sender<Result<Summary, OrderError>>,
    },
    /// Hold a mapping, or let go of it.
    Hold {
        /// The mapping.
        mapping: MappingName,
        /// How; `None` lets go.
        hold: Option<Hold>,
        /// How long its live sessions may go on, if that is limited.
        sessions_within: Option<Duration>,
        /// Who waits for the outcome.
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

impl Sources {
    /// Has control do something and waits for the outcome.
    pub(super) async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, OrderError>>) -> Order,
    ) -> Result<T, OrderError> {
        let (reply, answer) = oneshot::channel();
        send(&self.orders, order(reply)).await?;
        answer.await.unwrap_or(Err(OrderError::Stopping))
    }
}

async fn send(orders: &mpsc::Sender<Order>, order: Order) -> Result<(), OrderError> {
    orders.send(order).await.map_err(|_| OrderError::Stopping)
}
