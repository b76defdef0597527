//! What the functions of the database refuse, whoever asks.

use serde_json::{Value, json};

use super::{
    database::Database,
    harness::{postgresql::NEEDS, require::require},
};

/// A process of a proxy that speaks for itself.
struct Process<'a> {
    database: &'a Database,
    name: &'static str,
    instance: &'static str,
    epoch: Value,
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or("null".to_owned(), |text| format!("'{text}'"))
}

impl<'a> Process<'a> {
    fn register(database: &'a Database, name: &'static str, instance: &'static str) -> Self {
        database.query(&format!(
            "select tml_proxy.register('{name}', 'us', '1', '{instance}')"
        ));
        Self {
            database,
            name,
            instance,
            epoch: Value::Null,
        }
    }

    fn call(&self, function: &str, values: &str) -> Value {
        let Self { name, instance, .. } = self;
        let call = format!("select tml_proxy.{function}('{name}', '{instance}'{values})");
        serde_json::from_str(&self.database.query(&call)).expect("JSON")
    }

    /// A beat that knows everything and has applied a generation.
    fn beats(&mut self, known: u64, applied: u64) -> Value {
        let epoch = text(&self.epoch);
        let answer = self.call(
            "region_beat",
            &format!(", 60000, {epoch}, {known}, {applied}, true, null"),
        );
        self.epoch = answer["epoch"].clone();
        answer
    }

    fn writes(&self, term: &Value, changes: Value) -> Value {
        let epoch = text(&self.epoch);
        let values = format!(", {epoch}, 0, {term}, 0, null, '{changes}'");
        self.call("region_write", &values)
    }
}

/// Two of them, of which the first leads, with its term.
fn two(database: &Database) -> (Process<'_>, Process<'_>, Value) {
    let mut leader = Process::register(database, "us-1", "a");
    let mut other = Process::register(database, "us-2", "b");
    let term = leader.beats(0, 0)["term"].clone();
    assert_eq!(other.beats(0, 0)["leader"], "us-1");
    (leader, other, term)
}

fn owned(port: u16, owner: &str) -> Value {
    json!({"port": port, "owner": owner, "target": "192.0.2.1:22"})
}

/// Why each of the changes was refused.
fn why(answer: &Value) -> Vec<&str> {
    let refused = answer["refused"].as_array().expect("they were looked at");
    refused
        .iter()
        .map(|one| one["why"].as_str().expect("a word"))
        .collect()
}

const OWNERS: &str =
    "select coalesce(string_agg(port || ' ' || owner || ' ' || target, ', ' order by port), '')
     from tml_proxy.port where owner is not null";

#[test]
fn a_port_goes_to_somebody_else_only_once_everybody_has_closed_it() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let (mut leader, mut other, term) = two(&database);
    let answer = leader.writes(
        &term,
        json!([
            owned(1, "one/ssh"),
            owned(1, "two/ssh"),
            owned(2, "one/ssh")
        ]),
    );
    assert_eq!(why(&answer), ["taken", "has_port"]);
    // The same once more changes nothing, another target does.
    let again = leader.writes(&term, json!([owned(1, "one/ssh")]));
    assert_eq!((why(&again).len(), &again["generation"]), (0, &json!(1)));
    let elsewhere = json!({"port": 1, "owner": "one/ssh", "target": "192.0.2.2:22"});
    assert_eq!(leader.writes(&term, json!([elsewhere]))["generation"], 2);
    assert_eq!(database.query(OWNERS), "1 one/ssh 192.0.2.2:22");

    leader.writes(&term, json!([{"port": 1, "owner": "one/ssh"}]));
    leader.beats(3, 3);
    let answer = leader.writes(&term, json!([owned(1, "two/ssh")]));
    assert_eq!(why(&answer), ["cooling"], "the other one has not closed it");
    // Whoever had it last may have it back.
    assert!(why(&leader.writes(&term, json!([owned(1, "one/ssh")]))).is_empty());
    leader.writes(&term, json!([{"port": 1, "owner": "one/ssh"}]));
    leader.beats(5, 5);
    other.beats(5, 5);
    assert!(why(&leader.writes(&term, json!([owned(1, "two/ssh")]))).is_empty());

    // One that could not be bound is nobody's for a while, and that is told once.
    let generation = leader.writes(&term, json!([]))["generation"].clone();
    let block = format!(", {}, 1, {generation}", text(&other.epoch));
    other.call("region_block", &block);
    other.call("region_block", &block);
    let answer = leader.writes(&term, json!([owned(1, "two/ssh"), owned(2, "two/ssh")]));
    assert_eq!(why(&answer), ["blocked"]);
    assert_eq!(database.query(OWNERS), "2 two/ssh 192.0.2.1:22");
}

