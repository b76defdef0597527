//! What standard output is: how wide, and whether it shows colours.

use std::io::IsTerminal;

use rustix::termios::tcgetwinsize;

/// A width that anything fits in: for output that goes to a file or another program.
const ENDLESS: usize = usize::MAX / 2;

#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub width: usize,
    colour: bool,
}

/// How to show a piece of text, where colours are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    Good,
    Warn,
    Bad,
    /// Of less interest.
    Dim,
    Strong,
    /// The one of several that is selected.
    Selected,
}

impl Screen {
    /// Standard output as it is. `NO_COLOR` is respected, and `COLUMNS` goes before what the
    /// terminal says.
    pub fn stdout() -> Self {
        let stdout = std::io::stdout();
        let is_terminal = stdout.is_terminal();
        let columns = std::env::var("COLUMNS").ok();
        let asked = || tcgetwinsize(&stdout).map(|size| usize::from(size.ws_col));
        let width = columns
            .and_then(|columns| columns.parse().ok())
            .or_else(|| asked().ok().filter(|_| is_terminal))
            .filter(|width| *width > 0);
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            width: width.unwrap_or(ENDLESS),
            colour: is_terminal && !no_colour,
        }
    }

    pub const fn plain(width: usize) -> Self {
        Self {
            width,
            colour: false,
        }
    }

    /// Text in a colour, if colours are shown.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Good => 32,
            Paint::Warn => 33,
            Paint::Bad => 31,
            Paint::Dim => 2,
            Paint::Strong => 1,
            Paint::Selected => 7,
        };
        match self.colour && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    pub fn dim(&self, text: &str) -> String {
        self.paint(Paint::Dim, text)
    }
}
