//! Serving HTTP to few and possibly hostile clients.
//!
//! What one client can hold on to is bounded: a connection is one of a few, a request has to come
//! in time and be small, an answer has to be ready and taken in time. Those on TCP and those on
//! the unix socket have bounds of their own, so that nobody on the network keeps an operator out.

use std::{sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{Sources, api, unix::UnixSocket};

/// Connections at a time. More wait in the kernel's queue.
const CONNECTIONS: usize = 32;

/// How long a request's head may take, from the end of the request before.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection may exist.
const CONNECTION_WITHIN: Duration = Duration::from_secs(120);

/// Bytes a request's head may have.
const HEAD_BYTES: usize = 16 * 1024;

/// Where the admin endpoint listens.
#[derive(Debug)]
pub enum AdminListener {
    /// For those who may only look.
    Tcp(TcpListener),
    /// For those who may change things.
    Unix(UnixSocket),
}

/// Serves until the runtime ends.
pub async fn serve(listener: AdminListener, sources: Arc<Sources>) {
    match listener {
        AdminListener::Tcp(listener) => {
            accept_all(listener, api::router(sources, api::Access::Read)).await;
        }
        AdminListener::Unix(socket) => {
            let (listener, _file) = socket.into_parts();
            accept_all(listener, api::router(sources, api::Access::Write)).await;
        }
    }
}

async fn accept_all(mut listener: impl Listener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Nobody closes the semaphore.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // It pauses where something ran out and goes on after any other error.
        let (stream, _) = listener.accept().await;
        tokio::spawn(converse(stream, router.clone(), place));
    }
}

async fn converse<S>(stream: S, router: Router, _place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // How a client's connection ends is its own affair.
    let _ = timeout(CONNECTION_WITHIN, connection).await;
}
