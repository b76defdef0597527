//! `tml-proxy top`: a running proxy, live in the terminal.
//!
//! `state` turns two answers of the API into rates, `draw` those into lines, `terminal` has the
//! screen and the keys.

mod draw;
mod state;
mod terminal;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{
    client::{Client, ClientError},
    code,
    output::{self, Screen},
};
use crate::os_error::in_words;
use state::{Snapshot, View};
use terminal::{CONTROL_C, ESCAPE, Terminal};

/// Watch the running proxy: its busiest mappings and sessions, rates and trouble.
///
/// Keys: q quits, s changes the order of the sessions, p stops the clock.
#[derive(Debug, Clone, clap::Args)]
pub struct TopArgs {
    #[command(flatten)]
    client: Client,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
    /// Look twice, print the screen as text and leave.
    #[arg(long)]
    once: bool,
    /// Print JSON instead of the screen.
    #[arg(long, requires = "once")]
    json: bool,
}

/// Lines of a screen that is printed once.
const HEIGHT: usize = 40;

/// Its columns where nothing limits them: more than any row has.
const WIDEST: usize = 500;

/// An answer that takes longer than this is worth a word.
const USUAL: Duration = Duration::from_secs(3);

/// How long to wait for a key before it is time to see whether there is an answer.
const TICK: Duration = Duration::from_millis(100);

pub fn run(args: &TopArgs) -> ExitCode {
    let every = Duration::from_secs(args.every);
    if args.once {
        return once(args, every);
    }
    if !io::stdout().is_terminal() {
        output::complain(&"tml-proxy: top needs a terminal; --once prints a single screen");
        return ExitCode::from(code::USAGE);
    }
    // The terminal is as it was when it is told what went wrong.
    match Terminal::open().and_then(|terminal| watch(terminal, &args.client, every)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format_args!("tml-proxy: terminal: {}", in_words(&error)));
            ExitCode::from(code::FAILED)
        }
    }
}

fn fetch(client: &Client) -> Result<Snapshot, ClientError> {
    Ok(Snapshot {
        at: Instant::now(),
        status: client.get("/api/v1/status")?,
        mappings: client.get("/api/v1/mappings")?,
        sessions: client.get("/api/v1/sessions?sort=bytes&limit=5000")?,
    })
}

fn once(args: &TopArgs, every: Duration) -> ExitCode {
    let mut view = View::default();
    for wait in [Duration::ZERO, every] {
        thread::sleep(wait);
        match fetch(&args.client) {
            Ok(snapshot) => view.take(snapshot),
            Err(error) => return output::give_up(&error, args.json),
        }
    }
    if args.json {
        return output::print(&output::json(&view.round));
    }
    let width = Screen::stdout().width.clamp(1, WIDEST);
    output::print(&draw::as_text(&view, width, HEIGHT))
}

fn watch(mut terminal: Terminal, client: &Client, every: Duration) -> io::Result<()> {
    let mut view = View::default();
    let (answer, answers) = mpsc::channel();
    let mut asked: Option<Instant> = None;
    let mut next = Instant::now();
    let mut drawn = None;
    loop {
        if Instant::now() >= next && !view.stopped {
            next = Instant::now() + every;
            if asked.is_none() {
                let (client, answer) = (client.clone(), answer.clone());
                // Keys are read while the proxy hangs; whoever quits does not wait for its answer.
                thread::Builder::new().spawn(move || _ = answer.send(fetch(&client)))?;
                asked = Some(Instant::now());
            }
        }
        if let Ok(answer) = answers.try_recv() {
            asked = None;
            match answer {
                _ if view.stopped => {}
                Ok(snapshot) => view.take(snapshot),
                // It may be restarting; what was seen last stays, with the reason why it is old.
                Err(error) => view.trouble = Some(error.to_string()),
            }
        }
        let waiting = asked.filter(|_| !view.stopped).map(|at| at.elapsed());
        let overdue = waiting.filter(|waiting| *waiting > USUAL);
        view.overdue = overdue.map(|waiting| waiting.as_secs());
        let (width, height) = terminal.size()?;
        let mut screen = Screen::stdout();
        screen.width = width;
        let now = (width, draw::lines(&view, &screen, height));
        if drawn.as_ref() != Some(&now) {
            terminal.show(&now.1)?;
            drawn = Some(now);
        }
        for key in terminal.keys(TICK)? {
            match key {
                b'q' | ESCAPE | CONTROL_C => return Ok(()),
                b's' => view.reorder(),
                b'p' => view.stopped = !view.stopped,
                _ => {}
            }
        }
    }
}
