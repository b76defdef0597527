//! How a switchboard can misbehave.

use std::time::Duration;

/// Where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Listing,
    /// Any job in detail.
    Detail,
    /// This job in detail.
    Job(String),
    Hosts,
    Tokens,
    /// What the account may do.
    Account,
    JobWatch,
    HostWatch,
    Patch,
}

/// How it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An empty answer with this status.
    Status(u16),
    /// A redirection to a place.
    Redirect(String),
    /// The right answer, after this time.
    Slow(Duration),
    /// No answer, until it behaves again.
    Hang,
    /// Half the body and then the end of the connection.
    Half,
    /// The end of the connection without a byte.
    Slam,
    /// A body that says that it has 1 GiB, and begins to send it.
    Huge,
    /// A body that never ends and does not say so.
    Endless,
    /// This body instead of the right one, with 200.
    Body(&'static str),
    /// A listing with nothing in it, as one without rights sees it.
    Nothing,
    /// A listing with a row that does not say whose it is.
    LostRow,
    /// A listing whose rows of this job are unreadable but for the id.
    SpoiltRow(String),
    /// A listing whose last page leads to the first.
    Circle,
    /// A listing that is too large in pages of more than this many rows.
    LargeAbove(usize),
}
