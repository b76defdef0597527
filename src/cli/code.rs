//! Exit codes. Scripts rely on them.

/// The configuration is not valid, the proxy refused, or `doctor` found something to change.
pub const REFUSED: u8 = 1;
/// What was asked for makes no sense here.
pub const USAGE: u8 = 2;
/// The proxy could not start.
pub const NO_START: u8 = 3;
/// It failed while running, or the command did.
pub const FAILED: u8 = 4;
/// No proxy answers at the socket.
pub const UNREACHABLE: u8 = 5;
