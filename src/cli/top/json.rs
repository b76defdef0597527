//! What `top` knows as a document.

use serde::Serialize;

use super::state::{Rates, View};
use crate::admin::api::model::{Mapping, Session, Status};

/// The latest answers with the rates since those before.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    status: Option<Rated<&'a Status>>,
    mappings: Vec<Rated<&'a Mapping>>,
    /// How many sessions there are, of which the busiest are listed.
    sessions_total: usize,
    sessions: Vec<Rated<&'a Session>>,
}

/// Something with its rates.
#[derive(Debug, Serialize)]
struct Rated<T> {
    #[serde(flatten)]
    of: T,
    bytes_up_per_second: f64,
    bytes_down_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened_per_second: Option<f64>,
}

impl<T> Rated<T> {
    fn new((of, rates): (T, Rates)) -> Self {
        Self {
            of,
            bytes_up_per_second: rates.up,
            bytes_down_per_second: rates.down,
            opened_per_second: Some(rates.opened),
        }
    }

    /// For what does not open anything.
    fn alone(rated: (T, Rates)) -> Self {
        Self {
            opened_per_second: None,
            ..Self::new(rated)
        }
    }
}

impl<'a> Document<'a> {
    pub fn new(view: &'a View) -> Self {
        let status = view.status().map(|status| (status, view.total()));
        Self {
            status: status.map(Rated::new),
            mappings: view.mappings().into_iter().map(Rated::new).collect(),
            sessions_total: view.sessions_total(),
            sessions: view.sessions().into_iter().map(Rated::alone).collect(),
        }
    }
}
