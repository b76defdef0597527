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

/// How often something is asked for that upgrades cut off.
const ATTEMPTS: u32 = 3;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read: far more than there ever are.
const LONGEST_ANSWER: usize = 1 << 30;

/// Characters of a refusal that are shown: what is wrong with a request takes less.
const LONGEST_REASON: usize = 500;

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

impl ClientError {
    /// Whether the connection ended before there was an answer, as it does when another version takes over.
    fn is_cut_off(&self) -> bool {
        let Self::Unreachable { error, .. } = self else {
            return false;
        };
        error.kind() == io::ErrorKind::UnexpectedEof
    }
}

fn json(particulars: &impl Serialize) -> Bytes {
    let json = serde_json::to_vec(particulars);
    json.expect("text, numbers and lists are always JSON")
        .into()
}

impl Client {
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask_idempotent(&Method::GET, path, Bytes::new())
    }

    /// Reads what a query asks for.
    pub fn find<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.get(&with_query(path, query))
    }

    /// Has something done, with its particulars.
    pub fn send<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        particulars: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(method, path, json(particulars))
    }

    /// The same for what may as well be done twice (RFC 9110, 9.2.2): if an upgrade cuts it off, the next
    /// version is asked.
    pub fn send_idempotent<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        particulars: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask_idempotent(method, path, json(particulars))
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let unreachable = |error| ClientError::Unreachable {
            socket: self.socket.clone(),
            error,
        };
        let request = request(method, path, body);
        let connect = || connect(&self.socket);
        understood(exchange(&connect, request, ANSWER_WITHIN, &unreachable)?)
    }

    fn ask_idempotent<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let mut answer = self.ask(method, path, body.clone());
        for _ in 1..ATTEMPTS {
            match answer {
                Err(ref error) if error.is_cut_off() => {}
                answer => return answer,
            }
            match self.ask(method, path, body.clone()) {
                // It has gone for good, which is what happened.
                Err(ClientError::Unreachable { error, .. })
                    if error.kind() != io::ErrorKind::UnexpectedEof =>
                {
                    break;
                }
                next => answer = next,
            }
        }
        answer
    }
}

/// A path with a query, in which nothing of a value can be more than a value.
pub fn with_query(path: &str, query: &impl Serialize) -> String {
    let query = serde_urlencoded::to_string(query);
    format!("{path}?{}", query.expect("its values are text and numbers"))
}

/// A connection of either kind: what is done with it is there once.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

fn connect(socket: &Path) -> io::Result<Box<dyn Stream>> {
    // The kernel would say that the connection was refused.
    if fs::metadata(socket).is_ok_and(|file| !file.file_type().is_socket()) {
        let what = "it is not a socket";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    // It waits where a proxy that is busy has others to accept first.
    let stream = UnixStream::connect(socket)?;
    stream.set_nonblocking(true)?;
    Ok(Box::new(net::UnixStream::from_std(stream)?))
}

fn connect_to(server: &str, within: Duration) -> io::Result<Box<dyn Stream>> {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for addr in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, CONNECT_WITHIN.min(within)) {
            Ok(stream) => {
                stream.set_nonblocking(true)?;
                return Ok(Box::new(net::TcpStream::from_std(stream)?));
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
    let no_server = |error| ClientError::NoServer {
        server: server.to_owned(),
        error,
    };
    let request = request(&Method::GET, path, Bytes::new());
    let connect = || connect_to(server, within);
    let answer = exchange(&connect, request, within, &no_server);
    answer.and_then(understood).map_err(|error| match error {
        // Nothing that somebody else said gets to the terminal as it is.
        ClientError::Refused(text) => ClientError::Refused(printable(&text, LONGEST_REASON)),
        ClientError::Busy(text) => ClientError::Busy(printable(&text, LONGEST_REASON)),
        ClientError::Strange(text) => ClientError::Strange(printable(&text, LONGEST_REASON)),
        error => error,
    })
}

fn request(method: &Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "close")
        .header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(body));
    request.expect("paths are made here, with their values escaped")
}

