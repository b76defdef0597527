//! What a start or a reload does before anything is put into force.

use std::{io, os::fd::OwnedFd};

use tokio::net::TcpListener;

use crate::{listen::bind_own, session::AckProbe, table::ListenAddr};

/// Says what this kernel lacks and sessions will miss.
pub(super) fn warn_of_kernel() {
    if AckProbe::works() == Some(false) {
        tracing::warn!(
            "this kernel does not tell what a client has acknowledged (sock_diag): when one side resets, \
             a slow other side may lose what was sent before"
        );
    }
}

/// Opens a listener that is no mapping, beside one of ours that it may overlap.
pub(super) fn open_own(
    key: &str,
    addr: &ListenAddr,
    leaving: Option<&OwnedFd>,
) -> io::Result<TcpListener> {
    TcpListener::from_std(bind_own(key, addr, leaving)?)
}
