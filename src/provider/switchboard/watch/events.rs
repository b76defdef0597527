//! Reads a stream of server-sent events for the only thing that is in it: that something changed.
//!
//! Nothing is stored but the kind of the line that is being read, so a stream of any length and in
//! any pieces costs nothing. What an event is called and what it carries does not matter: it means
//! "look again". A comment means that the server lives.

/// The longest line of a stream that is taken for one, in bytes. Usual is 13.
const LINE_AT_MOST: usize = 64 << 10;

/// How far into the stream.
#[derive(Debug, Default)]
pub struct Events {
    line: Line,
    /// The event being read has a field.
    pending: bool,
    /// The last byte was a carriage return, so that a line feed now belongs to it.
    returned: bool,
}

/// The line being read.
#[derive(Debug, Default, Clone, Copy)]
enum Line {
    #[default]
    Empty,
    Comment(usize),
    Field(usize),
}

/// What a piece of the stream held.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Events that ended in it.
    pub changes: usize,
    /// Comments that ended in it.
    pub comments: usize,
}

/// A line that is longer than any of a switchboard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {LINE_AT_MOST} bytes in a stream of events")]
pub struct Endless;

impl Events {
    /// Reads on.
    ///
    /// # Errors
    ///
    /// A line without an end; the stream is of no use then.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Heard, Endless> {
        let mut heard = Heard::default();
        for &byte in piece {
            let follows_return = std::mem::replace(&mut self.returned, byte == b'\r');
            match byte {
                b'\n' if follows_return => {}
                b'\n' | b'\r' => self.end_line(&mut heard),
                byte => self.extend_line(byte)?,
            }
        }
        Ok(heard)
    }

    fn end_line(&mut self, heard: &mut Heard) {
        match std::mem::take(&mut self.line) {
            Line::Empty if self.pending => {
                self.pending = false;
                heard.changes += 1;
            }
            Line::Empty => {}
            Line::Comment(_) => heard.comments += 1,
            Line::Field(_) => self.pending = true,
        }
    }

    fn extend_line(&mut self, byte: u8) -> Result<(), Endless> {
        self.line = match self.line {
            Line::Empty if byte == b':' => Line::Comment(1),
            Line::Empty => Line::Field(1),
            Line::Comment(LINE_AT_MOST) | Line::Field(LINE_AT_MOST) => return Err(Endless),
            Line::Comment(length) => Line::Comment(length + 1),
            Line::Field(length) => Line::Field(length + 1),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heard(pieces: &[&[u8]]) -> (usize, usize) {
        let mut events = Events::default();
        let heard = pieces
            .iter()
            .map(|piece| events.feed(piece).expect("lines of a sensible length"));
        heard.fold((0, 0), |(changes, comments), heard| {
            (changes + heard.changes, comments + heard.comments)
        })
    }

    #[test]
    fn changes_and_signs_of_life_are_told_apart() {
        assert_eq!(heard(&[b"event: change\ndata: {}\n\n"]), (1, 0));
        assert_eq!(heard(&[b":\n\n"]), (0, 1));
        assert_eq!(
            heard(&[b"event: change\r\ndata: {}\r\n\r\n:\r\n\r\n"]),
            (1, 1)
        );
        assert_eq!(heard(&[b"data\r\rdata\r\n\n"]), (2, 0));
        assert_eq!(heard(&[b"retry: 5\n: hm\n"]), (0, 1));
        assert_eq!(heard(&[b"event: change\ndata: {}\n"]), (0, 0));
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
        assert_eq!(heard(&[&body]), (1, 3));
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut events = Events::default();
        let piece = [b'x'; 4096];
        let pieces = (0..).take_while(|_| events.feed(&piece).is_ok()).count();
        assert_eq!(pieces, LINE_AT_MOST / piece.len());
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
            prop_assert_eq!(heard(&pieces), heard(&[bytes]));
        }
    }
}
