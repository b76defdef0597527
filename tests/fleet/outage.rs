//! What becomes of the database, and what does not become of anybody else for it.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
};

use rustix::process::Signal;

use super::{
    database::{Database, document, endpoints, eventually, is, knows, membership, open_at},
    harness::{
        Proxy, config, mapping,
        peers::{Peer, Target},
        ports,
        postgresql::NEEDS,
        require::require,
    },
    pooler::{POOLER, Pooler},
};

/// A proxy with a mapping whose target is there.
pub fn serving(database: &Database, name: &str) -> (Proxy, u16, Target) {
    let target = Target::bind();
    let port = ports::free();
    let web = format!(
        "\n[[mapping]]\nname = \"web\"\nlisten = {port}\ntarget = \"{}\"\n",
        target.addr()
    );
    let fleet = database.section(name, "us", "public_host = \"p.example.org\"");
    (Proxy::start(&config([web, fleet])), port, target)
}

const JOB: &str = "00000001-0000-4000-8000-000000000000";

/// Tells of a job at a proxy that is not there.
fn tell_of_job(database: &Database) {
    let entry = r#"{"host":"eu.example.org","port":40001,"state":"open"}"#;
    database.query(&format!(
        "select tml_proxy.register('eu-1', 'eu', '1', 'x');
         select tml_proxy.publish('eu-1', 'x', 0, true, '{{\"job/{JOB}/ssh\": {entry}}}')"
    ));
}

/// A proxy that forwards a port, and knows of a job that it heard of from the other.
fn knowing_of_job(database: &Database) -> (Proxy, u16, Target) {
    let serving = serving(database, "us-1");
    let proxy = &serving.0;
    is(proxy, "connected");
    tell_of_job(database);
    eventually("the job to be known", || open_at(proxy, JOB) == ["eu-1"]);
    serving
}

#[test]
fn sessions_and_lookups_go_on_while_the_database_is_killed_and_comes_back() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::alone();
    let (proxy, port, target) = knowing_of_job(&database);
    let mut client = Peer::connect(port);
    let mut server = target.accept();
    client.exchange(&mut server, b"before");
    let pid = proxy.id();

    database.server().server.kill();
    is(&proxy, "away");
    client.exchange(&mut server, b"meanwhile");
    let mut another = Peer::connect(port);
    another.exchange(&mut target.accept(), b"new ones too");
    assert_eq!(open_at(&proxy, JOB), ["eu-1"]);
    let unknown = JOB.replace("0001", "0002");
    let told = endpoints(&proxy, &unknown);
    assert_eq!(told[0]["reason"], "not_heard_of", "{told:?}");
    // A reload is none of its business.
    let target_of = target.addr();
    let web = format!("\n[[mapping]]\nname = \"web\"\nlisten = {port}\ntarget = \"{target_of}\"\n");
    let more = format!(
        "\n[[mapping]]\nname = \"more\"\nlisten = {}\ntarget = \"{target_of}\"\n",
        ports::free()
    );
    let fleet = database.section("us-1", "us", "public_host = \"p.example.org\"");
    proxy.reload(&config([web, more, fleet]));

    database.server().start_again();
    is(&proxy, "connected");
    eventually("the new mapping to be told", || {
        let told =
            "select count(*) from tml_proxy.endpoint where proxy = 'us-1' and entry is not null";
        database.query(told) == "2"
    });
    client.exchange(&mut server, b"after");
    assert_eq!(proxy.id(), pid);
    let metrics = proxy.metrics();
    assert!(metrics.sum("tml_proxy_fleet_failures_total", &[]) > 0);
    assert_eq!(
        metrics.sum("tml_proxy_fleet_contact", &[("state", "connected")]),
        1
    );
    database.is_secret(&proxy);
}

#[test]
fn a_database_that_stops_answering_in_the_middle_of_it_is_given_up_and_asked_again() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::alone();
    let (proxy, port, target) = knowing_of_job(&database);
    database.server().server.hold(Signal::STOP);
    is(&proxy, "away");
    let error = membership(&proxy)["error"].to_string();
    assert!(error.contains("no answer within 5s"), "{error}");
    assert_eq!(open_at(&proxy, JOB), ["eu-1"]);
    let mut client = Peer::connect(port);
    client.exchange(&mut target.accept(), b"as ever");
    database.server().server.hold(Signal::CONT);
    is(&proxy, "connected");
}

