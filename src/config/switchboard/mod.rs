//! [switchboard]: where jobs are asked for, which of them are exposed, and on which ports.
//!
//! Checked as far as a file alone can be; nothing here asks the switchboard or opens a port. The
//! section is required to say who is asked and which targets are fit, everything else has a built-in
//! value.

mod check;
mod read;

pub(super) use check::problems;
pub(super) use read::{read, state_word};
