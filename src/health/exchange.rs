//! What is said over a connection for a check, and whether the answer is right.

use std::net::SocketAddr;

use super::{
    Failure, Outcome, Probe,
    settings::{By, StatusRange},
};
use crate::proxy_protocol::write_own;

/// Bytes of an answer that are looked at.
pub(super) const LONGEST: usize = 16 << 10;

/// One conversation.
#[derive(Debug)]
pub(super) struct Exchange {
    /// What is still to be sent.
    pub send: Vec<u8>,
    answer: Vec<u8>,
    right: Right,
}

/// What is right.
#[derive(Debug)]
enum Right {
    Status(Vec<StatusRange>),
    Has(String),
}

impl Exchange {
    /// Nothing if a connection is all that is wanted.
    pub fn of(probe: &Probe, target: SocketAddr) -> Option<Self> {
        let (said, right) = match &probe.check.by {
            By::Connect => return None,
            By::Http {
                method,
                path,
                host,
                status,
            } => {
                let host = host.clone().unwrap_or_else(|| target.to_string());
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tml-proxy\r\n\
                     Accept: */*\r\nConnection: close\r\n\r\n"
                );
                (request, Right::Status(status.clone()))
            }
            By::Exchange { send, expect } => {
                (send.clone().unwrap_or_default(), Right::Has(expect.clone()))
            }
        };
        let mut send = probe.header.map(write_own).unwrap_or_default().to_vec();
        send.extend(said.into_bytes());
        Some(Self {
            send,
            answer: Vec::new(),
            right,
        })
    }

    /// Takes more of the answer; what follows from it, if that is known already.
    pub fn heard(&mut self, bytes: &[u8]) -> Option<Outcome> {
        let before = self.answer.len();
        let room = LONGEST - before;
        self.answer
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        let outcome = match &self.right {
            Right::Status(right) => status(&self.answer, right),
            Right::Has(expected) => {
                // It may have begun before.
                let from = before.saturating_sub(expected.len());
                has(&self.answer[from..], expected.as_bytes()).then_some(Ok(()))
            }
        };
        let is_full = self.answer.len() == LONGEST;
        outcome.or_else(|| is_full.then(|| self.ended()))
    }

    /// What follows from there being no more.
    pub fn ended(&self) -> Outcome {
        Err(match &self.right {
            Right::Status(_) if self.answer.len() == LONGEST => Failure::NotHttp,
            Right::Status(_) => Failure::BrokeOff,
            Right::Has(_) => Failure::NotExpected(self.answer.len()),
        })
    }
}

/// What the first line of an answer says, once that is there.
fn status(answer: &[u8], right: &[StatusRange]) -> Option<Outcome> {
    /// The longest first line that is waited for.
    const LONGEST_LINE: usize = 1024;
    let begins = b"HTTP/1.";
    let seen = answer.len().min(begins.len());
    if answer[..seen] != begins[..seen] {
        return Some(Err(Failure::NotHttp));
    }
    let Some(end) = answer.iter().position(|byte| *byte == b'\n') else {
        return (answer.len() > LONGEST_LINE).then_some(Err(Failure::NotHttp));
    };
    let line = String::from_utf8_lossy(&answer[..end]);
    let number = line
        .split_ascii_whitespace()
        .nth(1)
        .filter(|text| text.len() == 3);
    let Some(status) = number.and_then(|text| text.parse().ok()) else {
        return Some(Err(Failure::NotHttp));
    };
    let fits = right
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&status));
    Some(match fits {
        true => Ok(()),
        false => Err(Failure::Status(status)),
    })
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(right: Right) -> Exchange {
        Exchange {
            send: Vec::new(),
            answer: Vec::new(),
            right,
        }
    }

    #[test]
    fn a_status_is_known_with_its_line_and_not_before() {
        for (answer, outcome) in [
            ("HTTP/1.1 200 OK\r\n", Some(Ok(()))),
            ("HTTP/1.0 299\n", Some(Ok(()))),
            (
                "HTTP/1.1 503 Service Unavailable\r\n",
                Some(Err(Failure::Status(503))),
            ),
            ("HTTP/1.1 200 OK", None),
            ("HTT", None),
            ("", None),
            ("SSH-2.0-x\r\n", Some(Err(Failure::NotHttp))),
            ("HTTP/1.1 2000 OK\r\n", Some(Err(Failure::NotHttp))),
            ("HTTP/1.1\r\n200", Some(Err(Failure::NotHttp))),
        ] {
            let mut at_once = exchange(Right::Status(vec![(200, 299)]));
            assert_eq!(at_once.heard(answer.as_bytes()), outcome, "{answer:?}");
            let mut one_by_one = exchange(Right::Status(vec![(200, 299)]));
            let mut each = answer.bytes().map(|byte| one_by_one.heard(&[byte]));
            assert_eq!(each.find_map(|outcome| outcome), outcome, "{answer:?}");
        }
    }

    #[test]
    fn what_is_expected_may_come_in_pieces() {
        let mut pieces = exchange(Right::Has("+PONG".to_owned()));
        assert_eq!(pieces.heard(b"x+PO"), None);
        assert_eq!(pieces.heard(b"NG\r\n"), Some(Ok(())));
        let ended = exchange(Right::Has("+PONG".to_owned())).ended();
        assert_eq!(ended, Err(Failure::NotExpected(0)));
    }

    #[test]
    fn an_answer_without_an_end_is_looked_at_so_far_and_no_further() {
        for right in [
            Right::Has("never".to_owned()),
            Right::Status(vec![(200, 200)]),
        ] {
            let mut endless = exchange(right);
            endless.answer = b"HTTP/1.1 ".to_vec();
            let mut outcomes = (0..100).map(|_| endless.heard(&[b'a'; 1000]));
            assert!(outcomes.any(|outcome| matches!(outcome, Some(Err(_)))));
            assert!(endless.answer.len() <= LONGEST);
        }
    }
}
