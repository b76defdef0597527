//! What only some sessions have, kept apart so that the others do not pay for it in memory.

use crate::limit::{Dialling, Seat};

/// What only some sessions have.
#[derive(Debug, Default)]
pub struct Extras {
    /// Its place among those that are counted.
    pub seat: Seat,
    /// Its place among those that wait for their target; given back when that answers.
    pub dialling: Dialling,
}

impl Extras {
    /// Boxed if there is anything to keep.
    pub fn boxed(self) -> Option<Box<Self>> {
        let plain = self.seat.is_empty() && self.dialling.is_empty();
        (!plain).then(|| Box::new(self))
    }
}