/// What comes of a request over a new connection.
fn exchange(
    connect: &dyn Fn() -> io::Result<Box<dyn Stream>>,
    request: Request<Full<Bytes>>,
    within: Duration,
    unreachable: &dyn Fn(io::Error) -> ClientError,
) -> Result<Bytes, ClientError> {
    let strange = format!("no HTTP answer to {} {}", request.method(), request.uri());
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.map_err(unreachable)?.block_on(async {
        match timeout(within, answer(connect()?, request)).await {
            Ok(answer) => answer,
            Err(_) => {
                let what = format!("no answer within {} s", within.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, what).into())
            }
        }
    });
    let answer = answer.map_err(|error| failed(&*error, strange, unreachable))?;
    let (status, body) = (answer.status(), answer.into_body());
    if status.is_success() {
        return Ok(body);
    }
    let Failure { error } = understood(body)?;
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS => ClientError::Busy(error),
        _ => ClientError::Refused(error),
    })
}

async fn answer(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What becomes of it is told to whoever waits for the answer.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// Why there is no answer, as whoever asked has to understand it.
fn failed(
    error: &(dyn Error + 'static),
    strange: String,
    unreachable: &dyn Fn(io::Error) -> ClientError,
) -> ClientError {
    let went_away = || {
        let what = "the proxy went away";
        unreachable(io::Error::new(io::ErrorKind::UnexpectedEof, what))
    };
    let mut next = Some(error);
    while let Some(cause) = next {
        next = cause.source();
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => went_away(),
                kind => unreachable(io::Error::new(kind, in_words(error))),
            };
        }
        match cause.downcast_ref::<hyper::Error>() {
            Some(error)
                if error.is_incomplete_message() || error.is_closed() || error.is_canceled() =>
            {
                return went_away();
            }
            Some(error) if error.is_parse() => return ClientError::Strange(strange),
            _ => {}
        }
    }
    ClientError::Strange(error.to_string())
}

/// The document that an answer is.
fn understood<T: DeserializeOwned>(answer: Bytes) -> Result<T, ClientError> {
    let unreadable = |error: serde_json::Error| ClientError::Strange(error.to_string());
    serde_json::from_slice(&answer).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::Shutdown};

    use serde_json::{Map, Value};

    use super::*;

    /// What comes of a request to somebody who says this and then no more.
    fn ask(says: &str, ends: bool) -> Result<Value, ClientError> {
        let (ours, mut theirs) = UnixStream::pair().expect("two descriptors");
        ours.set_nonblocking(true).expect("it is a socket");
        theirs.write_all(says.as_bytes()).expect("it fits");
        if ends {
            theirs.shutdown(Shutdown::Write).expect("it is open");
        }
        let connect = || -> io::Result<Box<dyn Stream>> {
            Ok(Box::new(net::UnixStream::from_std(ours.try_clone()?)?))
        };
        let unreachable = |error| ClientError::Unreachable {
            socket: "/s".into(),
            error,
        };
        let request = request(&Method::GET, "/", Bytes::new());
        understood(exchange(
            &connect,
            request,
            Duration::from_secs(1),
            &unreachable,
        )?)
    }

    #[test]
    fn what_comes_is_an_answer_or_told_for_what_it_is() {
        let whole = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(
            ask(whole, true).expect("it is whole"),
            Value::Object(Map::new())
        );
        let told = |says, ends| ask(says, ends).expect_err(says).to_string();
        let refusal = "HTTP/1.0 404 Not Found\r\nx: y\r\n\r\n{\"error\": \"no job\"}";
        assert_eq!(told(refusal, true), "no job");
        let strange = told("SSH-2.0-x\r\n", true);
        assert!(strange.contains("no HTTP answer to GET / ("), "{strange}");
        assert_eq!(told("", false), "/s: no answer within 1 s");
        // A stop cuts an answer short.
        for end in 0..whole.len() {
            assert_eq!(
                told(&whole[..end], true),
                "/s: the proxy went away",
                "{end}"
            );
        }
    }

    #[test]
    fn names_from_outside_cannot_change_a_query() {
        let path = with_query("/p", &[("name", "a/b&c=d e")]);
        assert_eq!(path, "/p?name=a%2Fb%26c%3Dd+e");
    }
}