#[test]
fn a_leader_that_was_deposed_has_written_nothing() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let (mut leader, mut other, term) = two(&database);
    let changes = json!([owned(1, "one/ssh")]);
    assert_eq!(other.writes(&term, changes.clone())["is_deposed"], true);
    database.query("update tml_proxy.region set until = tml_proxy.now()");
    let next = other.beats(0, 0)["term"].clone();
    assert_eq!(next, json!(2));
    for term in [&term, &next] {
        assert_eq!(leader.writes(term, changes.clone())["is_deposed"], true);
    }
    assert_eq!(database.query(OWNERS), "");
    assert!(why(&other.writes(&next, changes)).is_empty());

    // Who leaves or is removed gives the lease up at once.
    other.call("leave", "");
    assert_eq!(leader.beats(1, 0)["leader"], "us-1");
    database.query("select tml_proxy.remove('us-1')");
    let mut third = Process::register(&database, "us-3", "c");
    assert_eq!(third.beats(0, 0)["leader"], "us-3");
    assert_eq!(leader.beats(1, 1)["standing"], "fenced");
}

#[test]
fn a_proxy_that_is_cut_off_keeps_its_ports_from_others_until_its_lease_is_over() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut leader = Process::register(&database, "us-1", "a");
    // On another machine than the one that takes its name afterwards.
    let mut lost = Process::register(&database, "us-2", "b1/1/1");
    let term = leader.beats(0, 0)["term"].clone();
    lost.beats(0, 0);
    leader.writes(&term, json!([owned(1, "one/ssh")]));
    lost.beats(1, 1);
    leader.writes(&term, json!([{"port": 1, "owner": "one/ssh"}]));
    database.query("update tml_proxy.proxy set seen = seen - interval '1 min' where name = 'us-2'");
    let mut again = Process::register(&database, "us-2", "b2/1/1");
    again.beats(0, 0);
    again.beats(2, 2);
    leader.beats(2, 2);
    let wants = json!([owned(1, "two/ssh")]);
    assert_eq!(why(&leader.writes(&term, wants.clone())), ["cooling"]);
    assert_eq!(lost.beats(1, 1)["standing"], "taken");
    database.query("update tml_proxy.process set seen = seen - lease where instance = 'b1/1/1'");
    assert!(why(&leader.writes(&term, wants)).is_empty());
}

#[test]
fn nobody_gets_a_port_after_a_failover_before_everybody_has_told_what_is_served() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let (mut leader, mut other, term) = two(&database);
    leader.writes(&term, json!([owned(1, "one/ssh"), owned(2, "two/ssh")]));
    // The standby never had the second port, and another proxy has it.
    database.query("delete from tml_proxy.port where port = 2; update tml_proxy.region set timeline = 'before'");
    let answer = leader.beats(1, 1);
    assert_eq!(answer["is_asserted"], false);
    let term = answer["term"].clone();
    let serves = |port: u16, owner: &str| json!({"port": port, "owner": owner, "target": "192.0.2.1:22", "since_ms": 1, "generation": 1});
    let asserts = |process: &Process<'_>, ports: Value| {
        let values = format!(", {}, 1, '{ports}'", text(&process.epoch));
        process.call("region_assert", &values)
    };
    assert_eq!(
        asserts(&leader, json!([serves(1, "one/ssh")]))["refused"],
        json!([])
    );
    let answer = leader.writes(&term, json!([owned(1, "one/ssh"), owned(2, "three/ssh")]));
    assert_eq!(why(&answer), ["unsettled"]);
    assert_eq!(other.beats(1, 1)["is_asserted"], false);
    let told = asserts(
        &other,
        json!([serves(1, "other/ssh"), serves(2, "two/ssh")]),
    );
    assert_eq!(why(&told), ["taken"], "it hears of what it has lost");
    assert_eq!(
        why(&leader.writes(&term, json!([owned(2, "three/ssh"), owned(3, "three/ssh")]))),
        ["taken"]
    );
    let owners = "1 one/ssh 192.0.2.1:22, 2 two/ssh 192.0.2.1:22, 3 three/ssh 192.0.2.1:22";
    assert_eq!(database.query(OWNERS), owners);
}

