//! Serving HTTP to few and possibly hostile clients.
//!
//! What one client can hold on to is bounded: a connection is one of a few ([`Slots`]), a request has
//! to come in time and be small, an answer has to be ready and taken in time. Those on TCP and those
//! on the unix socket have bounds of their own, so that nobody on the network keeps an operator out.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{
    body::{Body as _, Bytes, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::yield_now,
    time::{Sleep, sleep, timeout},
};

use super::{
    peer::Peer,
    slots::{self, Slot, SlotGuard, Slots, Stage},
};
use crate::{
    listen::{Backoff, is_lost},
    os_error::in_words,
    telemetry::{Task, TaskFailures},
};

/// How long a request's head may take, from the end of the request before.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// How long a client may take nothing of its answer.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of an answer that the kernel keeps for a client, which by itself it makes megabytes. It
/// doubles the number.
const KEPT_BY_KERNEL: usize = 256 * 1024;

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub connections: usize,
    pub per_source: usize,
    pub head_bytes: usize,
    pub within: Duration,
    pub keep_alive: bool,
}

pub(super) trait Listener {
    type Stream: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static;

    async fn next(&self) -> io::Result<(Self::Stream, Peer)>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, client) = self.accept().await?;
        Ok((stream, Peer::at(client)))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.accept().await?;
        let peer = Peer::of(&stream);
        Ok((stream, peer))
    }
}

/// Serves every client what `router` says, which can ask who it is ([`Peer`]), until none can come any
/// more, and says why. A connection that panics is counted with the task.
pub(super) async fn accept_all(
    listener: impl Listener,
    bounds: Bounds,
    router: &Router,
    (task, failures): (Task, Arc<TaskFailures>),
) -> io::Error {
    let slots = Slots::new(bounds.connections, bounds.per_source);
    let mut backoff = Backoff::default();
    loop {
        let (stream, peer) = match listener.next().await {
            Ok(next) => next,
            Err(error) if is_lost(&error) => return error,
            Err(error) => {
                let error = in_words(&error);
                tracing::debug!(error, "a client that asks the proxy could not be accepted");
                // Trying at once may fail the same way.
                sleep(backoff.pause()).await;
                continue;
            }
        };
        backoff.reset();
        let source = peer.address.map(slots::source);
        if let Some(guard) = slots.take(source).await {
            // It goes on when the listener is closed.
            let conversation = converse(stream, bounds, router.clone(), peer, guard);
            tokio::spawn(Arc::clone(&failures).guard(task, conversation));
            // A request that is there already is read before the next client can take the slot.
            yield_now().await;
        }
    }
}

async fn converse<S>(stream: S, bounds: Bounds, router: Router, peer: Peer, guard: SlotGuard)
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
{
    // Without it the kernel keeps more, and that is all.
    let _ = SockRef::from(&stream).set_send_buffer_size(KEPT_BY_KERNEL);
    let slot = guard.slot();
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        slot.waits_for(Stage::Answer);
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(Arc::clone(slot));
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            slot.waits_for(Stage::Client);
            answer.map(|answer| {
                answer.map(|body| Taken {
                    body,
                    slot: Arc::clone(slot),
                })
            })
        }
    });
    let stream = Watched {
        stream,
        slot: Arc::clone(slot),
        stuck: None,
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(bounds.head_bytes)
        .keep_alive(bounds.keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // How a client's connection ends is its own affair.
        _ = timeout(bounds.within, connection) => {}
        () = guard.evicted() => {}
    }
}

/// The body of an answer, which says when the connection has nothing more to take.
struct Taken {
    body: Body,
    slot: Arc<Slot>,
}

impl hyper::body::Body for Taken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.slot.waits_for(Stage::Idle);
        }
    }
}

/// A client's connection, which fails when the client takes nothing for [`TAKEN_WITHIN`]. What
/// nobody takes is not left to the kernel to be offered further.
struct Watched<S: AsFd> {
    stream: S,
    slot: Arc<Slot>,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S: AsFd> Drop for Watched<S> {
    fn drop(&mut self) {
        if self.slot.is_cut() {
            // Where it fails the kernel keeps what it has for a while, and that is all.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl<S: AsFd + AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsFd + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let watched = &mut *self;
        if let Poll::Ready(written) = Pin::new(&mut watched.stream).poll_write(cx, bytes) {
            watched.stuck = None;
            watched.slot.moved();
            return Poll::Ready(written);
        }
        let stuck = watched
            .stuck
            .get_or_insert_with(|| Box::pin(sleep(TAKEN_WITHIN)));
        ready!(stuck.as_mut().poll(cx));
        watched.slot.waits_for(Stage::Client);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
