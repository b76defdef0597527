//! The echo service behind the built-in example, so that it needs no other software.

use tokio::net::{TcpListener, TcpStream};

use crate::provider::demo;

/// Sends every byte back to where it came from, until the runtime ends.
pub(super) async fn start() -> std::io::Result<()> {
    let listener = TcpListener::bind(demo::ECHO).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    Ok(())
}

async fn echo(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    // Whatever ends the connection, the example has nobody to tell.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}
