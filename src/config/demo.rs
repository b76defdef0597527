//! The built-in example: something to connect to without writing a file first.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
};

use super::{Draft, read_text};

/// Where the example's one mapping leads; the process answers there itself.
pub const ECHO: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7008));

const TEXT: &str = include_str!("../../config/demo.toml");

pub(super) fn read() -> Draft {
    read_text(TEXT, Path::new("built-in demo.toml"))
}
