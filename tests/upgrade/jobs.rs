//! What jobs of a switchboard, and those who follow them, see of an upgrade.

use std::{net::SocketAddr, process::Command};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    board::{Generation, Kind, Route, Switchboard},
    harness::{
        Proxy, TempDir, config,
        lab::{Lab, TARGET},
        metrics, ports,
        process::{self, listening_inodes},
        proxy::PROGRAM,
        require::{Need, require},
        wait_until,
    },
    job_stage::{Stage, closes, opens, status},
};

/// A proxy with an admin socket, which can be told to upgrade.
struct Upgradable {
    proxy: Proxy,
    dir: TempDir,
}

impl Upgradable {
    fn new(stage: &Stage, keys: &str) -> Self {
        Self::with(|text| Proxy::start(text), stage, keys)
    }

    fn with(start: impl FnOnce(&str) -> Proxy, stage: &Stage, keys: &str) -> Self {
        let dir = TempDir::new();
        let admin = format!("[admin]\nsocket = {:?}\n", dir.join("admin.sock"));
        let proxy = start(&config([admin, stage.section(keys)]));
        Self { proxy, dir }
    }

    #[track_caller]
    fn upgrade(&self) -> Value {
        let socket = self.dir.join("admin.sock");
        let mut command = Command::new(PROGRAM);
        let command = command.args(["upgrade", "--json", "--socket"]).arg(socket);
        let output = process::output(command);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The sockets that listen at a port.
    fn listeners(&self, port: u16) -> Vec<u64> {
        listening_inodes(self.proxy.id(), port)
    }
}

#[test]
fn the_port_of_a_job_stays_open_and_its_session_lives() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let lab = Lab::new();
    let stage = lab.proxy.run(|| Stage::with(Switchboard::start(), 20));
    let target = lab.listen(22);
    let start = |text: &str| Proxy::start_with(&lab.setup(), text);
    let proxy = Upgradable::with(start, &stage, "");
    let id = stage.ready(1, &TARGET.to_string());
    let port = opens(&proxy.proxy, &id);
    let (mut client, mut server) = (lab.connect(port), target.accept());
    client.exchange(&mut server, b"before");
    let socket = proxy.listeners(port);
    for _ in 0..3 {
        assert_eq!(proxy.upgrade()["sessions"], 1);
        client.exchange(&mut server, b"after");
        assert_eq!(proxy.listeners(port), socket, "it is the same socket");
        assert_eq!(opens(&proxy.proxy, &id), port);
        let (mut more, mut its_server) = (lab.connect(port), target.accept());
        more.exchange(&mut its_server, b"a new one");
        drop((more, its_server));
        proxy.proxy.wait_until("tml_proxy_sessions_open", &[], 1);
    }
    // The job ends as any job does.
    stage.finalize(&id);
    closes(&proxy.proxy, &id);
    proxy.proxy.stops_listening(port);
}

#[test]
fn no_port_closes_or_moves_and_nothing_is_said_twice() {
    let stage = Stage::new(10);
    let lookup = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let proxy = Upgradable::new(&stage, &format!("lookup = \"{lookup}\""));
    let ids = [1, 2, 3].map(|number| stage.ready(number, &format!("fdb0:7e57::{number}")));
    let refused = stage.ready(4, "192.0.2.1");
    let ports = ids.each_ref().map(|id| opens(&proxy.proxy, id));
    crate::job_stage::refuses(&proxy.proxy, &refused, "address_not_allowed");
    wait_until("the switchboard to be followed", || {
        status(&proxy.proxy)["state"] == "following"
    });
    let sockets = ports.map(|port| proxy.listeners(port));
    let counted = |name: &str| proxy.proxy.metrics().sum(name, &[]);
    let told = [
        "tml_proxy_switchboard_refusals_total",
        "tml_proxy_switchboard_closings_total",
        "tml_proxy_switchboard_reachable_seconds_count",
    ];
    let before = told.map(counted);
    assert!(before[0] > 0 && before[2] > 0, "{before:?}");
    let asked = counted("tml_proxy_switchboard_requests_total");
    let line = proxy.proxy.log().len();
    proxy.upgrade();
    // At once, and not when somebody has been asked.
    let now = status(&proxy.proxy);
    assert_ne!(now["state"], "starting", "{now}");
    assert_eq!(now["jobs"], 4, "{now}");
    for (id, port) in ids.iter().zip(ports) {
        assert_eq!(opens(&proxy.proxy, id), port);
    }
    assert_eq!(ports.map(|port| proxy.listeners(port)), sockets);
    let (answer, body) = metrics::get(lookup, &format!("/api/v1/endpoints?job={}", ids[0]))
        .expect("the lookup listener answers");
    assert!(answer.contains(" 200 "), "{answer} {body}");
    assert!(counted("tml_proxy_switchboard_requests_total") >= asked);
    let requests = stage.board.requests(&Route::Listing);
    wait_until("the jobs to be asked for again", || {
        stage.board.requests(&Route::Listing) > requests + 3
    });
    assert_eq!(told.map(counted), before);
    // What is new is still noticed.
    let next = stage.ready(5, "fdb0:7e57::5");
    opens(&proxy.proxy, &next);
    stage.finalize(&ids[0]);
    closes(&proxy.proxy, &ids[0]);
    let quiet = [
        "job exposed",
        "job not exposed",
        "job no longer exposed",
        "exposed job has moved",
    ];
    let said = proxy
        .proxy
        .log()
        .all(|line| quiet.contains(&line.message()));
    let said = &said[said.len().saturating_sub(3)..];
    assert!(said.len() <= 6 && line > 0, "{said:#?}");
}

