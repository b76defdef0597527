//! Admin clients that are slow, loud or many.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::{
    desk::Desk,
    harness::{
        DEADLINE, process,
        require::{Need, require},
        wait_until,
    },
};

/// Connects with a small buffer for what comes back.
fn connect_narrow(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("any size will do");
    socket.connect(&addr.into()).expect("connects");
    socket.into()
}

/// Whether the proxy has cut the connection; nothing is read of what it sent.
fn was_cut(stream: &TcpStream) -> bool {
    stream.take_error().expect("an open socket").is_some()
}

/// Whether the proxy has ended the connection.
fn has_ended(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("an open socket");
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Lines that make the document of the configuration longer than the kernel keeps for a client.
fn long_config() -> String {
    let nets: Vec<String> = (0..=255)
        .flat_map(|high: u8| (0..=255).map(move |low: u8| format!("\"10.{high}.{low}.0/24\"")))
        .collect();
    format!(
        "[targets]\nallow = [\"::1\", \"127.0.0.0/8\", {}]\n",
        nets.join(", ")
    )
}

#[test]
fn silent_clients_and_those_that_do_not_read_stop_no_scrape_and_no_operator() {
    if !require(&[Need::Descriptors(1000)]) {
        return;
    }
    let desk = Desk::new(&long_config(), "");
    let admin = desk.scene.proxy.admin();
    let (mut client, mut server) = desk.scene.pair();
    let length = desk.ask_tcp("GET", "/api/v1/config", "").body.len();
    let before = process::resident_kib(desk.scene.proxy.id());
    let mut deaf: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect_narrow(admin);
            let request = "GET /api/v1/config HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request.as_bytes()).expect("taken");
            stream
        })
        .collect();
    let silent: Vec<TcpStream> = (0..400)
        .map(|number| {
            let mut stream = TcpStream::connect(admin).expect("connects");
            // Half of a request, and then nothing.
            let part = if number % 2 == 0 { "GET /metr" } else { "" };
            // It may be ended already for one that came later.
            let _ = stream.write_all(part.as_bytes());
            stream
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(desk.ask_tcp("GET", "/metrics", "").status, 200);
    }
    client.exchange(&mut server, b"the data path goes on");
    assert!(desk.succeed(&["status"]).starts_with("serving"));
    // What they have not taken is held once, not once for each of them.
    let grown = process::resident_kib(desk.scene.proxy.id()).saturating_sub(before);
    let each = length as u64 / 1024;
    println!("{grown} KiB more for 100 answers of {each} KiB that nobody reads");
    assert!(grown < 20 * each, "{grown} KiB for answers of {each} KiB");
    // And whoever takes nothing does not keep the place.
    wait_until("every one of them to be ended", || {
        deaf.retain(|stream| !was_cut(stream));
        deaf.is_empty() && silent.iter().all(has_ended)
    });
    drop((client, server, silent));
    desk.scene.finish();
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_its_answer() {
    let desk = Desk::new(&long_config(), "");
    let expected = desk.ask_tcp("GET", "/api/v1/config", "").body;
    let mut stream = connect_narrow(desk.scene.proxy.admin());
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("an open socket");
    let request = "GET /api/v1/config HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("taken");
    let mut answer = Vec::new();
    let mut piece = [0; 4000];
    loop {
        match stream.read(&mut piece).expect("the rest of the answer") {
            0 => break,
            some => answer.extend_from_slice(&piece[..some]),
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let answer = String::from_utf8(answer).expect("text");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    assert!(body == expected, "{} of {}", body.len(), expected.len());
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
