//! Who may take part, and as whom.

use std::process::Command;

use rustix::process::Signal;

use super::{
    database::{Database, document, eventually, is, knows, membership},
    harness::{
        Proxy, config, mapping, ports, postgresql::NEEDS, process::output, proxy::PROGRAM,
        require::require,
    },
};

#[test]
fn a_second_proxy_with_a_name_is_refused_and_the_first_goes_on() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let first = database.proxy("us-1", "us");
    is(&first, "connected");
    let second = database.proxy("us-1", "us");
    is(&second, "refused");
    let line = second.wait_for_line(0, "no part in the fleet");
    assert!(
        line.text("why")
            .contains("another process has the name \"us-1\""),
        "{line:?}"
    );
    assert_eq!(membership(&first)["state"], "connected");
    let problems = document(&second, "/api/v1/status")["problems"].to_string();
    assert!(problems.contains("No part in the fleet"), "{problems}");

    // With another name it may, and with the first once that is free.
    let renamed = database.section("us-3", "us", "public_host = \"p.example.org\"");
    second.reload(&config([renamed]));
    is(&second, "connected");
    knows(&first, "us-3", "up");
    first.stop();
    knows(&second, "us-1", "stopped");
    let again = database.section("us-1", "us", "public_host = \"p.example.org\"");
    second.reload(&config([again]));
    is(&second, "connected");
    knows(&second, "us-3", "stopped");
    database.is_secret(&second);
}

#[test]
fn a_proxy_that_was_removed_stays_out_until_it_is_restored() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let port = ports::free();
    let mapping =
        format!("\n[[mapping]]\nname = \"web\"\nlisten = {port}\ntarget = \"127.0.0.9:80\"\n");
    let section = database.section("eu-1", "eu", "public_host = \"eu.example.org\"");
    let removed = Proxy::start(&config([mapping, section]));
    let other = database.proxy("us-1", "us");
    knows(&other, "eu-1", "up");
    let mappings = || document(&other, "/api/v1/fleet")["mappings"].to_string();
    eventually("its mapping to be known", || {
        mappings().contains("eu.example.org")
    });
    assert!(!database.operate(&["remove", "xx-1"]).status.success());
    assert!(database.operate(&["remove", "eu-1"]).status.success());
    is(&removed, "refused");
    let line = removed.wait_for_line(0, "no part in the fleet");
    assert!(line.text("why").contains("fleet restore eu-1"), "{line:?}");
    knows(&other, "eu-1", "removed");
    assert!(!mappings().contains("eu.example.org"));
    // It goes on forwarding.
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(database.operate(&["restore", "eu-1"]).status.success());
    is(&removed, "connected");
    knows(&other, "eu-1", "up");
}

#[test]
fn a_schema_that_is_missing_or_of_another_version_leaves_the_proxy_without_a_fleet() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::empty();
    let proxy = database.proxy("us-1", "us");
    let refused = |why: &str| {
        eventually(why, || {
            membership(&proxy)["error"]
                .as_str()
                .is_some_and(|error| error.contains(why))
        });
        assert_eq!(membership(&proxy)["state"], "refused");
    };
    refused("tml-proxy fleet migrate");
    // Made, and the role may not ask yet.
    assert!(database.operate(&["migrate"]).status.success());
    refused("permission denied for schema tml_proxy");
    // The rights come with the same command, which changes nothing else.
    let again = database.migrate();
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(said.contains("has version 2 already"), "{again:?}");
    is(&proxy, "connected");
    let examined = output(
        Command::new(PROGRAM)
            .args(["doctor", "--json", "--config"])
            .arg(proxy.file()),
    );
    let examined = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert!(
        examined.contains("takes writes and has the schema"),
        "{examined}"
    );

    // A newer one that still serves this version, and one that does not.
    database.query("insert into tml_proxy.schema values (3, 1)");
    let second = database.proxy("us-2", "us");
    is(&second, "connected");
    let migrated = database.migrate();
    let said = String::from_utf8_lossy(&migrated.stderr).into_owned();
    assert!(
        !migrated.status.success() && said.contains("takes a newer tml-proxy"),
        "{migrated:?}"
    );
    database.query("update tml_proxy.schema set serves = 3 where version = 3");
    let third = database.proxy("us-3", "us");
    is(&third, "refused");
    let error = membership(&third)["error"].to_string();
    assert!(
        error.contains("version 3 and this program knows version 2 at most"),
        "{error}"
    );
    assert!(document(&third, "/readyz")["ready"] == true);
}

