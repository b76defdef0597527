//! A standby that takes the primary's place, with and without the last commits.

use super::{
    board::Switchboard,
    database::{Database, document, eventually, is, knows},
    harness::{
        Proxy, config,
        peers::Peer,
        ports,
        postgresql::{Client, NEEDS},
        require::{Need, require},
    },
    outage::serving,
    shared::{Member, job_address},
    stage::Stage,
};
use rustix::process::Signal;

/// The section for a proxy that knows of both servers.
fn section(database: &Database, ports: [u16; 2], name: &str) -> String {
    let db = &database.name;
    let [first, second] = ports;
    let url = format!("postgresql://{db}@localhost:{first},localhost:{second}/{db}");
    let host = format!("public_host = \"{name}.example.org\"");
    database.section_at(&url, name, "us", &host)
}

/// A mapping that nobody uses.
fn mapping(name: &str) -> String {
    let port = ports::free();
    format!("\n[[mapping]]\nname = \"{name}\"\nlisten = {port}\ntarget = \"127.0.0.9:80\"\n")
}

/// Whether a proxy knows of a mapping of another.
fn has(proxy: &Proxy, name: &str) -> bool {
    let fleet = document(proxy, "/api/v1/fleet");
    fleet["mappings"]
        .to_string()
        .contains(&format!("\"{name}\""))
}

#[test]
fn what_a_promoted_standby_never_had_is_told_again_and_the_former_primary_is_not_asked() {
    if !require(&NEEDS) {
        return;
    }
    let (database, standby) = Database::with_standby(&[]);
    let servers = [database.port(), standby.server.addr.port()];
    let start = |name: &str, mapping: &str| {
        Proxy::start(&config([
            mapping.to_owned(),
            section(&database, servers, name),
        ]))
    };
    let early = mapping("early");
    let proxy = start("us-1", &early);
    let other = start("us-2", "");
    eventually("its mapping to be known", || has(&other, "early"));
    // It has the schema and these two; from here on it has nothing.
    let behind = "select count(*) from pg_stat_replication where replay_lsn < pg_current_wal_lsn()";
    eventually("the standby to have it all", || {
        database.query(behind) == "0"
    });
    standby.server.hold(Signal::STOP);
    let late = mapping("late");
    proxy.reload(&config([early, late, section(&database, servers, "us-1")]));
    eventually("what is acknowledged to be known", || has(&other, "late"));

    let _former = database.fail_over(standby);
    let kept = "select count(*) from tml_proxy.endpoint where entry is not null";
    for one in [&proxy, &other] {
        is(one, "connected");
    }
    eventually("it to be told again", || database.query(kept) == "2");
    knows(&other, "us-1", "up");
    assert!(has(&other, "early") && has(&other, "late"));
}

#[test]
fn with_synchronous_commit_nothing_that_was_told_is_lost() {
    if !require(&NEEDS) {
        return;
    }
    let (database, standby) = Database::with_standby(&["synchronous_standby_names=*"]);
    let servers = [database.port(), standby.server.addr.port()];
    let [first, second] = ["us-1", "us-2"]
        .map(|name| Proxy::start(&config([mapping(name), section(&database, servers, name)])));
    for proxy in [&first, &second] {
        eventually("both to be known", || {
            has(proxy, "us-1") && has(proxy, "us-2")
        });
    }
    database.server().server.kill();
    // Nobody tells anything any more.
    drop((first, second));
    let _former = database.fail_over(standby);
    let told = "select count(*) from tml_proxy.endpoint where entry is not null";
    assert_eq!(database.query(told), "2");
}

#[test]
fn a_job_keeps_its_port_and_session_when_its_proxy_was_upgraded_before_an_older_backup_is_restored()
{
    if !require(&NEEDS) {
        return;
    }
    let database = Database::alone();
    let stage = Stage::with(Switchboard::start(), 20);
    // It serves what the map says, whatever it knows besides.
    let follows_not = |text| text + "follow = false\n";
    let serving = Member::start_edited(&database, &stage, "us-1", "us", follows_not);
    let lost = Member::start(&database, &stage, "us-2", "us");
    let before = stage.ready(1, "fdb0:7e57::1");
    serving.opens(&before);
    let mut server = database.server();
    server.server.kill();
    server.back_up();
    server.start_again();
    drop(server);
    let job = stage.ready(2, &job_address());
    let port = serving.opens(&job);
    assert_eq!(lost.opens(&job), port);
    let (mut client, mut behind) = serving.session(port);

    database.server().server.kill();
    drop(lost);
    serving.upgrade();
    let mut server = database.server();
    server.restore();
    server.start_again();
    drop(server);
    is(&serving.proxy, "connected");
    eventually("it to serve", || serving.role() == "serving");
    client.exchange(&mut behind, b"after");
    assert_eq!(serving.port(&job), Some(port));
    // And nobody gets a port that whoever has not told yet may serve.
    let next = Member::start(&database, &stage, "us-3", "us");
    assert_eq!(next.opens(&job), port);
    let waits = stage.ready(3, "fdb0:7e57::3");
    let unsettled = "select count(*) from tml_proxy.process p, tml_proxy.region r
                     where p.epoch is distinct from r.epoch";
    assert_eq!(database.query(unsettled), "1");
    assert!(database.operate(&["remove", "us-2"]).status.success());
    assert_eq!(serving.opens(&waits), next.opens(&waits));
    client.exchange(&mut behind, b"as ever");
}

#[test]
fn a_database_without_space_costs_no_session_and_is_used_again_once_there_is_some() {
    if !require(&[&NEEDS[..], &[Need::Tool("mount")]].concat()) {
        return;
    }
    let database = Database::within("64m");
    let (proxy, port, target) = serving(&database, "us-1");
    let other = database.proxy("us-2", "us");
    eventually("its mapping to be known", || has(&other, "web"));
    let mut client = Peer::connect(port);
    let mut behind = target.accept();
    database.server().fill(true);
    // It gives up once its log cannot be written any more.
    let grow = "select count(pg_logical_emit_message(true, 'x', repeat('x', 10000)))
                from generate_series(1, 1000)";
    let server = database.server().server.addr;
    eventually("the database to be of no use", || {
        let session = Client::connect_to(server, &database.name);
        let _ = session.and_then(|mut session| session.query(grow));
        let failures = (proxy.metrics()).sum("tml_proxy_fleet_failures_total", &[]);
        failures > 0
    });
    client.exchange(&mut behind, b"meanwhile");
    assert!(has(&other, "web"));
    let mut server = database.server();
    server.fill(false);
    server.server.kill();
    server.start_again();
    drop(server);
    for one in [&proxy, &other] {
        is(one, "connected");
    }
    client.exchange(&mut behind, b"after");
}