/// What nobody used is anybody's as soon as it is given back.
#[test]
fn ports_that_are_had_beforehand_leave_as_many_to_jobs_and_are_given_back_when_those_run_out() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let (leader, other, term) = two(&database);
    let reserve = |process: &Process<'_>, used: Value, most: u32| {
        let epoch = text(&process.epoch);
        let values = format!(", {epoch}, '{used}', '[[101, 108], [110, 111]]', {most}");
        let answer = process.call("region_reserve", &values);
        assert_eq!(answer["refused"], json!([]));
        let instance = process.instance;
        database.query(&format!(
            "select coalesce(string_agg(port::text, ' ' order by port), '') from tml_proxy.port
             where reserved_instance = '{instance}'"
        ))
    };
    let nothing = json!([]);
    let most = "106 107 108 110 111";
    assert_eq!(reserve(&leader, nothing.clone(), 100), most);
    assert_eq!(reserve(&leader, nothing.clone(), 100), most);
    assert_eq!(reserve(&other, nothing.clone(), 1), "105");
    assert_eq!(reserve(&other, nothing.clone(), 100), "104 105");
    let writes = |changes: Value, free: u32| {
        let epoch = text(&leader.epoch);
        let counts = json!({"free": free, "reserved": 7});
        let values = format!(", {epoch}, 0, {term}, 0, '{counts}', '{changes}'");
        leader.call("region_write", &values)["refused"].clone()
    };
    let is_short = || {
        let values = format!(", 60000, {}, 0, 0, true, null", text(&other.epoch));
        other.call("region_beat", &values)["is_short"].clone()
    };
    let two = json!([owned(101, "one/ssh"), owned(102, "two/ssh")]);
    assert_eq!(writes(two, 1), nothing);
    assert_eq!(is_short(), false);
    let refused = writes(json!([owned(103, "three/ssh"), owned(104, "four/ssh")]), 0);
    assert_eq!(refused[0]["why"], "reserved");
    assert_eq!(is_short(), true);
    // That of another, or of a job, nobody gives back.
    let used = json!([{"port": 111}, {"port": 104}, {"port": 101}]);
    assert_eq!(reserve(&leader, used, 0), "106 107 108 110");
    assert_eq!(is_short(), false);
    assert_eq!(writes(json!([owned(111, "four/ssh")]), 0), nothing);
    assert_eq!(reserve(&other, nothing, 0), "104 105");
    let owners = database.query(OWNERS);
    assert_eq!(owners.split(", ").count(), 4, "{owners}");
}

#[test]
fn nobody_writes_in_the_name_of_another() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut leader = Process::register(&database, "us-1", "a");
    let term = leader.beats(0, 0)["term"].clone();
    let role = &database.name;
    database.query(&format!("set session authorization {role}"));
    let written = leader.writes(&term, json!([owned(1, "one/ssh")]));
    let asked = [
        ("region_map", ", 0"),
        ("region_block", ", null, 1, 1"),
        ("region_assert", ", null, 1, '[]'"),
        ("region_reserve", ", null, '[]', '[[1, 9]]', 9"),
    ];
    let asked = asked.map(|(function, values)| leader.call(function, values));
    let beat = leader.beats(1 << 40, 0);
    for answer in asked.into_iter().chain([written, beat]) {
        assert_eq!(answer["standing"], "of_another_role");
    }
    // One of its own it has, and no table.
    let mut own = Process::register(&database, "us-2", "b");
    assert_eq!(own.beats(0, 0)["leader"], "us-1");
    database.query("reset session authorization");
    assert_eq!(
        database.query("select generation from tml_proxy.region"),
        "0"
    );
}
