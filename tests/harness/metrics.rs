//! Reading the metrics page.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::DEADLINE;

/// What one scrape said.
#[derive(Debug, Clone)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// The status line and the body of a GET request.
pub fn get(addr: SocketAddr, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default().to_owned();
    Ok((status, body.to_owned()))
}

/// A connection that stays for many scrapes.
#[derive(Debug)]
pub struct Scraper(BufReader<TcpStream>);

impl Scraper {
    /// Connects.
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).expect("admin listens");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("an open socket");
        Self(BufReader::new(stream))
    }

    /// Scrapes.
    pub fn scrape(&mut self) -> Metrics {
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let stream = self.0.get_mut();
        stream.write_all(request.as_bytes()).expect("admin reads");
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("admin answers");
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().expect("a length");
                }
                Some(_) => {}
                None if line.trim_end().is_empty() => break,
                None => assert!(line.contains(" 200 "), "{line}"),
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a whole answer");
        Metrics::parse(&String::from_utf8_lossy(&body))
    }
}

impl Metrics {
    /// Scrapes.
    pub fn scrape(addr: SocketAddr) -> Self {
        let (status, body) = get(addr, "/metrics").expect("the admin address answers");
        assert!(status.contains(" 200 "), "{status}\n{body}");
        Self::parse(&body)
    }

    fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(|line| Sample::parse(line).unwrap_or_else(|| panic!("not a sample: {line}")))
                .collect(),
        )
    }

    /// The sum of all samples of that name which carry all of those labels; no sample counts as 0.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum: f64 = self
            .0
            .iter()
            .filter(|sample| sample.name == name && sample.carries(labels))
            .map(|sample| sample.value)
            .sum();
        assert!(sum >= 0.0, "{name} {labels:?} is {sum}");
        sum as u64
    }

    /// Whether there is a sample of that name with all of those labels.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.0
            .iter()
            .any(|sample| sample.name == name && sample.carries(labels))
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let labels = labels
            .split("\",")
            .filter(|label| !label.is_empty())
            .map(|label| {
                let (key, value) = label.split_once("=\"")?;
                let value = value.strip_suffix('"').unwrap_or(value);
                Some((key.to_owned(), value.to_owned()))
            })
            .collect::<Option<_>>()?;
        Some(Self {
            name: name.to_owned(),
            labels,
            value: value.parse().ok()?,
        })
    }

    fn carries(&self, labels: &[(&str, &str)]) -> bool {
        labels
            .iter()
            .all(|(key, value)| self.labels.iter().any(|(k, v)| k == key && v == value))
    }
}
