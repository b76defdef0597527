//! What the proxies of a region share: the ports of jobs, whichever of them is there and whatever becomes of
//! the database.

use std::{
    io::copy,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{
    board::Switchboard,
    database::{Database, document, endpoints, eventually, membership},
    harness::{
        Line, Peer, Proxy, Target, config,
        lab::{Lab, Netns, TARGET},
        postgresql::NEEDS,
        process::succeed,
        require::require,
        wait_for,
    },
    stage::{self, Stage},
};

/// Where jobs are, for each proxy in a network of its own.
pub fn job_address() -> String {
    TARGET.to_string()
}

/// A port of the test's own loopback address, in another network too. Connections end with their proxy.
struct Bridge {
    over: Arc<AtomicBool>,
    addr: SocketAddr,
    netns: std::path::PathBuf,
}

impl Bridge {
    fn to(addr: SocketAddr, netns: &Netns) -> Self {
        let listener = netns.run(|| TcpListener::bind(addr).expect("nobody else is there"));
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if seen.load(Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(addr) else {
                    continue;
                };
                // What comes in pieces goes on at once.
                for end in [&client, &server] {
                    end.set_nodelay(true).expect("an open socket");
                }
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends {
                    let (from, to) = (from.try_clone(), to.try_clone());
                    let (mut from, mut to) = (from.expect("it is open"), to.expect("it is open"));
                    thread::spawn(move || {
                        let _ = copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self {
            over,
            addr,
            netns: netns.path(),
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        // It looks up.
        let _ = Netns::run_in(&self.netns, || TcpStream::connect(self.addr));
    }
}

/// A proxy in a network of its own, from which it gets to the switchboard and the database.
pub struct Member {
    name: &'static str,
    pub text: String,
    pub proxy: Proxy,
    pub target: Target,
    _bridges: [Bridge; 2],
    /// Where it gets to the database, in its own network too.
    database: SocketAddr,
    pub lab: Lab,
}

impl Member {
    pub fn start(database: &Database, stage: &Stage, name: &'static str, region: &str) -> Self {
        Self::start_edited(database, stage, name, region, |text| text)
    }

    /// One whose file is another than most have; `[fleet]` is its last section.
    pub fn start_edited(
        database: &Database,
        stage: &Stage,
        name: &'static str,
        region: &str,
        edit: impl FnOnce(String) -> String,
    ) -> Self {
        Self::start_through(database.server_addr(), database, stage, name, region, edit)
    }

    /// The same with another way to the database.
    pub fn start_through(
        way: SocketAddr,
        database: &Database,
        stage: &Stage,
        name: &'static str,
        region: &str,
        edit: impl FnOnce(String) -> String,
    ) -> Self {
        let lab = Lab::new();
        let board = SocketAddr::from((Ipv4Addr::LOCALHOST, stage.board.port()));
        let bridges = [board, way].map(|addr| Bridge::to(addr, &lab.proxy));
        let state_dir = stage.state_dir().display().to_string();
        let section = stage
            .section("cooldown = \"1s\"\n")
            .replace(&state_dir, &format!("{state_dir}-{name}"));
        let text = edit(config([section, database.section(name, region, "")]));
        let proxy = Proxy::start_with(&lab.setup(), &text);
        let target = lab.listen(22);
        Self {
            name,
            text,
            proxy,
            target,
            _bridges: bridges,
            database: way,
            lab,
        }
    }

    /// Has everything between it and the database get lost, and nobody be told, or no more. It takes nft(8).
    pub fn cut_off(&self, is_cut: bool) {
        let port = self.database.port();
        let nft = |words: &str| {
            let mut nft = self.lab.proxy.command("nft");
            succeed(nft.arg(words));
        };
        if !is_cut {
            return nft("delete table inet cut");
        }
        nft("add table inet cut");
        nft("add chain inet cut in { type filter hook input priority 0; }");
        for end in ["sport", "dport"] {
            nft(&format!("add rule inet cut in tcp {end} {port} drop"));
        }
    }

    pub fn role(&self) -> Value {
        membership(&self.proxy)["ports"]["role"].clone()
    }

    /// What it says of a job, but for what others have told it.
    fn here(&self, job: &str) -> Vec<Value> {
        let mut found = endpoints(&self.proxy, job);
        found.retain(|one| one["proxy"] == self.name);
        found
    }

    /// The port at which a job is open here, if it is.
    pub fn port(&self, job: &str) -> Option<u16> {
        let found = self.here(job);
        let open = found.iter().find(|one| one["state"] == "open")?;
        u16::try_from(open["port"].as_u64()?).ok()
    }

    /// Waits until a job is open here, and says at which port.
    #[track_caller]
    pub fn opens(&self, job: &str) -> u16 {
        wait_for(&format!("{job} to be open at {}", self.name), || {
            self.port(job)
        })
    }

    /// Waits until nothing of a job is open here.
    #[track_caller]
    fn closes(&self, job: &str) {
        eventually(&format!("{job} to be closed at {}", self.name), || {
            self.here(job).iter().all(|one| one["port"].is_null())
        });
    }

    /// A session through a port, with a few bytes exchanged.
    pub fn session(&self, port: u16) -> (Peer, Peer) {
        let mut client = self.lab.connect(port);
        let mut server = self.target.accept();
        client.exchange(&mut server, b"hello");
        (client, server)
    }

    pub fn upgrade(&self) {
        let from = self.proxy.log().len();
        self.proxy.signal(Signal::USR2);
        self.proxy.wait_for_line(from, "upgraded");
    }
}

/// Waits until one of them leads, and says which.
#[track_caller]
pub fn leader(members: &[Member]) -> usize {
    let mut found = None;
    eventually("one to lead and the others to serve", || {
        let roles: Vec<_> = members.iter().map(Member::role).collect();
        found = roles.iter().position(|role| role == "leading");
        let serving = roles.iter().filter(|role| **role == "serving");
        found.is_some() && serving.count() + 1 == members.len()
    });
    found.expect("it was waited for")
}

/// Waits until a job is open at all of them, and says at which port.
#[track_caller]
pub fn open_at_all(members: &[Member], job: &str) -> u16 {
    let ports: Vec<_> = members.iter().map(|member| member.opens(job)).collect();
    assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    ports[0]
}

/// Two proxies of one region and one of another.
fn three(database: &Database, stage: &Stage) -> (Vec<Member>, Member) {
    let region = ["us-1", "us-2"].map(|name| Member::start(database, stage, name, "us"));
    let other = Member::start(database, stage, "eu-1", "eu");
    (region.into(), other)
}

#[test]
fn a_job_has_one_port_on_all_proxies_of_its_region_and_another_takes_over_when_its_leader_is_killed()
 {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let stage = Stage::with(Switchboard::start(), 20);
    let (mut region, other) = three(&database, &stage);
    let address = job_address();
    let job = stage.ready(1, &address);
    let port = open_at_all(&region, &job);
    let elsewhere = other.opens(&job);
    let mut sessions: Vec<_> = region.iter().map(|member| member.session(port)).collect();
    sessions.push(other.session(elsewhere));
    assert_eq!(other.role(), "leading");

    let first = leader(&region);
    let follower = &region[1 - first];
    let state = stage::status(&follower.proxy);
    assert_eq!(state["state"], "elsewhere");
    assert_eq!(state["followed_by"], region[first].name);
    let problems = document(&follower.proxy, "/api/v1/status")["problems"].to_string();
    assert!(!problems.contains("switchboard"), "{problems}");
    let fleet = document(&follower.proxy, "/api/v1/fleet")["proxies"].to_string();
    assert!(fleet.contains("\"role\":\"leading\""), "{fleet}");

    // What ends while nobody looks is found out by whoever takes over.
    let ends = stage.ready(2, "fdb0:7e57::2");
    let ending = open_at_all(&region, &ends);
    region[first].proxy.signal(Signal::KILL);
    stage.finalize(&ends);
    let killed = region.remove(first);
    let rest = &region[0];
    eventually("the other to lead", || rest.role() == "leading");
    rest.closes(&ends);
    rest.proxy.stops_listening(ending);
    assert_eq!(rest.opens(&job), port);
    for (at, (client, server)) in sessions.iter_mut().enumerate() {
        if at != first {
            client.exchange(server, b"as ever");
        }
    }
    let closed = rest
        .proxy
        .said(|line| line.message() == "job no longer exposed");
    assert_eq!(closed.len(), 1, "{closed:?}");
    let next = stage.ready(3, "fdb0:7e57::3");
    let next_port = rest.opens(&next);
    assert_ne!(next_port, port);

    // The one that was killed comes back, with nothing kept, and serves the same.
    let again = Proxy::start_with(&killed.lab.setup(), &killed.text);
    let again = Member {
        proxy: again,
        ..killed
    };
    assert_eq!(again.opens(&job), port);
    assert_eq!(again.opens(&next), next_port);
    assert_eq!(again.role(), "serving");
}

#[test]
fn a_board_has_one_port_on_all_proxies_and_no_session_lives_into_its_next_job() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let stage = Stage::with(Switchboard::start(), 20);
    let members = ["us-1", "us-2"].map(|name| Member::start(&database, &stage, name, "us"));
    for member in &members {
        let text = member
            .text
            .replace("poll =", "on_remove = \"keep\"\npoll =");
        let rule = "port = 22\n";
        let text = text.replace(rule, &format!("{rule}allocate = \"host\"\n"));
        member.proxy.reload(&text);
    }
    leader(&members);
    let address = job_address();
    let mut job = stage.ready(1, &address);
    let port = open_at_all(&members, &job);
    for number in 2..5 {
        let sessions = members.each_ref().map(|member| member.session(port));
        stage.finalize(&job);
        let next = stage.ready(number, &address);
        for (mut client, _server) in sessions {
            client.expect_reset();
        }
        assert_eq!(open_at_all(&members, &next), port);
        job = next;
    }
    stage.finalize(&job);
    stage.board.add_host(2);
    let other = stage.ready_on(2, 9, "fdb0:7e57::2");
    assert_ne!(open_at_all(&members, &other), port);
}

#[test]
fn ports_and_sessions_stay_while_the_database_is_away_and_new_jobs_wait_for_it() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::alone();
    let stage = Stage::with(Switchboard::start(), 20);
    let members = ["us-1", "us-2"].map(|name| Member::start(&database, &stage, name, "us"));
    let job = stage.ready(1, &job_address());
    let port = open_at_all(&members, &job);
    leader(&members);
    let mut sessions = members.each_ref().map(|member| member.session(port));
    let ended = stage.ready(2, "fdb0:7e57::2");
    open_at_all(&members, &ended);

    database.server().server.kill();
    let waits = stage.ready(3, "fdb0:7e57::3");
    for member in &members {
        eventually("it to be alone", || member.role() == "alone");
    }
    // Who is alone follows the switchboard, and gives nobody a port.
    stage.finalize(&ended);
    for (member, (client, server)) in members.iter().zip(&mut sessions) {
        member.closes(&ended);
        eventually("the new job to wait", || {
            let found = member.here(&waits);
            found.iter().any(|one| one["reason"] == "no_port")
        });
        client.exchange(server, b"meanwhile");
        drop(member.session(port));
        assert_eq!(member.opens(&job), port);
    }
    database.server().start_again();
    open_at_all(&members, &waits);
    assert_eq!(open_at_all(&members, &job), port);
    leader(&members);
    for (member, (client, server)) in members.iter().zip(&mut sessions) {
        member.closes(&ended);
        client.exchange(server, b"after");
    }
}

#[test]
fn a_port_that_one_proxy_cannot_bind_moves_for_all_of_its_region() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let stage = Stage::with(Switchboard::start(), 20);
    let members = ["us-1", "us-2"].map(|name| Member::start(&database, &stage, name, "us"));
    let leads = leader(&members);
    let job = stage.ready(1, &job_address());
    let port = open_at_all(&members, &job);
    stage.finalize(&job);
    for member in &members {
        member.closes(&job);
    }
    let taken = &members[1 - leads].lab;
    let wildcard = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
    let _taken = taken
        .proxy
        .run(|| TcpListener::bind(wildcard).expect("it is free"));
    // The same job comes back, and is its last owner.
    stage.board.put(&job, "ready");
    let mut moved = port;
    eventually("it to be open elsewhere", || {
        let [one, other] = members.each_ref().map(|member| member.port(&job));
        moved = one.unwrap_or(port);
        moved != port && one == other
    });
    for member in &members {
        drop(member.session(moved));
    }
    let blocked = &stage::status(&members[leads].proxy)["ports"]["blocked"];
    assert_eq!(*blocked, 1);
}

#[test]
fn a_port_that_one_who_comes_late_cannot_bind_is_told_by_all_as_moved_and_not_as_ended() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let stage = Stage::with(Switchboard::start(), 20);
    let mut members: Vec<_> = ["us-1", "us-2", "us-3"]
        .map(|name| Member::start(&database, &stage, name, "us"))
        .into();
    let job = stage.ready(1, &job_address());
    let port = open_at_all(&members, &job);
    let late = members.remove((leader(&members) + 1) % 3);
    let mut sessions: Vec<_> = members.iter().map(|member| member.session(port)).collect();
    late.proxy.signal(Signal::TERM);
    late.proxy.log().wait_for_end();
    let wildcard = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
    let taken = || TcpListener::bind(wildcard).expect("it is free");
    let _taken = late.lab.proxy.run(taken);
    let late = Member {
        proxy: Proxy::start_with(&late.lab.setup(), &late.text),
        ..late
    };
    let moved = late.opens(&job);
    assert_ne!(moved, port);
    for (member, (client, server)) in members.iter().zip(&mut sessions) {
        eventually("it to have moved", || member.port(&job) == Some(moved));
        // As wherever a port is closed.
        client.expect_reset();
        server.expect_reset();
        drop(member.session(moved));
        let ordinary = ["listening", "session ended", "reload done", "job exposed"];
        let said = member
            .proxy
            .said(|line| line.text("owner").starts_with(&*job));
        let said: Vec<_> = said
            .iter()
            .filter(|line| !ordinary.contains(&line.message()))
            .collect();
        let [blocked, moves] = said[..] else {
            panic!("{said:?}");
        };
        assert!(blocked.message().contains("cannot bind"), "{blocked:?}");
        assert_eq!(blocked.number("port"), u64::from(port));
        assert_eq!(moves.message(), "exposed job has moved");
        assert_eq!(moves.number("port"), u64::from(moved));
        assert_eq!(moves.number("port_before"), u64::from(port));
    }
}

#[test]
fn an_upgrade_of_who_leads_or_serves_keeps_ports_and_sessions() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let stage = Stage::with(Switchboard::start(), 20);
    let members = ["us-1", "us-2"].map(|name| Member::start(&database, &stage, name, "us"));
    let job = stage.ready(1, &job_address());
    let port = open_at_all(&members, &job);
    let leads = leader(&members);
    let mut sessions = members.each_ref().map(|member| member.session(port));
    for member in &members {
        member.upgrade();
        assert_eq!(member.opens(&job), port);
    }
    for (member, (client, server)) in members.iter().zip(&mut sessions) {
        client.exchange(server, b"after");
        drop(member.session(port));
        let closed = member
            .proxy
            .said(|line| line.message() == "job no longer exposed");
        assert!(closed.is_empty(), "{closed:?}");
    }
    // It leads as before, and goes on with what it knew.
    assert_eq!(leader(&members), leads);
    let next = stage.ready(2, "fdb0:7e57::2");
    open_at_all(&members, &next);
    stage.finalize(&next);
    for member in &members {
        member.closes(&next);
    }
}

#[test]
fn a_proxy_that_may_not_follow_never_leads() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let stage = Stage::with(Switchboard::start(), 20);
    let never = Member::start_edited(&database, &stage, "us-1", "us", |text| {
        text + "follow = false\n"
    });
    eventually("it to serve", || never.role() == "serving");
    let job = stage.ready(1, &job_address());
    let other = Member::start(&database, &stage, "us-2", "us");
    let members = [never, other];
    assert_eq!(leader(&members), 1);
    for member in &members {
        (member.proxy).wait_until("tml_proxy_fleet_region_led", &[], 1);
    }
    let port = open_at_all(&members, &job);
    drop(members[0].session(port));
    members[1].proxy.signal(Signal::TERM);
    eventually("nobody to lead", || {
        membership(&members[0].proxy)["ports"]["leader"].is_null()
    });
    assert_eq!(members[0].role(), "serving");
    assert_eq!(members[0].opens(&job), port);
    (members[0].proxy).wait_until("tml_proxy_fleet_region_led", &[], 0);
    eventually("it to say so", || {
        let problems = &document(&members[0].proxy, "/api/v1/status")["problems"];
        problems.to_string().contains("Nobody leads the region")
    });
}

