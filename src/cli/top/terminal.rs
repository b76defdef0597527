//! The terminal that `top` draws on: whole screens out, keys in.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};

use super::keys::{Key, keys};

/// A screen beside the one with the shell, no cursor, and no line that goes on in the next.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The terminal while it passes on every key. Dropping it makes it what it was.
pub(super) struct Terminal {
    keys: File,
    before: Termios,
}

impl Terminal {
    pub fn open() -> io::Result<Self> {
        let stdin = io::stdin();
        let keys = match stdin.is_terminal() {
            true => stdin.as_fd().try_clone_to_owned()?.into(),
            // Something else is read there; whoever looks at the screen still has keys.
            false => File::open("/dev/tty")?,
        };
        let before = tcgetattr(&keys)?;
        let terminal = Self { keys, before };
        let mut raw = terminal.before.clone();
        raw.make_raw();
        tcsetattr(&terminal.keys, OptionalActions::Now, &raw)?;
        write(ENTER)?;
        Ok(terminal)
    }

    pub fn size(&self) -> io::Result<(usize, usize)> {
        let size = tcgetwinsize(io::stdout())?;
        Ok((size.ws_col.into(), size.ws_row.into()))
    }

    /// Shows these lines, and nothing else.
    pub fn show(&self, lines: &[String]) -> io::Result<()> {
        write(&format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n")))
    }

    /// The keys that are pressed, once there is one or `within` is over.
    pub fn keys(&mut self, within: Duration) -> io::Result<Vec<Key>> {
        let within = Timespec::try_from(within).expect("it is short");
        let mut ready = [PollFd::new(&self.keys, PollFlags::IN)];
        match poll(&mut ready, Some(&within)) {
            Ok(0) | Err(Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut bytes = [0; 64];
        match self.keys.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(keys(&bytes[..count])),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If it is gone there is nothing to make good.
        let _ = write(LEAVE);
        let _ = tcsetattr(&self.keys, OptionalActions::Now, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