#[test]
fn jobs_stay_open_while_the_switchboard_is_away() {
    let stage = Stage::new(10);
    let proxy = Upgradable::new(&stage, "");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy.proxy, &id);
    stage.board.stop();
    wait_until("the outage to be noticed", || {
        status(&proxy.proxy)["state"] == "away"
    });
    let socket = proxy.listeners(port);
    proxy.upgrade();
    assert_eq!(status(&proxy.proxy)["state"], "away");
    assert_eq!(opens(&proxy.proxy, &id), port);
    assert_eq!(proxy.listeners(port), socket);
    stage.board.go_on();
    wait_until("the switchboard to answer", || {
        status(&proxy.proxy)["state"] == "following"
    });
    let lines = proxy
        .proxy
        .log()
        .all(|line| line.message() == "the switchboard answers again" && line.has("duration_ms"));
    assert_eq!(lines.len(), 1);
    assert_eq!(opens(&proxy.proxy, &id), port);
}

#[test]
fn what_was_written_for_users_is_not_written_again_and_is_removed_at_the_end() {
    let board = Switchboard::of(Kind {
        generation: Generation::Fourth,
        ..Kind::default()
    });
    let stage = Stage::with(board, 20);
    let mut proxy = Upgradable::new(&stage, "publish = \"proxy\"");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy.proxy, &id);
    let annotation = || stage.board.job(&id)["annotations"]["proxy/p.example.org"].clone();
    let text = format!("p.example.org:{port}");
    wait_until("the job to be annotated", || annotation() == text);
    proxy.upgrade();
    let counted = |result| {
        let labels = [("request", "annotate"), ("result", result)];
        let metrics = proxy.proxy.metrics();
        metrics.sum("tml_proxy_switchboard_requests_total", &labels)
    };
    let written = counted("success");
    let requests = stage.board.requests(&Route::Listing);
    wait_until("the jobs to be asked for again", || {
        stage.board.requests(&Route::Listing) > requests + 5
    });
    assert_eq!(annotation(), text);
    assert_eq!(counted("success"), written);
    proxy.proxy.signal(Signal::TERM);
    proxy.proxy.wait();
    assert_eq!(annotation(), json!(null), "it is withdrawn");
}

#[test]
fn nobody_else_gets_the_state_directory_in_between() {
    let stage = Stage::new(10);
    let proxy = Upgradable::new(&stage, "");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy.proxy, &id);
    for _ in 0..3 {
        proxy.upgrade();
        let mut second = Command::new(PROGRAM);
        let other = TempDir::new();
        let text = config(["[admin]\nlisten = \"off\"\n".to_owned(), stage.section("")]);
        let file = other.write("proxy.toml", text);
        let output = process::output(second.args(["run", "--config"]).arg(file));
        let said =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("another process uses this state directory"),
            "{said}"
        );
        assert_eq!(opens(&proxy.proxy, &id), port);
    }
    // What is allocated afterwards is kept as well.
    let next = stage.ready(2, "fdb0:7e57::2");
    opens(&proxy.proxy, &next);
    let kept = std::fs::read_to_string(stage.state_dir().join("ports.state")).expect("the state");
    assert!(kept.contains(&next), "{kept}");
}
