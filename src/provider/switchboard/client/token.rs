//! The secret that a request carries: read from a file, shown to nobody.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use http::HeaderValue;

use crate::files::{self, FileError, Unanswered};

/// How long a token may be, in bytes. The longest known has 172.
const LONGEST: u64 = 4096;

/// A bearer token, as the header that carries it, marked as sensitive.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(HeaderValue);

/// Why a file gives no token. The file's content is not in it.
#[derive(Debug, thiserror::Error)]
#[error("token_file {}: {reason}", path.display())]
pub struct TokenError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    File(FileError),
    #[error("is empty")]
    Empty,
    #[error("longer than {LONGEST} bytes")]
    TooLong,
    #[error("not one line of printable ASCII without spaces")]
    Unprintable,
}

impl TokenError {
    /// Of a file that nobody can wait for.
    pub(super) fn unanswered(path: &Path, error: Unanswered) -> Self {
        Self {
            path: path.to_owned(),
            reason: Reason::File(error.into()),
        }
    }
}

impl Token {
    /// The token that `path` holds.
    pub(super) fn read(path: &Path) -> Result<Self, TokenError> {
        let content = files::read(path, LONGEST).map_err(|error| match error {
            FileError::TooLong { .. } => Reason::TooLong,
            error => Reason::File(error),
        });
        let token = content.and_then(|content| Self::parse(&content));
        token.map_err(|reason| TokenError {
            path: path.to_owned(),
            reason,
        })
    }

    /// `content` without the white space around it.
    fn parse(content: &[u8]) -> Result<Self, Reason> {
        let token = content.trim_ascii();
        if token.is_empty() {
            return Err(Reason::Empty);
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(Reason::Unprintable);
        }
        let header = HeaderValue::from_bytes(&[b"Bearer ", token].concat());
        let mut header = header.map_err(|_invalid| Reason::Unprintable)?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    /// The value of the header `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_without_the_line_end_of_its_file() {
        let token = Token::parse(b"abc+/=\n").expect("a token");
        assert_eq!(token.header(), "Bearer abc+/=");
        assert!(token.header().is_sensitive());
    }

    #[test]
    fn nothing_shows_a_token() {
        let token = Token::parse(b"sesame").expect("a token");
        let shown = format!("{token:?} {:?}", token.header());
        assert!(!shown.contains("sesame"), "{shown}");
        let refused = Token::parse(b"ses\name").expect_err("refused");
        let shown = format!("{refused} {refused:?}");
        assert!(
            !shown.contains("ses\n") && !shown.contains("ame\""),
            "{shown}"
        );
    }

    #[test]
    fn a_file_without_a_usable_token_is_refused() {
        assert!(matches!(Token::parse(b" \n"), Err(Reason::Empty)));
        for content in [&b"a b"[..], b"\xff"] {
            assert!(matches!(Token::parse(content), Err(Reason::Unprintable)));
        }
        let refused = Token::read(Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/Cargo.lock"
        )))
        .expect_err("refused");
        assert!(matches!(refused.reason, Reason::TooLong), "{refused}");
    }
}
