//! Listening sockets: opened for the table, shared with the worker that accepts from them.
//!
//! One socket per public address and never two: closing one of several that share an address
//! would reset the connections waiting in its queue. [`bind()`] opens a socket or says why not;
//! [`Listeners`] is the set in force, and may begin with
//! sockets that an earlier process listened on; [`accept()`] takes one connection and sorts the errors;
//! [`Reserve`] is how one is taken when there is no descriptor for it.

mod accept;
mod bind;
mod reserve;
mod set;

pub use accept::{AcceptError, Accepted, Backoff, Front, accept, is_descriptor_shortage, is_lost};
pub use bind::{
    ListenError, ListenStep, bind, bind_own, check_congestion, check_transparent, has_ipv6,
    listens_at, try_bind,
};
pub use reserve::Reserve;
pub use set::{Listeners, Opened};
