//! Talking to a running proxy: a connection, one request, one answer.

use std::{
    error::Error,
    fs, io,
    net::{TcpStream, ToSocketAddrs},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net, runtime,
    time::timeout,
};

use crate::{admin::api::model::Failure, os_error::in_words, text::printable};

/// Where packages have the proxy put its socket.
pub const DEFAULT_SOCKET: &str = "/run/tml-proxy/admin.sock";

/// How long an answer may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How long a connection over the network may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read: far more than there ever are.
const LONGEST_ANSWER: usize = 1 << 30;

/// Characters of a refusal that are shown: what is wrong with a request takes less.
const LONGEST_REASON: usize = 500;

/// A way to a running proxy.
#[derive(Debug, Clone, clap::Args)]
pub struct Client {
    /// The proxy's unix socket (admin.socket in its configuration).
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// Why there is no answer, or not the one wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody could be asked at the socket.
    #[error("{}: {}{}", socket.display(), in_words(error), advice(error))]
    Unreachable { socket: PathBuf, error: io::Error },
    /// Nobody could be asked over the network.
    #[error(
        "{server}: {} (is this the proxy's switchboard.lookup?)",
        in_words(error)
    )]
    NoServer { server: String, error: io::Error },
    /// The question makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Too much is being asked of it.
    #[error("{0}")]
    Busy(String),
    /// The proxy said no.
    #[error("{0}")]
    Refused(String),
    /// What came back is not what a proxy of this version answers.
    #[error("the proxy's answer makes no sense: {0} (is it of another version?)")]
    Strange(String),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (is the proxy running, with admin.socket set to this path?)",
        io::ErrorKind::ConnectionRefused => " (the proxy that made it is gone)",
        io::ErrorKind::PermissionDenied => {
            " (admin.socket_mode and admin.socket_group say who may connect)"
        }
        _ => "",
    }
}

impl Client {
    /// Reads a document.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Reads what a query asks for.
    pub fn find<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.get(&with_query(path, query))
    }

    /// Has something changed.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, json(body))
    }

    /// Has something done that needs no particulars.
    pub fn order<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::POST, path, Bytes::new())
    }

    /// Has something set.
    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::PUT, path, json(body))
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let answer = exchange(|| connect(&self.socket), &method, path, body, ANSWER_WITHIN);
        let answer = answer.map_err(|failed| match failed {
            Failed::Connection(error) => ClientError::Unreachable {
                socket: self.socket.clone(),
                error,
            },
            Failed::Strange(what) => ClientError::Strange(what),
        })?;
        understood(&answer)
    }
}

fn json(body: &impl Serialize) -> Bytes {
    let json = serde_json::to_vec(body);
    json.expect("text, numbers and lists are always JSON")
        .into()
}

/// A path with a query, in which nothing of a value can be more than a value.
pub fn with_query(path: &str, query: &impl Serialize) -> String {
    let query = serde_urlencoded::to_string(query);
    format!("{path}?{}", query.expect("its values are text and numbers"))
}

