//! The echo service behind the built-in example, so that it needs no other software.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{
    config::demo,
    os_error::in_words,
    telemetry::{Task, TaskFailures},
};

/// Until a lost listener is opened again.
const AGAIN_IN: Duration = Duration::from_secs(1);

/// Sends every byte back to where it came from, until the runtime ends.
pub(super) async fn start(failures: Arc<TaskFailures>) -> io::Result<()> {
    let mut listener = TcpListener::bind(demo::ECHO).await;
    if listener.is_err() {
        return listener.map(drop);
    }
    tokio::spawn(async move {
        loop {
            let error = match listener {
                Ok(listener) => serve(listener, &failures).await,
                Err(error) => error,
            };
            let why = in_words(&error);
            failures.stopped(Task::Echo, &why);
            tracing::error!(
                why,
                "the example's echo service ended; it will be started again"
            );
            sleep(AGAIN_IN).await;
            listener = TcpListener::bind(demo::ECHO).await;
            if listener.is_ok() {
                failures.runs(Task::Echo);
            }
        }
    });
    Ok(())
}

/// Serves until the listener is lost, and says why.
async fn serve(listener: TcpListener, failures: &Arc<TaskFailures>) -> io::Error {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return error,
        };
        tokio::spawn(Arc::clone(failures).guard(Task::Echo, echo(stream)));
    }
}

async fn echo(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    // Whatever ends the connection, the example has nobody to tell.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}