#[test]
fn the_schema_is_brought_up_to_date_while_proxies_of_the_version_before_go_on() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::empty();
    let role = &database.name;
    database.query(include_str!("../../src/fleet/migrations/1.sql"));
    let functions = [
        "schema_version()",
        "register(text, text, text, text)",
        "heartbeat(text, text, bigint)",
        "publish(text, text, bigint, boolean, jsonb)",
    ];
    let functions = functions.map(|function| format!("tml_proxy.{function}"));
    database.query(&format!(
        "grant usage on schema tml_proxy to {role}; grant execute on function {} to {role}",
        functions.join(", ")
    ));
    let proxy = database.proxy("us-1", "us");
    eventually("it to say what to do", || {
        let error = membership(&proxy)["error"].to_string();
        error.contains(
            "has version 1 and this program knows version 2: run `tml-proxy fleet migrate`",
        )
    });

    // One of the version before, which has registered and goes on.
    let as_before = |query: &str| {
        let answer =
            format!("set session authorization {role}; select tml_proxy.{query}->>'standing'");
        let answer = database.query(&answer);
        database.query("reset session authorization");
        assert_eq!(answer, "member", "{query}");
    };
    as_before("register('eu-1', 'eu', '0.1', 'x')");
    as_before("publish('eu-1', 'x', 0, true, '{}')");
    let migrated = database.migrate();
    let said = String::from_utf8_lossy(&migrated.stdout).into_owned();
    assert!(said.contains("from version 1 to 2"), "{migrated:?}");
    as_before("heartbeat('eu-1', 'x', 7)");
    as_before("publish('eu-1', 'x', 1, false, '{}')");
    is(&proxy, "connected");
    knows(&proxy, "eu-1", "up");
    assert_eq!(
        database.query("select (tml_proxy.schema_version()->>'serves')::int"),
        "1"
    );
}

#[test]
fn the_role_of_proxies_may_call_its_functions_and_nothing_else() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let proxy = database.proxy("us-1", "us");
    is(&proxy, "connected");
    let role = &database.name;
    let may = |what: &str| database.query(&format!("select {what}::text"));
    for table in ["proxy", "endpoint", "schema", "region", "port", "process"] {
        for right in ["select", "insert", "update", "delete"] {
            let asked = format!("has_table_privilege('{role}', 'tml_proxy.{table}', '{right}')");
            assert_eq!(may(&asked), "false", "{right} {table}");
        }
    }
    for function in [
        "remove(text)",
        "restore(text)",
        "standing(text, text)",
        "now()",
        "region_locked(text, text, bigint)",
        "region_rows(text, bigint, text, text)",
    ] {
        let asked = format!("has_function_privilege('{role}', 'tml_proxy.{function}', 'execute')");
        assert_eq!(may(&asked), "false", "{function}");
    }
    // A name belongs to the role that was first to use it.
    let answer = database.query("select tml_proxy.register('us-1', 'us', '1', 'x')->>'standing'");
    assert_eq!(answer, "of_another_role");
}

#[test]
fn an_upgrade_keeps_the_name_and_what_was_told() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mapping = mapping("web", ports::free(), "127.0.0.9:80", "");
    let section = database.section("eu-1", "eu", "public_host = \"eu.example.org\"");
    let proxy = Proxy::start(&config([mapping, section]));
    is(&proxy, "connected");
    let told = || database.query("select count(*) from tml_proxy.endpoint where entry is not null");
    eventually("its mapping to be told", || told() == "1");
    let from = proxy.log().len();
    proxy.signal(Signal::USR2);
    proxy.wait_for_line(from, "upgraded");
    proxy.wait_for_line(from, "member of the fleet");
    is(&proxy, "connected");
    assert_eq!(told(), "1");
    let refused = proxy.said(|line| line.message() == "no part in the fleet");
    assert!(refused.is_empty(), "{refused:?}");
}
