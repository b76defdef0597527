//! What shows only after long: everything at once, minute after minute, and one session that moves
//! a great deal, every byte checked (a re-subscription that is missed once in a million splices,
//! say).
//!
//! Half a minute and 2 GiB by default. `TML_PROXY_SOAK_MINUTES=10 TML_PROXY_SOAK_GIB=100 cargo test
//! --release --test soak -- --nocapture` is the long run.

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "harness/switchboard/mod.rs"]
mod board;
mod harness;
#[path = "soak/mixed.rs"]
mod mixed;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "openssh/peers.rs"]
mod peers;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "exposing/stage.rs"]
mod stage;

use std::{env, thread};

use harness::{Scene, Stream, figure};

const GIB: u64 = 1 << 30;

#[test]
fn one_session_moves_gibibytes_whole() {
    let gib = env::var("TML_PROXY_SOAK_GIB").map_or(2, |gib| {
        gib.parse().expect("TML_PROXY_SOAK_GIB: a number of GiB")
    });
    let scene = Scene::new("");
    let (mut client, server) = scene.pair();
    let (mut sent, mut received) = (Stream::new(1), Stream::new(1));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut server = server.twin();
            server.send_stream(&mut sent, gib * GIB);
            server.finish();
        });
        for part in 1..=gib {
            client.expect_stream(&mut received, part * GIB);
            if part % 10 == 0 {
                println!("{part} of {gib} GiB");
            }
        }
        client.expect_end();
    });
    client.finish();
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", 0, gib * GIB);
    scene.finish();
    figure("GiB through one session, every byte checked", gib);
}
