//! A reload changes what the file changed, and nothing else.

mod harness;

#[path = "reload/broken.rs"]
mod broken;
#[path = "reload/change.rs"]
mod change;
#[path = "reload/includes.rs"]
mod includes;
#[path = "reload/often.rs"]
mod often;
#[path = "reload/sessions.rs"]
mod sessions;
#[path = "reload/settings.rs"]
mod settings;

use harness::{Line, Peer, Target};

/// What a reload counted: added, removed, retargeted, repolicied, unchanged.
fn counts(line: &Line) -> [u64; 5] {
    ["added", "removed", "retargeted", "repolicied", "unchanged"].map(|field| line.number(field))
}

/// A client of `port` arrives at `target`.
#[track_caller]
fn leads_to(port: u16, target: &Target) {
    let mut client = Peer::connect(port);
    let mut server = target.accept();
    client.exchange(&mut server, b"is it you?");
}
