//! An operator's place: a proxy with an admin socket, its API and its commands.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Output},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::harness::{DEADLINE, Scene, Setup, TempDir, process, proxy::PROGRAM};

/// The usual stage with an admin socket.
pub struct Desk {
    /// The stage.
    pub scene: Scene,
    dir: TempDir,
    process: String,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it says went wrong.
    #[track_caller]
    pub fn error(&self) -> String {
        let json = self.json();
        json["error"]
            .as_str()
            .expect("an error in words")
            .to_owned()
    }
}

impl Desk {
    /// Sets it up; `sections` is further lines before the mapping, `more` further lines of it.
    #[track_caller]
    pub fn new(sections: &str, more: &str) -> Self {
        let dir = TempDir::new();
        let socket = dir.join("admin.sock");
        let process = format!("[admin]\nsocket = {socket:?}\n{sections}");
        Self {
            scene: Scene::with(&Setup::default(), &process, more),
            dir,
            process,
        }
    }

    /// The configuration with other lines in its mapping.
    pub fn config(&self, more: &str) -> String {
        let rest = self.scene.config(more);
        rest.replacen(
            "version = 1\n",
            &format!("version = 1\n{}", self.process),
            1,
        )
    }

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// Asks on the unix socket.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let stream = UnixStream::connect(self.socket()).expect("the admin socket");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("an open socket");
        exchange(stream, "a", method, path, body)
    }

    /// Asks over TCP.
    #[track_caller]
    pub fn ask_tcp(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_tcp_as("localhost", method, path, body)
    }

    /// Asks over TCP as a browser does that was led to the proxy by that name.
    #[track_caller]
    pub fn ask_tcp_as(&self, host: &str, method: &str, path: &str, body: &str) -> Answer {
        let stream = TcpStream::connect(self.scene.proxy.admin()).expect("the admin address");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("an open socket");
        exchange(stream, host, method, path, body)
    }

    /// Reads a document.
    #[track_caller]
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.ask("GET", path, "");
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    /// Runs a command of the program against the proxy.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Output {
        process::output(&mut self.prepare(arguments))
    }

    /// A command of the program against the proxy.
    pub fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--socket").arg(self.socket());
        command
    }

    /// Runs a command that has to succeed and gives what it printed.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        process::succeed(&mut self.prepare(arguments))
    }
}

#[track_caller]
fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Answer {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream
        .write_all(request.as_bytes())
        .expect("the request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.expect("a status"),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}
