//! A stream of server-sent events, read for the only thing that is in it: that something changed.
//!
//! What an event is called and what it carries does not matter: it means "look again". A comment
//! means that the server lives. No line is longer than [`LINE_AT_MOST`], so that a stream of any
//! length needs little memory.

use std::io;

use tokio_util::{
    bytes::{Buf, BytesMut},
    codec::Decoder,
};

/// The longest line of a stream that is taken for one, in bytes. Usual is 13.
const LINE_AT_MOST: usize = 64 << 10;

/// What a stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Look again.
    Change,
    /// The server lives.
    KeepAlive,
}

/// Why a stream is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// A line is longer than any of a switchboard's.
    #[error("a line of more than {LINE_AT_MOST} bytes in a stream of events")]
    LineTooLong,
    /// It broke.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Reads lines that end in a line feed, a carriage return or both.
#[derive(Debug, Default)]
pub struct EventDecoder {
    /// The event being read has a field.
    has_field: bool,
    /// The last line ended in a carriage return, so that a line feed now belongs to it.
    returned: bool,
}

impl Decoder for EventDecoder {
    type Item = Event;
    type Error = EventError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, EventError> {
        while let Some(first) = buffer.first() {
            if std::mem::take(&mut self.returned) && *first == b'\n' {
                buffer.advance(1);
                continue;
            }
            let end = buffer.iter().position(|byte| b"\r\n".contains(byte));
            if end.unwrap_or(buffer.len()) > LINE_AT_MOST {
                return Err(EventError::LineTooLong);
            }
            let Some(end) = end else {
                return Ok(None);
            };
            let line = buffer.split_to(end);
            self.returned = buffer.get_u8() == b'\r';
            match line.first() {
                Some(b':') => return Ok(Some(Event::KeepAlive)),
                Some(_) => self.has_field = true,
                None if std::mem::take(&mut self.has_field) => return Ok(Some(Event::Change)),
                None => {}
            }
        }
        Ok(None)
    }

    /// Half a line at the end says nothing.
    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, EventError> {
        let last = self.decode(buffer)?;
        if last.is_none() {
            buffer.clear();
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Changes and comments in a stream that comes in pieces.
    fn count(pieces: &[&[u8]]) -> (usize, usize) {
        let (mut decoder, mut buffer) = (EventDecoder::default(), BytesMut::new());
        let mut events = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(event) = decoder
                .decode(&mut buffer)
                .expect("lines of sensible length")
            {
                events.push(event);
            }
        }
        let of = |kind| events.iter().filter(|event| **event == kind).count();
        (of(Event::Change), of(Event::KeepAlive))
    }

    #[test]
    fn changes_and_signs_of_life_are_told_apart() {
        for (stream, expected) in [
            ("event: change\ndata: {}\n\n", (1, 0)),
            (":\n\n", (0, 1)),
            ("event: change\r\ndata: {}\r\n\r\n:\r\n\r\n", (1, 1)),
            ("data\r\rdata\r\n\n", (2, 0)),
            ("retry: 5\n: hm\n", (0, 1)),
            ("event: change\ndata: {}\n", (0, 0)),
        ] {
            assert_eq!(count(&[stream.as_bytes()]), expected, "{stream:?}");
        }
    }

    #[test]
    fn the_body_of_a_captured_watch_has_the_changes_that_were_made() {
        let raw = include_bytes!("../../../../tests/captures/g3/watch/ttl20-keepalive5.raw");
        let chunks: Vec<&[u8]> = raw.split(|&byte| byte == b'\n').collect();
        // The head ends at the first empty line; sizes of chunks read as fields of their own.
        let body = chunks.iter().skip_while(|line| **line != b"\r").skip(1);
        let body: Vec<u8> = body
            .filter(|line| !line.ends_with(b"\r"))
            .flat_map(|line| [line, &b"\n"[..]].concat())
            .collect();
        assert_eq!(count(&[&body]), (1, 3));
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let (mut decoder, mut buffer) = (EventDecoder::default(), BytesMut::new());
        let piece = [b'x'; 4096];
        let pieces = (0..).take_while(|_| {
            buffer.extend_from_slice(&piece);
            decoder.decode(&mut buffer).is_ok()
        });
        assert_eq!(pieces.count(), LINE_AT_MOST / piece.len());
    }

    proptest! {
        /// Where a stream is cut into pieces makes no difference.
        #[test]
        fn pieces_do_not_matter(
            stream in "(event: c\n|data: x\n|\n|:\n|\r\n|\r|retry: 3\r\n){0,30}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = stream.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(count(&pieces), count(&[bytes]));
        }
    }
}
