//! The secret that a request carries: read from a file, shown to nobody.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use http::HeaderValue;

use crate::files::{self, FileError};

/// How long a token may be, in bytes. The longest known has 172.
const LONGEST: u64 = 4096;

/// A bearer token, as the header that carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(HeaderValue);

/// Why a file gives no token. The file's content is in none of these.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("token_file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: FileError,
    },
    /// There is nothing in it.
    #[error("token_file {}: is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It holds more than a token can have.
    #[error("token_file {}: longer than {LONGEST} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It holds something that no header may.
    #[error("token_file {}: not one line of printable ASCII without spaces", path.display())]
    Unprintable {
        /// The file.
        path: PathBuf,
    },
}

impl Token {
    /// The token that `path` holds, less white space around it.
    ///
    /// # Errors
    ///
    /// See [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let path_buf = || path.to_owned();
        let content = files::read(path, LONGEST).map_err(|reason| match reason {
            FileError::TooLong { .. } => TokenError::TooLong { path: path_buf() },
            reason => TokenError::File {
                path: path_buf(),
                reason,
            },
        })?;
        let token = content.trim_ascii();
        if token.is_empty() {
            return Err(TokenError::Empty { path: path_buf() });
        }
        let unprintable = || TokenError::Unprintable { path: path_buf() };
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(unprintable());
        }
        let mut header = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
            .map_err(|_invalid| unprintable())?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    /// The value of the header `Authorization`, marked as sensitive.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(content: &[u8]) -> Result<Token, TokenError> {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tml-proxy-token-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::write(&path, content).expect("space for a small file");
        let token = Token::read(&path);
        fs::remove_file(&path).expect("own file");
        token
    }

    #[test]
    fn a_token_is_sent_without_the_line_end_of_its_file() {
        let token = read(b"abc+/=\n").expect("a token");
        assert_eq!(token.header(), "Bearer abc+/=");
        assert!(token.header().is_sensitive());
    }

    #[test]
    fn nothing_shows_a_token() {
        let token = read(b"sesame").expect("a token");
        let shown = format!("{token} {token:?} {:?}", token.header());
        assert!(!shown.contains("sesame"), "{shown}");
        let refused = read(b"ses\name").expect_err("refused");
        let shown = format!("{refused} {refused:?}");
        assert!(
            !shown.contains("ses\n") && !shown.contains("ame\""),
            "{shown}"
        );
    }

    #[test]
    fn a_file_without_a_usable_token_is_refused() {
        assert!(matches!(read(b" \n"), Err(TokenError::Empty { .. })));
        assert!(matches!(read(b"a b"), Err(TokenError::Unprintable { .. })));
        assert!(matches!(read(b"\xff"), Err(TokenError::Unprintable { .. })));
        let long = vec![b'a'; 1 << 20];
        assert!(matches!(read(&long), Err(TokenError::TooLong { .. })));
    }
}
