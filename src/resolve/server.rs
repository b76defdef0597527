//! Asking one server: over UDP, and over TCP for what that has no room for.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{
    LookupError,
    message::{LONGEST, Question, Reply},
};
use crate::os_error::in_words;

/// Asks `server`, and waits so long for an answer to this question. What else arrives is ignored.
pub(super) async fn ask(
    server: SocketAddr,
    question: &Question,
    only_tcp: bool,
    within: Duration,
) -> Result<Reply, LookupError> {
    let answer = async {
        match only_tcp {
            true => over_tcp(server, question).await,
            false => match over_udp(server, question).await? {
                Reply::CutShort => over_tcp(server, question).await,
                reply => Ok(reply),
            },
        }
    };
    match timeout(within, answer).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(LookupError::Unreachable {
            server,
            error: in_words(&error),
        }),
        Err(_) => Err(LookupError::Late { server, within }),
    }
}

/// From a port that nobody else has, so that others cannot answer in the server's place.
async fn over_udp(server: SocketAddr, question: &Question) -> io::Result<Reply> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question.as_bytes()).await?;
    // More than a server may send to who does not ask for more.
    let mut buffer = [0; 2048];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = question.read(&buffer[..length]) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Question) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let bytes = question.as_bytes();
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), bytes].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut buffer = Vec::with_capacity(usize::from(length).min(LONGEST));
    (&mut stream)
        .take(length.into())
        .read_to_end(&mut buffer)
        .await?;
    Ok(match question.read(&buffer) {
        Some(Reply::CutShort) => Reply::Unreadable("it is cut short over TCP as well"),
        Some(reply) => reply,
        None => Reply::Unreadable("it is one to another question"),
    })
}
