//! What only some sessions have, kept apart so that the others do not pay for it in memory.

use crate::{
    limit::{Dialling, Seat},
    listen::Front,
};

/// What only some sessions have.
#[derive(Debug, Default)]
pub struct Extras {
    /// Its place among those that are counted.
    pub seat: Seat,
    /// Its place among those that wait for their target; given back when that answers.
    pub dialling: Dialling,
    /// Who brought the client here, if it did not come by itself.
    pub front: Option<Box<Front>>,
}

impl Extras {
    /// Those of a session that is counted.
    pub fn counted(seat: Seat, dialling: Dialling) -> Box<Self> {
        Box::new(Self {
            seat,
            dialling,
            ..Self::default()
        })
    }
}
