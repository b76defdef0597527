//! Admin clients that are slow, loud or many.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
};

use crate::{desk::Desk, harness::DEADLINE};

#[test]
fn more_silent_clients_than_there_are_places_keep_nobody_from_working() {
    let desk = Desk::new("", "");
    let (mut client, mut server) = desk.scene.pair();
    let silent: Vec<TcpStream> = (0..150)
        .map(|number| {
            let mut stream = TcpStream::connect(desk.scene.proxy.admin()).expect("connects");
            // Half of a request, and then nothing.
            let part = if number % 2 == 0 { "GET /metr" } else { "" };
            stream.write_all(part.as_bytes()).expect("taken");
            stream
        })
        .collect();
    client.exchange(&mut server, b"the data path goes on");
    assert!(desk.succeed(&["status"]).starts_with("serving"));
    // Each is dropped after its time, so that a scrape gets its turn.
    let mut first = &silent[0];
    first
        .set_read_timeout(Some(DEADLINE))
        .expect("an open socket");
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).expect("an end, not silence");
    drop(silent);
    assert_eq!(desk.ask_tcp("GET", "/livez", "").status, 200);
    drop((client, server));
    desk.scene.finish();
}

#[test]
fn huge_requests_are_refused() {
    let desk = Desk::new("", "");
    let body = format!("{{\"mapping\": \"{}\"}}", "m".repeat(1 << 20));
    assert!(refused(
        &desk,
        "POST /api/v1/mappings/pause HTTP/1.1",
        "",
        &body
    ));
    let header = format!("X-Much: {}\r\n", "m".repeat(1 << 20));
    assert!(refused(&desk, "GET /livez HTTP/1.1", &header, ""));
    assert_eq!(desk.ask("GET", "/livez", "").status, 200);
    desk.scene.finish();
}

/// Whether the request is answered with a 4xx or not at all, before or after it was sent whole.
fn refused(desk: &Desk, line: &str, headers: &str, body: &str) -> bool {
    let mut stream = UnixStream::connect(desk.socket()).expect("the admin socket");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("an open socket");
    let length = body.len();
    let request = format!(
        "{line}\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    // It may be refused while it is being sent.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer.is_empty() || answer.starts_with(b"HTTP/1.1 4")
}
