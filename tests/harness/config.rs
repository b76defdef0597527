//! Writing configurations briefly.

use std::fmt::Display;

/// One mapping; `more` is any further lines of it.
pub fn mapping(name: &str, listen: impl Display, target: impl Display, more: &str) -> String {
    format!(
        "\n[[mapping]]\nname = \"{name}\"\nlisten = \"{listen}\"\ntarget = \"{target}\"\n{more}\n"
    )
}

/// A whole file made of `parts`.
pub fn config<Part: AsRef<str>>(parts: impl IntoIterator<Item = Part>) -> String {
    let mut text = "version = 1\n".to_owned();
    for part in parts {
        text.push_str(part.as_ref());
    }
    text
}