fn connect(socket: &Path) -> io::Result<net::UnixStream> {
    // The kernel would say that the connection was refused.
    if fs::metadata(socket).is_ok_and(|file| !file.file_type().is_socket()) {
        let what = "it is not a socket";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    // It waits where a proxy that is busy has others to accept first.
    let stream = UnixStream::connect(socket)?;
    stream.set_nonblocking(true)?;
    net::UnixStream::from_std(stream)
}

fn connect_to(server: &str, within: Duration) -> io::Result<net::TcpStream> {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for addr in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, CONNECT_WITHIN.min(within)) {
            Ok(stream) => {
                stream.set_nonblocking(true)?;
                return net::TcpStream::from_std(stream);
            }
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

/// Reads a document from somebody else's listener at `server`, a host and a port, where the answer
/// may take as long as `within`.
pub fn get_from<T: DeserializeOwned>(
    server: &str,
    path: &str,
    within: Duration,
) -> Result<T, ClientError> {
    let connect = || connect_to(server, within);
    let answer = match exchange(connect, &Method::GET, path, Bytes::new(), within) {
        Ok(answer) => understood(&answer),
        Err(Failed::Strange(what)) => Err(ClientError::Strange(what)),
        Err(Failed::Connection(error)) => {
            let server = server.to_owned();
            return Err(ClientError::NoServer { server, error });
        }
    };
    answer.map_err(|error| match error {
        // Nothing that somebody else said gets to the terminal as it is.
        ClientError::Refused(text) => ClientError::Refused(printable(&text, LONGEST_REASON)),
        ClientError::Busy(text) => ClientError::Busy(printable(&text, LONGEST_REASON)),
        ClientError::Strange(text) => ClientError::Strange(printable(&text, LONGEST_REASON)),
        error => error,
    })
}

/// Why there is no answer.
#[derive(Debug)]
enum Failed {
    Connection(io::Error),
    /// What came is no answer.
    Strange(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connect: impl FnOnce() -> io::Result<S>,
    method: &Method,
    path: &str,
    body: Bytes,
    within: Duration,
) -> Result<Response<Bytes>, Failed> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "close")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .expect("paths are made here, with their values escaped");
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = connect()?;
        match timeout(within, answer(stream, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let strange = || format!("no HTTP answer to {method} {path}");
                Err(failed(&*error, strange))
            }
            Err(_) => {
                let what = format!("no answer within {} s", within.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, what).into())
            }
        }
    })
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What becomes of it is told to whoever waits for the answer.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// An error of an open connection as whoever asked has to understand it.
fn failed(error: &(dyn Error + 'static), strange: impl Fn() -> String) -> Failed {
    let mut next = Some(error);
    while let Some(cause) = next {
        next = cause.source();
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return Failed::Connection(match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => went_away(),
                kind => io::Error::new(kind, in_words(error)),
            });
        }
        let Some(error) = cause.downcast_ref::<hyper::Error>() else {
            continue;
        };
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return Failed::Connection(went_away());
        }
        if error.is_parse() {
            return Failed::Strange(strange());
        }
    }
    Failed::Strange(error.to_string())
}

fn went_away() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the proxy went away")
}

/// The document in an answer, or why there is none.
fn understood<T: DeserializeOwned>(answer: &Response<Bytes>) -> Result<T, ClientError> {
    let unreadable = |error: serde_json::Error| ClientError::Strange(error.to_string());
    let (status, body) = (answer.status(), answer.body());
    if status.is_success() {
        return serde_json::from_slice(body).map_err(unreadable);
    }
    let Failure { error } = serde_json::from_slice(body).map_err(unreadable)?;
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS => ClientError::Busy(error),
        _ => ClientError::Refused(error),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What comes of a request to somebody who says this and then no more.
    fn ask(says: &[u8], ends: bool) -> Result<Response<Bytes>, Failed> {
        let (ours, mut theirs) = UnixStream::pair().expect("two descriptors");
        theirs.write_all(says).expect("it fits");
        if ends {
            theirs
                .shutdown(std::net::Shutdown::Write)
                .expect("it is open");
        }
        let connect = || {
            ours.set_nonblocking(true)?;
            net::UnixStream::from_std(ours)
        };
        let within = Duration::from_secs(1);
        exchange(connect, &Method::GET, "/", Bytes::new(), within)
    }

    #[test]
    fn an_answer_has_a_status_and_a_body_and_anything_else_is_none() {
        let answer = ask(b"HTTP/1.0 404 Not Found\r\nx: y\r\n\r\n{}", true);
        let answer = answer.expect("it is an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.body()[..]),
            (404, &b"{}"[..])
        );
        let other = ask(b"SSH-2.0-x\r\n", true);
        assert!(matches!(&other, Err(Failed::Strange(what)) if what == "no HTTP answer to GET /"));
    }

    #[test]
    fn an_answer_that_a_stop_cut_short_is_not_called_strange() {
        let whole = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..whole.len() {
            match ask(&whole[..end], true) {
                Err(Failed::Connection(error)) => {
                    assert_eq!(error.to_string(), "the proxy went away", "{end}");
                }
                other => panic!("{end}: {other:?}"),
            }
        }
        ask(whole, true).expect("it is whole");
    }

    #[test]
    fn a_proxy_that_stands_still_is_told_by_the_time_waited() {
        let Err(Failed::Connection(error)) = ask(b"", false) else {
            panic!("it says nothing");
        };
        let socket = "/s".into();
        let error = ClientError::Unreachable { socket, error };
        assert_eq!(error.to_string(), "/s: no answer within 1 s");
    }

    #[test]
    fn names_from_outside_cannot_change_a_query() {
        let path = with_query("/p", &[("name", "a/b&c=d e")]);
        assert_eq!(path, "/p?name=a%2Fb%26c%3Dd+e");
    }
}