#[test]
fn a_proxy_that_is_removed_closes_the_ports_of_jobs_and_opens_them_when_it_is_restored() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let stage = Stage::with(Switchboard::start(), 20);
    let members = ["us-1", "us-2"].map(|name| Member::start(&database, &stage, name, "us"));
    let job = stage.ready(1, &job_address());
    let port = open_at_all(&members, &job);
    let leads = leader(&members);
    let (removed, other) = (&members[leads], &members[1 - leads]);
    let (mut client, mut server) = other.session(port);
    assert!(database.operate(&["remove", removed.name]).status.success());
    eventually("it to be out", || removed.role() == "expired");
    removed.proxy.stops_listening(port);
    let found = removed.here(&job);
    assert_eq!(found[0]["reason"], "lease_over", "{found:?}");
    eventually("the other to lead", || other.role() == "leading");
    client.exchange(&mut server, b"as ever");
    // Nobody waits for one that is out.
    let next = stage.ready(2, "fdb0:7e57::2");
    let next_port = other.opens(&next);
    assert!(
        database
            .operate(&["restore", removed.name])
            .status
            .success()
    );
    assert_eq!(removed.opens(&job), port);
    assert_eq!(removed.opens(&next), next_port);
    drop(removed.session(port));
    // The log says what became of it, and nothing else.
    let said = removed.proxy.said(|line| {
        let level = line.text("level");
        !["job exposed", "session ended"].contains(&line.message()) && level != "DEBUG"
    });
    let said: Vec<_> = said.iter().map(Line::message).collect();
    let begins = "ports of jobs are closed: others may have them";
    let place = said.iter().position(|said| said.starts_with(begins));
    let since = &said[place.expect("it was out") + 1..];
    assert_eq!(
        since[..4],
        [
            "job no longer exposed",
            "job not exposed",
            "member of the fleet",
            "part in the region"
        ]
    );
    let line = removed
        .proxy
        .log()
        .all(|line| line.message() == "part in the region");
    assert_eq!(line.last().map(|line| line.text("role")), Some("serving"));
}
