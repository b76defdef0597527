//! What each path of the HTTP interface answers.

pub(super) mod change;
pub(super) mod error;
pub(super) mod fleet;
pub mod model;
#[cfg(test)]
mod openapi;
pub(super) mod read;
pub(super) mod view;
