//! Talking to a running proxy: one HTTP request over its unix socket, one answer.
//!
//! HTTP/1.0 on purpose: the answer then ends with the connection, and the few lines here are all
//! the HTTP that is needed.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{admin::api::model::Failure, os_error::in_words};

/// Where packages have the proxy put its socket.
pub const DEFAULT_SOCKET: &str = "/run/tml-proxy/admin.sock";

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How long a connection over the network may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read: far more than there ever are.
const LONGEST_ANSWER: u64 = 1 << 30;

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
                write!(
                    f,
                    "{server}: {error} (is this the proxy's switchboard.lookup?)"
                )
            }
            Self::Refused(error) => f.write_str(error),
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
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    converse(stream, method, path, body)
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
        "{method} {path} HTTP/1.0\r\nHost: tml-proxy\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Reads a document from somebody else's lookup listener at `server`, a host and a port.
///
/// # Errors
///
/// See [`ClientError`].
pub fn get_from<T: DeserializeOwned>(server: &str, path: &str) -> Result<T, ClientError> {
    let ask = || -> io::Result<Vec<u8>> {
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        for addr in server.to_socket_addrs()? {
            match TcpStream::connect_timeout(&addr, CONNECT_WITHIN) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
                    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
                    return converse(stream, "GET", path, b"");
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
    understood(&answer, "GET", path)
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
            Err(ClientError::Refused(failure.error))
        }
    }
}

/// The status and the body of an answer.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, &answer[end + 4..]))
}

/// A value as part of a path's query.
pub fn escaped(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
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
    fn names_from_outside_cannot_change_a_query() {
        assert_eq!(escaped("a/b&c=d e"), "a%2Fb%26c%3Dd%20e");
    }
}
