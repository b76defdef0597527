//! `tml-proxy top`: a running proxy, live in the terminal.
//!
//! `state` turns two answers of the API into rates, `draw` those into lines, `keys` says what keys do,
//! `terminal` has the screen and reads them.

mod draw;
mod keys;
mod state;
mod terminal;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use http::Method;

use super::{
    client::{Client, ClientError},
    code,
    output::{self, Screen},
};
use crate::{
    admin::api::model::{Killed, MappingState},
    os_error::in_words,
    units::count,
};
use keys::{Effect, Order};
use state::{Snapshot, View};
use terminal::Terminal;

/// Watch the running proxy: its mappings, those that fail first, its busiest sessions, rates and trouble.
///
/// Keys: q quits, the arrows and page keys select, tab goes to the other list, s changes its order, /
/// filters by a text, escape shows all again, space stops the clock. After a question, k kills the
/// selected session or those of the selected mapping, p pauses the mapping, d drains it, r resumes it.
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
    /// Print JSON instead of the screen: once, or a line for each look.
    #[arg(long)]
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
    if args.json {
        return stream(args, every);
    }
    if !io::stdout().is_terminal() {
        output::complain(
            &"tml-proxy: top needs a terminal; --once prints a single screen, --json a line for each look",
        );
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

/// Looks again and again, and prints what each look but the first has found.
fn stream(args: &TopArgs, every: Duration) -> ExitCode {
    let mut view = View::default();
    loop {
        let is_first = view.round.is_none();
        match fetch(&args.client) {
            Ok(snapshot) => view.take(snapshot),
            Err(error) => return output::give_up(&error, args.json),
        }
        if !is_first && let Some(code) = output::print_one(&output::json_line(&view.round)) {
            return code;
        }
        thread::sleep(every);
    }
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

/// What the proxy has answered.
enum Answer {
    Look(Result<Box<Snapshot>, ClientError>),
    /// To an order, in words.
    Order(String),
}

/// Has an order carried out, and says in words what came of it.
fn carry_out(client: &Client, order: &Order) -> String {
    let post = Method::POST;
    let set = |what: &str, change| {
        let path = format!("/api/v1/mappings/{what}");
        let set: Result<MappingState, _> = client.send(&post, &path, change);
        set.map(|set| format!("{} is {}", set.mapping, set.state))
    };
    let outcome = match order {
        Order::Kill(kill) => {
            let killed: Result<Killed, _> = client.send(&post, "/api/v1/sessions/kill", kill);
            killed.map(|killed| format!("{} told to end", count(killed.sessions, "session")))
        }
        Order::Pause(change) => set("pause", change),
        Order::Drain(change) => set("drain", change),
        Order::Resume(change) => set("resume", change),
    };
    outcome.unwrap_or_else(|error| error.to_string())
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
                let look = move || _ = answer.send(Answer::Look(fetch(&client).map(Box::new)));
                thread::Builder::new().spawn(look)?;
                asked = Some(Instant::now());
            }
        }
        match answers.try_recv() {
            Ok(Answer::Look(look)) => {
                asked = None;
                match look {
                    _ if view.stopped => {}
                    Ok(snapshot) => view.take(*snapshot),
                    // It may be restarting; what was seen last stays, with the reason why it is old.
                    Err(error) => view.trouble = Some(error.to_string()),
                }
            }
            Ok(Answer::Order(said)) => {
                view.said = Some(said);
                next = Instant::now();
            }
            Err(_) => {}
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
            match view.press(key) {
                Effect::None => {}
                Effect::Quit => return Ok(()),
                Effect::Do(order) => {
                    let (client, answer) = (client.clone(), answer.clone());
                    let carry_out = move || {
                        _ = answer.send(Answer::Order(carry_out(&client, &order)));
                    };
                    thread::Builder::new().spawn(carry_out)?;
                }
            }
        }
    }
}
