//! A DNS server of the tests' own: it says of each name what a test has it say, true or not, or nothing.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// What is said of a name.
#[derive(Debug, Clone)]
pub enum Says {
    /// These are its addresses, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    NoSuchName,
    /// A code of an error, 2 for SERVFAIL.
    Error(u8),
    /// It is another name for that one.
    AliasOf(&'static str),
    /// The addresses, as the answer to a question about that name.
    OfAnother(&'static str, Vec<IpAddr>),
    /// The addresses, as those of that name, which was not asked for.
    Besides(&'static str, Vec<IpAddr>),
    /// Nothing.
    Silence,
    /// That it is too long for UDP, and nothing over TCP.
    SilenceOverTcp,
    /// Bytes that break off in the middle of a record.
    Rubbish,
    /// The same after a while.
    Late(Duration, Box<Says>),
    /// One after the other, again and again.
    InTurn(Vec<Says>),
}

#[derive(Debug, Default)]
struct Script {
    names: HashMap<String, Says>,
    asked: HashMap<String, usize>,
}

/// A server on loopback, over UDP and TCP.
#[derive(Debug, Clone)]
pub struct DnsServer {
    pub address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl DnsServer {
    pub fn start() -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().expect("it has one");
        let server = Self {
            address,
            script: Arc::default(),
        };
        let over_udp = server.clone();
        thread::spawn(move || over_udp.serve_udp(&udp));
        let over_tcp = server.clone();
        thread::spawn(move || over_tcp.serve_tcp(&tcp));
        server
    }

    /// Has it say that of a name.
    pub fn say(&self, name: &str, says: Says) -> &Self {
        self.script().names.insert(name.to_owned(), says);
        self
    }

    /// Has it say that a name has these addresses for a second.
    pub fn addresses(&self, name: &str, addresses: &[&str]) -> &Self {
        let parse = |text: &&str| text.parse().expect("an address");
        self.say(
            name,
            Says::Addresses(addresses.iter().map(parse).collect(), 1),
        )
    }

    /// How often a name was asked for, of IPv4 or IPv6.
    pub fn asked(&self, name: &str) -> usize {
        self.script().asked.get(name).copied().unwrap_or_default()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve_udp(self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let (server, question) = (self.clone(), buffer[..length].to_vec());
            let socket = socket.try_clone().expect("a descriptor");
            thread::spawn(move || {
                let Some((says, mut answer)) = server.answer(&question) else {
                    return;
                };
                if answer.len() > 512 || matches!(says, Says::SilenceOverTcp) {
                    answer = cut_short(&question);
                }
                let _ = socket.send_to(&answer, client);
            });
        }
    }

    fn serve_tcp(self, listener: &TcpListener) {
        for client in listener.incoming().map_while(Result::ok) {
            let server = self.clone();
            thread::spawn(move || server.answer_over_tcp(client));
        }
    }

    fn answer_over_tcp(&self, mut client: TcpStream) -> Option<()> {
        let mut length = [0; 2];
        client.read_exact(&mut length).ok()?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        client.read_exact(&mut question).ok()?;
        let (says, answer) = self.answer(&question)?;
        if matches!(says, Says::SilenceOverTcp) {
            // Until whoever asked gives up.
            let _ = client.read(&mut [0]);
            return None;
        }
        let length = u16::try_from(answer.len()).expect("a message is no longer");
        client
            .write_all(&[&length.to_be_bytes(), &*answer].concat())
            .ok()
    }

    /// What is said to a question; waits as long as that takes.
    fn answer(&self, question: &[u8]) -> Option<(Says, Vec<u8>)> {
        let (name, end) = name_in(question)?;
        let kind = question.get(end..end + 2)?[1];
        let mut says = {
            let mut script = self.script();
            let asked = script.asked.entry(name.clone()).or_default();
            *asked += 1;
            // Both kinds are asked for at a time.
            let turn = (*asked - 1) / 2;
            match script.names.get(&name).cloned().unwrap_or(Says::NoSuchName) {
                Says::InTurn(all) => all[turn % all.len()].clone(),
                says => says,
            }
        };
        if let Says::Late(wait, then) = says {
            thread::sleep(wait);
            says = *then;
        }
        let answer = match &says {
            Says::Addresses(addresses, ttl) => {
                let records = records(&name, addresses, kind, *ttl);
                reply(question, &name, kind, 0, &records)
            }
            Says::NoSuchName => reply(question, &name, kind, 3, &[]),
            Says::Error(code) => reply(question, &name, kind, *code, &[]),
            Says::AliasOf(other) => {
                let mut all = vec![record(&name, 5, 1, &encoded(other))];
                if let Some(Says::Addresses(addresses, ttl)) = self.script().names.get(*other) {
                    all.extend(records(other, addresses, kind, *ttl));
                } else if let Some(Says::AliasOf(next)) = self.script().names.get(*other) {
                    all.push(record(other, 5, 1, &encoded(next)));
                }
                reply(question, &name, kind, 0, &all)
            }
            Says::OfAnother(other, addresses) => {
                let records = records(other, addresses, kind, 1);
                reply(question, other, kind, 0, &records)
            }
            Says::Besides(other, addresses) => {
                let records = records(other, addresses, kind, 1);
                reply(question, &name, kind, 0, &records)
            }
            Says::Rubbish => {
                let mut broken = reply(question, &name, kind, 0, &[vec![0xc0, 0xff, 0xff]]);
                broken.truncate(broken.len() - 1);
                broken
            }
            Says::SilenceOverTcp => Vec::new(),
            Says::Silence | Says::Late(..) | Says::InTurn(_) => return None,
        };
        Some((says, answer))
    }
}

/// Of UDP and TCP at one port.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = tcp.local_addr().expect("it has one");
        if let Ok(udp) = UdpSocket::bind(address) {
            return (udp, tcp);
        }
    }
}

/// The name that is asked for, and where it ends.
fn name_in(question: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = question.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect();
    bytes.push(0);
    bytes
}

fn records(name: &str, addresses: &[IpAddr], kind: u8, ttl: u32) -> Vec<Vec<u8>> {
    let of_kind = addresses.iter().filter_map(|ip| match (ip, kind) {
        (IpAddr::V4(ip), 1) => Some(ip.octets().to_vec()),
        (IpAddr::V6(ip), 28) => Some(ip.octets().to_vec()),
        _ => None,
    });
    of_kind.map(|data| record(name, kind, ttl, &data)).collect()
}

fn record(name: &str, kind: u8, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(name);
    bytes.extend([0, kind, 0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn reply(question: &[u8], name: &str, kind: u8, code: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![question[0], question[1], 0x81, 0x80 | code, 0, 1];
    bytes.extend((records.len() as u16).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(encoded(name));
    bytes.extend([0, kind, 0, 1]);
    bytes.extend(records.concat());
    bytes
}

fn cut_short(question: &[u8]) -> Vec<u8> {
    let (name, end) = name_in(question).expect("it was read before");
    let mut bytes = reply(question, &name, question[end + 1], 0, &[]);
    bytes[2] |= 2;
    bytes
}