#[test]
fn what_a_failover_lost_is_told_again() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let (proxy, ..) = serving(&database, "us-1");
    let other = database.proxy("us-2", "us");
    knows(&other, "us-1", "up");
    let mappings = || document(&other, "/api/v1/fleet")["mappings"].to_string();
    eventually("its mapping to be known", || mappings().contains("web"));
    // As a standby is that never had the last commits.
    database.query(
        "delete from tml_proxy.endpoint where proxy = 'us-1';
         update tml_proxy.proxy set generation = generation - 1, whole = 0 where name = 'us-1'",
    );
    proxy.wait_for_line(
        0,
        "the database has lost what this proxy told; it is told again",
    );
    eventually("it to be told again", || {
        database.query("select count(*) from tml_proxy.endpoint where proxy = 'us-1'") == "1"
    });
    eventually("it to be known", || mappings().contains("web"));
    // One that has forgotten the proxy altogether learns of it again.
    database.query("delete from tml_proxy.proxy where name = 'us-1'");
    eventually("it to have registered again", || {
        database.query("select count(*) from tml_proxy.proxy where name = 'us-1'") == "1"
    });
    is(&proxy, "connected");
}

#[test]
fn a_server_that_says_nothing_or_takes_no_writes_is_passed_over() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("bound").port();
    let port = database.port();
    let url = database.url_by(&format!("127.0.0.1:{silent},localhost"), port);
    let section = database.section_at(&url, "us-1", "us", "public_host = \"p.example.org\"");
    let proxy = Proxy::start(&config([section]));
    is(&proxy, "connected");
    assert_eq!(membership(&proxy)["server"], format!("localhost:{port}"));

    let role = &database.name;
    database.query(&format!(
        "alter role {role} set default_transaction_read_only = on"
    ));
    let standby = database.proxy("us-2", "us");
    is(&standby, "away");
    let error = membership(&standby)["error"].to_string();
    assert!(error.contains("takes no writes"), "{error}");
    database.query(&format!(
        "alter role {role} reset default_transaction_read_only"
    ));
    is(&standby, "connected");
}

#[test]
fn whoever_has_no_certificate_for_the_name_is_told_nothing() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let url = database.url_by("127.0.0.1", database.port());
    let section = database.section_at(&url, "us-1", "us", "public_host = \"p.example.org\"");
    let proxy = Proxy::start(&config([section]));
    is(&proxy, "away");
    let error = membership(&proxy)["error"].to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    fs::write(database.password_file(), "another\n").expect("own file");
    let refused = database.proxy("us-2", "us");
    is(&refused, "away");
    let error = membership(&refused)["error"].to_string();
    assert!(error.contains("password authentication failed"), "{error}");
}

#[test]
fn a_pooler_that_lends_connections_for_a_transaction_may_be_in_the_way() {
    if !require(&[&NEEDS[..], &[POOLER]].concat()) {
        return;
    }
    let database = Database::start();
    let mut pooler = Pooler::start(&database);
    let url = pooler.url(&database);
    let through = |name: &str| {
        let section = database.section_at(&url, name, "us", "public_host = \"p.example.org\"");
        Proxy::start(&config([
            mapping(
                name,
                ports::free(),
                SocketAddr::from(([127, 0, 0, 9], 22)),
                "",
            ),
            section,
        ]))
    };
    let proxies = ["us-1", "us-2", "us-3"].map(through);
    for proxy in &proxies {
        is(proxy, "connected");
    }
    let is_known = || {
        for proxy in &proxies {
            eventually("everybody's mapping to be known", || {
                let fleet = document(proxy, "/api/v1/fleet");
                fleet["mappings"].as_array().map(Vec::len) == Some(3)
            });
        }
    };
    is_known();
    pooler.kill();
    for proxy in &proxies {
        is(proxy, "away");
    }
    is_known();
    pooler.start_again();
    for proxy in &proxies {
        is(proxy, "connected");
    }
}
