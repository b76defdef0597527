//! The sockets of a switchboard: a thread that accepts while it is told to.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc as answers},
    thread::{self, JoinHandle},
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    runtime,
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{Kind, answer::answer, state::State};
use crate::harness::TempDir;

/// Orders to the thread, each answered when it is carried out.
type Order = (bool, answers::Sender<()>);

/// The names in its certificate: this machine's own, and the one in the manual.
const NAMES: [&str; 2] = ["localhost", "switchboard.example.org"];

pub struct Server {
    port: u16,
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(state: Arc<State>, kind: Kind, dir: &TempDir) -> Self {
        let tls = kind.secure.then(|| acceptor(dir));
        let (orders, inbox) = mpsc::unbounded_channel();
        let (tell_port, port) = answers::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = listen(kind.port.unwrap_or(0));
                let port = listener.local_addr().expect("bound").port();
                tell_port.send(port).expect("a starter");
                serve(state, kind, tls, listener, inbox).await;
            });
        });
        Self {
            port: port.recv().expect("a port"),
            orders: Some(orders),
            thread: Some(thread),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn stop(&self) {
        self.order(false);
    }

    pub fn go_on(&self) {
        self.order(true);
    }

    fn order(&self, run: bool) {
        let (done, is_done) = answers::channel();
        let orders = self.orders.as_ref().expect("until dropped");
        orders.send((run, done)).expect("a thread");
        is_done.recv().expect("a thread");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.orders = None;
        let thread = self.thread.take().expect("dropped once");
        if thread.join().is_err() && !thread::panicking() {
            panic!("the switchboard panicked");
        }
    }
}

async fn serve(
    state: Arc<State>,
    kind: Kind,
    tls: Option<TlsAcceptor>,
    listener: TcpListener,
    mut inbox: mpsc::UnboundedReceiver<Order>,
) {
    let port = listener.local_addr().expect("bound").port();
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accepted => {
                let (stream, _) = accepted.expect("a listener");
                stream.set_nodelay(true).expect("a TCP socket");
                let (state, tls) = (Arc::clone(&state), tls.clone());
                connections.spawn(async move {
                    let _connected = state.connected();
                    match tls {
                        None => converse(Arc::clone(&state), kind, stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(Arc::clone(&state), kind, stream).await;
                            }
                        }
                    }
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            order = inbox.recv() => match order {
                None => return,
                Some((run, done)) => {
                    listener = None;
                    match run {
                        true => listener = Some(listen(port)),
                        false => {
                            connections.shutdown().await;
                            state.lock().watches.clear();
                        }
                    }
                    done.send(()).expect("someone who waits");
                }
            },
        }
    }
}

async fn converse<S>(state: Arc<State>, kind: Kind, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| answer(Arc::clone(&state), request));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(kind.streams.unwrap_or(200));
    // How a connection ends is for the other side to notice.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

fn listen(port: u16) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    // The port is the same after an outage, whatever still lingers on it.
    socket.set_reuseaddr(true).expect("a socket");
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.bind(addr).expect("a free port");
    socket.listen(4096).expect("a bound socket")
}

/// Makes a certificate and leaves it in `dir` as `ca.pem`.
fn acceptor(dir: &TempDir) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(NAMES.map(str::to_owned)).expect("a certificate");
    dir.write("ca.pem", made.cert.pem());
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the library's own versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
        .expect("a fresh certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
