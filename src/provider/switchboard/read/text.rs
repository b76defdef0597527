//! Text of the switchboard that goes back to it.

use std::fmt::Write as _;

use crate::provider::switchboard::client::Failure;

/// The longest cursor that is sent back, in bytes. Usual is 150.
const CURSOR_AT_MOST: usize = 4096;

/// Where the next page of a listing begins. Opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor(String);

impl Cursor {
    pub(super) fn new(text: String) -> Result<Self, Failure> {
        match text.len() {
            0 => Err(Failure::invalid("next_cursor is empty")),
            1..=CURSOR_AT_MOST => Ok(Self(text)),
            found => Err(Failure::invalid(&format!(
                "next_cursor has {found} bytes, {CURSOR_AT_MOST} are allowed"
            ))),
        }
    }

    /// As the value of a parameter of a query.
    pub(in crate::provider::switchboard) fn escaped(&self) -> String {
        let mut escaped = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    escaped.push(char::from(byte));
                }
                // Writing to a string cannot fail.
                _ => drop(write!(escaped, "%{byte:02X}")),
            }
        }
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_cannot_add_parameters_or_headers() {
        let cursor = Cursor::new("a&limit=9 #\r\nX: ü".to_owned()).expect("a cursor");
        assert_eq!(cursor.escaped(), "a%26limit%3D9%20%23%0D%0AX%3A%20%C3%BC");
        assert!(Cursor::new("x".repeat(CURSOR_AT_MOST + 1)).is_err());
        assert!(Cursor::new(String::new()).is_err());
    }
}
