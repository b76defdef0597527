//! `tml-proxy top`: a running proxy, live in the terminal.
//!
//! `state` turns two answers of the API into rates, `tables` into rows, `draw` puts them on the
//! screen, `observer` asks; here are the terminal and the keys.

mod draw;
mod json;
mod observer;
mod state;
mod tables;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};

use super::{
    client::{Client, ClientError},
    code,
    output::{self, Screen},
};
use crate::os_error::in_words;
use observer::Observer;
use state::{Look, View};

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

/// Runs the command.
pub fn run(args: &TopArgs) -> ExitCode {
    let every = Duration::from_secs(args.every);
    if args.once {
        return once(args, every);
    }
    if !io::stdout().is_terminal() {
        output::complain(&"tml-proxy: top needs a terminal; --once prints a single screen");
        return ExitCode::from(code::USAGE);
    }
    let mut terminal = match ratatui::try_init() {
        Ok(terminal) => terminal,
        Err(error) => {
            output::complain(&format_args!("tml-proxy: terminal: {}", in_words(&error)));
            return ExitCode::from(code::FAILED);
        }
    };
    let outcome = watch(&mut terminal, &args.client, every);
    ratatui::restore();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format_args!("tml-proxy: terminal: {}", in_words(&error)));
            ExitCode::from(code::FAILED)
        }
    }
}

/// What the API says now.
fn look(client: &Client) -> Result<Look, ClientError> {
    Ok(Look {
        at: Instant::now(),
        status: client.get("/api/v1/status")?,
        mappings: client.get("/api/v1/mappings")?,
        sessions: client.get("/api/v1/sessions?sort=bytes&limit=5000")?,
    })
}

fn once(args: &TopArgs, every: Duration) -> ExitCode {
    let mut view = View::default();
    for wait in [Duration::ZERO, every] {
        std::thread::sleep(wait);
        match look(&args.client) {
            Ok(look) => view.take(look),
            Err(error) => return output::give_up(&error),
        }
    }
    if args.json {
        return output::print(&output::json(&json::Document::new(&view)));
    }
    let width = Screen::stdout().width.clamp(1, WIDEST);
    let width = u16::try_from(width).expect("it was just limited");
    output::print(&draw::as_text(&view, (width, HEIGHT)))
}

fn watch(terminal: &mut DefaultTerminal, client: &Client, every: Duration) -> io::Result<()> {
    let mut view = View::default();
    let client = client.clone();
    let mut observer = Observer::start(move || look(&client))?;
    let mut next = Instant::now();
    let mut changed = true;
    loop {
        if Instant::now() >= next && !view.stopped {
            observer.look();
            next = Instant::now() + every;
        }
        if let Some(seen) = observer.seen()
            && !view.stopped
        {
            changed = true;
            match seen {
                Ok(look) => view.take(look),
                // It may be restarting; what was seen last stays, with the reason why it is old.
                Err(error) => view.trouble = Some(error.to_string()),
            }
        }
        let overdue = observer.overdue().filter(|_| !view.stopped);
        changed |= overdue != view.overdue;
        view.overdue = overdue;
        if changed {
            terminal.draw(|frame| draw::draw(frame, &view))?;
        }
        changed = event::poll(TICK)?;
        if changed
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if control => return Ok(()),
                KeyCode::Char('s') => view.order = view.order.next(),
                KeyCode::Char('p') => view.stopped = !view.stopped,
                _ => {}
            }
        }
    }
}

/// Lines of a screen that is printed once.
const HEIGHT: u16 = 40;

/// Its columns where nothing limits them: more than any row has.
const WIDEST: usize = 500;

/// How long to wait for a key before it is time to see whether there is an answer.
const TICK: Duration = Duration::from_millis(100);
