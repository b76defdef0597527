//! Bytes, ends and resets pass through unchanged, whichever way the bytes are moved.
//!
//! Each scenario checks what both peers see, why the session ended by the proxy's account, how many
//! bytes it counted, and that nothing is left over. Most run with `relay` set to `copy`, `splice`
//! and `auto`.

mod harness;

/// Makes a test of each scenario for each way to move bytes.
macro_rules! in_every_mode {
    ($($name:ident)*) => {
        mod copy { $(#[test] fn $name() { super::$name("copy"); })* }
        mod splice { $(#[test] fn $name() { super::$name("splice"); })* }
        mod auto { $(#[test] fn $name() { super::$name("auto"); })* }
    };
}

#[path = "relay/bulk.rs"]
mod bulk;
#[path = "relay/close.rs"]
mod close;
#[path = "relay/dial.rs"]
mod dial;
#[path = "relay/leftovers.rs"]
mod leftovers;
#[path = "relay/pace.rs"]
mod pace;
#[path = "relay/patience.rs"]
mod patience;
#[path = "relay/reset.rs"]
mod reset;
#[path = "relay/small.rs"]
mod small;
#[path = "relay/stall.rs"]
mod stall;
#[path = "relay/timeout.rs"]
mod timeout;
#[path = "relay/urgent.rs"]
mod urgent;

/// A scene whose mapping moves bytes in that way.
fn scene(relay: &str) -> harness::Scene {
    harness::Scene::new(&format!("relay = \"{relay}\""))
}
