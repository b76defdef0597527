//! Serving HTTP to few and possibly hostile clients.
//!
//! What one client can hold on to is bounded: a connection is one of a few, a request has to come
//! in time and be small, an answer has to be ready and taken in time. Those on TCP and those on
//! the unix socket have bounds of their own, so that nobody on the network keeps an operator out.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{Sources, api};

/// How long a request's head may take, from the end of the request before.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// What clients can hold on to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at a time. More wait in the kernel's queue.
    pub connections: usize,
    /// Bytes a request's head may have.
    pub head_bytes: usize,
    /// How long a connection may exist.
    pub within: Duration,
    /// Whether a connection may have more than one request.
    pub keep_alive: bool,
}

/// Those of the admin endpoint.
const BOUNDS: Bounds = Bounds {
    connections: 32,
    head_bytes: 16 * 1024,
    within: Duration::from_secs(120),
    keep_alive: true,
};

/// Where the admin endpoint listens.
#[derive(Debug)]
pub enum AdminListener {
    /// For those who may only look.
    Tcp(TcpListener),
    /// For those who may change things.
    Unix(UnixListener),
}

/// Serves until the runtime ends.
pub async fn serve(listener: AdminListener, sources: Arc<Sources>) {
    match listener {
        AdminListener::Tcp(listener) => {
            let router = api::router(sources, api::Access::Read);
            accept_all(listener, BOUNDS, |_: SocketAddr| router.clone()).await;
        }
        AdminListener::Unix(listener) => {
            let router = api::router(sources, api::Access::Write);
            accept_all(listener, BOUNDS, |_| router.clone()).await;
        }
    }
}

/// Serves every client what `router` says for its address.
pub(super) async fn accept_all<L: Listener>(
    mut listener: L,
    bounds: Bounds,
    router: impl Fn(L::Addr) -> Router,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    // Nobody closes the semaphore.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // It pauses where something ran out and goes on after any other error.
        let (stream, client) = listener.accept().await;
        tokio::spawn(converse(stream, bounds, router(client), place));
    }
}

async fn converse<S>(stream: S, bounds: Bounds, router: Router, _place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(bounds.head_bytes)
        .keep_alive(bounds.keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    // How a client's connection ends is its own affair.
    let _ = timeout(bounds.within, connection).await;
}
