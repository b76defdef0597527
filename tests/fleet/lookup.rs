//! Where a job is, whichever proxy is asked.

use std::{net::SocketAddr, process::Command};

use serde_json::Value;

use super::{
    board::Switchboard,
    database::{Database, document, endpoints, eventually, knows, open_at},
    harness::{
        Proxy, TempDir, config, metrics, ports,
        postgresql::NEEDS,
        process::{output, succeed},
        proxy::PROGRAM,
        require::require,
    },
    stage::{Stage, opens},
};

/// A proxy of the fleet that follows a switchboard of its own region.
fn member(database: &Database, name: &str, region: &str, more: &str) -> (Stage, Proxy, SocketAddr) {
    let mut stage = Stage::with(Switchboard::start(), 10);
    stage.public = format!("{region}.example.org");
    let lookup = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let section = stage.section(&format!("lookup = \"{lookup}\""));
    let mapping = format!(
        "\n[[mapping]]\nname = \"board-{name}\"\nlisten = {}\ntarget = \"127.0.0.9:22\"\n",
        ports::free()
    );
    // They are on one machine, where no two can have a port.
    let fleet = database.section(name, region, &format!("ports = \"own\"\n{more}"));
    let proxy = Proxy::start(&config([section, mapping, fleet]));
    (stage, proxy, lookup)
}

#[test]
fn any_proxy_tells_where_a_job_is_on_all_of_them_nearest_first() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let dir = TempDir::new();
    let near = "nearest = [\"eu\", \"us\"]";
    let (first, one, lookup) = member(&database, "us-1", "us", "");
    let (second, two, _) = member(&database, "us-2", "us", "");
    let (third, other, _) = member(&database, "eu-1", "eu", near);
    let jobs = [&first, &second, &third].map(|stage| stage.ready(1, "fdb0:7e57::1"));
    let job = &jobs[0];
    let proxies = [&one, &two, &other];
    for proxy in proxies {
        opens(proxy, job);
    }
    for (proxy, expected) in proxies.iter().zip([
        ["us-1", "us-2", "eu-1"],
        ["us-2", "us-1", "eu-1"],
        ["eu-1", "us-1", "us-2"],
    ]) {
        eventually("a job to be known on all proxies", || {
            open_at(proxy, job) == expected
        });
    }
    let found = endpoints(&other, job);
    let ports: Vec<_> = found.iter().map(|one| one["port"].as_u64()).collect();
    assert_eq!(ports[0], Some(opens(&other, job).into()));
    assert_eq!(found[1]["region"], "us");
    assert_eq!(found[1]["host"], "us.example.org");
    assert!(
        found[1]["age_ms"].as_u64().is_some_and(|age| age < 30_000),
        "{found:?}"
    );

    // Whoever knows the job's id, and nobody else, may ask in public.
    let (status, body) =
        metrics::get(lookup, &format!("/api/v1/endpoints?job={job}")).expect("an answer");
    assert!(
        status.contains(" 200 ") && !body.contains("fdb0"),
        "{status} {body}"
    );
    let told: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(told["endpoints"].as_array().map(Vec::len), Some(3));
    let unknown = format!("/api/v1/endpoints?job={}", job.replace("0001", "00ff"));
    let (status, _) = metrics::get(lookup, &unknown).expect("an answer");
    assert!(status.contains(" 404 "), "{status}");
    let (status, _) = metrics::get(lookup, "/api/v1/fleet").expect("an answer");
    assert!(status.contains(" 404 "), "{status}");
    let asked = || {
        let mut command = Command::new(PROGRAM);
        command.env("TML_PROXY_LOOKUP", lookup.to_string());
        command
    };
    let listed = succeed(asked().args(["endpoints", "--job", job]));
    assert!(
        listed.contains("eu-1") && listed.contains("REGION"),
        "{listed}"
    );
    let blocks = succeed(asked().args(["ssh-config", job]));
    let hosts: Vec<_> = blocks
        .lines()
        .filter(|line| line.starts_with("Host "))
        .collect();
    assert_eq!(
        hosts,
        [
            format!("Host {job}"),
            format!("Host {job}.us-2"),
            format!("Host {job}.eu-1")
        ]
    );

    // What stands in their files can be found too.
    let fleet = document(&two, "/api/v1/fleet");
    let mappings: Vec<_> = fleet["mappings"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    let names: Vec<_> = mappings
        .iter()
        .map(|one| one["mapping"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(names, ["board-eu-1", "board-us-1", "board-us-2"]);
    assert_eq!(mappings[0]["target"], "127.0.0.9:22");

    let socket = dir.join("admin.sock");
    let admin = format!("\n[admin]\nsocket = \"{}\"\n", socket.display());
    let fleet = database.section("eu-2", "eu", "public_host = \"eu.example.org\"");
    let asked_here = Proxy::start(&config([admin, fleet]));
    knows(&asked_here, "eu-1", "up");
    let listed = succeed(
        Command::new(PROGRAM)
            .args(["fleet", "--socket"])
            .arg(&socket),
    );
    for text in [
        "eu-2 in eu: connected",
        "4 of 4 proxies up",
        "board-us-2  us.example.org:",
    ] {
        assert!(listed.contains(text), "{text}: {listed}");
    }
    drop(asked_here);

    // A job that ends is gone everywhere, and so is a proxy that stops.
    third.finalize(job);
    eventually("its end to be known", || {
        open_at(&one, job) == ["us-1", "us-2"]
    });
    for proxy in proxies {
        database.is_secret(proxy);
    }
    two.stop();
    eventually("its end to be known", || open_at(&one, job) == ["us-1"]);
    knows(&one, "us-2", "stopped");
}

#[test]
fn ssh_tries_the_next_proxy_when_the_nearest_does_not_answer() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let (first, one, lookup) = member(&database, "us-1", "us", "");
    let job = first.ready(1, "fdb0:7e57::1");
    let port = opens(&one, &job);
    // A server that greets, as another proxy tells of it.
    let greeting = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let greets = greeting.local_addr().expect("bound").port();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        let (mut client, _) = greeting.accept().expect("a client");
        client.write_all(b"SSH-2.0-test\r\n").expect("it reads");
    });
    let (key, entry) = (
        format!("job/{job}/ssh"),
        format!(r#"{{"host":"127.0.0.1","port":{greets},"state":"open"}}"#),
    );
    database.query(&format!(
        "select tml_proxy.register('eu-1', 'eu', '1', 'x');
         select tml_proxy.publish('eu-1', 'x', 0, true, '{{\"{key}\": {entry}}}')"
    ));
    eventually("both to be known", || {
        open_at(&one, &job) == ["us-1", "eu-1"]
    });
    let dir = TempDir::new();
    let ssh = dir.write("ssh", "#!/bin/sh\necho \"$@\"\n");
    std::fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("own file");
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = Command::new(PROGRAM);
    command
        .env("PATH", path)
        .args(["ssh", "--lookup", &lookup.to_string(), &job]);
    let ran = output(&mut command);
    let (said, complained) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(
        said.contains(&format!("-p {greets} 127.0.0.1")),
        "{said} {complained}"
    );
    assert!(
        complained.contains(&format!("us.example.org port {port}")),
        "{complained}"
    );
    server.join().expect("it was asked");
}
