//! Talking to a running proxy: one HTTP request over its unix socket, one answer.
//!
//! HTTP/1.0 on purpose: the answer then ends with the connection, and the few lines here are all
//! the HTTP that is needed.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{admin::api::model::Failure, os_error::in_words, text::printable};

/// Where packages have the proxy put its socket.
pub const DEFAULT_SOCKET: &str = "/run/tml-proxy/admin.sock";

/// How long an answer may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How long a connection over the network may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read: far more than there ever are.
const LONGEST_ANSWER: u64 = 1 << 30;

/// Characters of a refusal that are shown: what is wrong with a request takes less.
const LONGEST_REASON: usize = 500;

/// What ends the head of an answer.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A way to a running proxy.
#[derive(Debug, Clone, clap::Args)]
pub struct Client {
    /// The proxy's unix socket (admin.socket in its configuration).
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// Why there is no answer, or not the one wanted.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody could be asked.
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The kernel's reason.
        error: io::Error,
    },
    /// Nobody could be asked over the network.
    NoServer {
        /// The host and the port.
        server: String,
        /// The kernel's reason.
        error: io::Error,
    },
    /// The question makes no sense.
    Usage(String),
    /// Too much is being asked of it.
    Busy(String),
    /// The proxy said no.
    Refused(String),
    /// What came back is not what a proxy of this version answers.
    Strange(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { socket, error } => {
                let socket = socket.display();
                write!(f, "{socket}: {}", in_words(error))?;
                f.write_str(match error.kind() {
                    io::ErrorKind::NotFound => {
                        " (is the proxy running, with admin.socket set to this path?)"
                    }
                    io::ErrorKind::ConnectionRefused => " (the proxy that made it is gone)",
                    io::ErrorKind::PermissionDenied => {
                        " (admin.socket_mode and admin.socket_group say who may connect)"
                    }
                    _ => "",
                })
            }
            Self::NoServer { server, error } => {
                let error = in_words(error);
                write!(
                    f,
                    "{server}: {error} (is this the proxy's switchboard.lookup?)"
                )
            }
            Self::Usage(error) | Self::Busy(error) | Self::Refused(error) => f.write_str(error),
            Self::Strange(what) => {
                write!(
                    f,
                    "the proxy's answer makes no sense: {what} (is it of another version?)"
                )
            }
        }
    }
}

impl Client {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask("GET", path, None::<&()>)
    }

    /// Has something changed.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask("POST", path, Some(body))
    }

    /// Has something done that needs no particulars.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn order<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask("POST", path, None::<&()>)
    }

    /// Has something set.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask("PUT", path, Some(body))
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body
            .expect("text, numbers and lists are always JSON")
            .unwrap_or_default();
        let answer = exchange(&self.socket, method, path, &body).map_err(|error| {
            ClientError::Unreachable {
                socket: self.socket.clone(),
                error,
            }
        })?;
        understood(&answer, method, path)
    }
}

fn exchange(socket: &Path, method: &str, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    // The kernel would say that the connection was refused.
    if fs::metadata(socket).is_ok_and(|file| !file.file_type().is_socket()) {
        let what = "it is not a socket";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    converse(stream, method, path, body).map_err(|error| unanswered(error, ANSWER_WITHIN))
}

/// An error of an open connection as whoever asked has to understand it.
fn unanswered(error: io::Error, within: Duration) -> io::Error {
    let (kind, what) = match error.kind() {
        // How the kernel puts that the time to read or write ran out.
        io::ErrorKind::WouldBlock => (
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", within.as_secs()),
        ),
        kind @ (io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe) => (kind, "the proxy went away".to_owned()),
        _ => return error,
    };
    io::Error::new(kind, what)
}

fn converse(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    body: &[u8],
) -> io::Result<Vec<u8>> {
    let length = body.len();
    // In one piece: a server that answers before it has read all would reset the connection.
    let mut request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    match is_cut(&answer) {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(answer),
    }
}

/// Whether the connection ended before the answer did.
fn is_cut(answer: &[u8]) -> bool {
    let Some(end) = head_end(answer) else {
        const BEGIN: &[u8] = b"HTTP/";
        return BEGIN.starts_with(answer) || answer.starts_with(BEGIN);
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() - end - HEAD_END.len() < length)
}

/// Reads a document from somebody else's listener at `server`, a host and a port, where the answer
/// may take as long as `within`.
///
/// # Errors
///
/// See [`ClientError`].
pub fn get_from<T: DeserializeOwned>(
    server: &str,
    path: &str,
    within: Duration,
) -> Result<T, ClientError> {
    let ask = || -> io::Result<Vec<u8>> {
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        for addr in server.to_socket_addrs()? {
            match TcpStream::connect_timeout(&addr, CONNECT_WITHIN.min(within)) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(within))?;
                    stream.set_write_timeout(Some(within))?;
                    let answer = converse(stream, "GET", path, b"");
                    return answer.map_err(|error| unanswered(error, within));
                }
                Err(failed) => error = failed,
            }
        }
        Err(error)
    };
    let answer = ask().map_err(|error| ClientError::NoServer {
        server: server.to_owned(),
        error,
    })?;
    understood(&answer, "GET", path).map_err(|error| match error {
        // Nothing that somebody else said gets to the terminal as it is.
        ClientError::Refused(text) => ClientError::Refused(printable(&text, LONGEST_REASON)),
        ClientError::Busy(text) => ClientError::Busy(printable(&text, LONGEST_REASON)),
        ClientError::Strange(text) => ClientError::Strange(printable(&text, LONGEST_REASON)),
        error => error,
    })
}

/// The document in an answer, or why there is none.
fn understood<T: DeserializeOwned>(
    answer: &[u8],
    method: &str,
    path: &str,
) -> Result<T, ClientError> {
    let strange = || ClientError::Strange(format!("no HTTP answer to {method} {path}"));
    let (status, body) = split(answer).ok_or_else(strange)?;
    let unreadable = |error: serde_json::Error| ClientError::Strange(error.to_string());
    match status {
        200..300 => serde_json::from_slice(body).map_err(unreadable),
        _ => {
            let failure: Failure = serde_json::from_slice(body).map_err(unreadable)?;
            Err(match status {
                429 => ClientError::Busy(failure.error),
                _ => ClientError::Refused(failure.error),
            })
        }
    }
}

/// The status and the body of an answer.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = head_end(answer)?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, &answer[end + HEAD_END.len()..]))
}

fn head_end(answer: &[u8]) -> Option<usize> {
    answer
        .windows(HEAD_END.len())
        .position(|bytes| bytes == HEAD_END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_and_anything_else_is_not() {
        let answer = b"HTTP/1.0 404 Not Found\r\nx: y\r\n\r\n{}";
        assert_eq!(split(answer), Some((404, &b"{}"[..])));
        assert_eq!(split(b"SSH-2.0-x\r\n"), None);
    }

    #[test]
    fn an_answer_that_a_stop_cut_short_is_not_called_strange() {
        let whole = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..whole.len() {
            assert!(is_cut(&whole[..end]), "{end}");
        }
        assert!(!is_cut(whole));
        assert!(!is_cut(b"SSH-2.0-x\r\n"));
    }

    #[test]
    fn a_proxy_that_stands_still_is_told_by_the_time_waited() {
        let error = io::ErrorKind::WouldBlock.into();
        let error = ClientError::Unreachable {
            socket: "/s".into(),
            error: unanswered(error, ANSWER_WITHIN),
        };
        assert_eq!(error.to_string(), "/s: no answer within 60 s");
    }
}
