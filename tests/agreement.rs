//! What `check` accepts `run` can use, and what `run` refuses for a reason in the file `check` refuses
//! in the same words.
//!
//! Files are put together of sections in which most values are ordinary and some at their edges or past
//! them: addresses, ports, ranges, paths, URLs, durations. Nothing in them is a question to the machine:
//! addresses are loopback or may be listened on before they are there, ports are free, directories exist.

mod harness;

use std::{
    cell::Cell,
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Output, Stdio},
};

use harness::{
    TempDir, ports,
    process::{self, Running},
    proxy::PROGRAM,
};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rustix::process::Signal;

/// How many files are tried.
const FILES: u32 = 96;

/// A file as it is put together: `PORT1` to `PORT4` stand for free ports, `DIR` for a directory of its
/// own, `LONG` for what makes a path in it as long as a socket's may be.
fn file() -> impl Strategy<Value = String> {
    let parts = (
        process_section(),
        admin(),
        defaults(),
        mappings(),
        switchboard(),
        fleet(),
    );
    parts.prop_map(|(process, admin, defaults, mappings, switchboard, fleet)| {
        format!("version = 1\n{process}{admin}{defaults}{switchboard}{fleet}{mappings}")
    })
}

/// A line of a section: left out, ordinary, or, seldom, something else.
fn line(
    key: &'static str,
    ordinary: &'static [&'static str],
    odd: &'static [&'static str],
) -> impl Strategy<Value = String> {
    let of = move |values: &'static [&'static str]| {
        let line = move |value: &'static str| format!("{key} = {value}\n");
        select(values).prop_map(line)
    };
    prop_oneof![
        4 => Just(String::new()),
        24 => of(ordinary),
        1 => of(odd),
    ]
}

/// The same of a line that has to be there.
fn needed(
    key: &'static str,
    ordinary: &'static [&'static str],
    odd: &'static [&'static str],
) -> impl Strategy<Value = String> {
    let line = line(key, ordinary, odd);
    line.prop_map(move |line| match line.is_empty() {
        true => format!("{key} = {}\n", ordinary[0]),
        false => line,
    })
}

fn process_section() -> impl Strategy<Value = String> {
    let lines = (
        line("workers", &["1", "2", "\"auto\""], &["0", "65"]),
        line("bulk_nice", &["0", "19"], &["20"]),
        line(
            "shutdown_timeout",
            &["\"1ms\"", "\"365days\""],
            &["\"2years\"", "\"1\""],
        ),
        line(
            "pipe_size",
            &["\"4KiB\"", "\"1MiB\""],
            &["\"3KiB\"", "\"2MiB\""],
        ),
        line("pipes", &["\"off\"", "1", "4294967295"], &["4294967296"]),
    );
    lines.prop_map(|(a, b, c, d, e)| format!("[process]\n{a}{b}{c}{d}{e}"))
}

fn admin() -> impl Strategy<Value = String> {
    let lines = (
        needed(
            "listen",
            &[
                "\"off\"",
                "\"127.0.0.1:PORT4\"",
                "PORT4",
                "\"*:PORT4\"",
                "\"[::1]:PORT4\"",
                "\"[::]:PORT4\"",
                "\"127.0.0.1:PORT1\"",
            ],
            &[
                "\"[fe80::1]:PORT4\"",
                "\"[fe80::1%1]:PORT4\"",
                "\"[::ffff:127.0.0.1]:PORT4\"",
                "\"255.255.255.255:PORT4\"",
                "\"127.0.0.1:0\"",
                "\"localhost:PORT4\"",
                "65536",
            ],
        ),
        needed(
            "socket",
            &[
                "\"off\"",
                "\"DIR/s\"",
                "\"DIR/LONG/admin.sock\"",
                "\"DIR/LONG/s\"",
            ],
            &[
                "\"DIR/LONG/too-long.sock\"",
                "\"DIR/\\u0000\"",
                "\"s\"",
                "\"DIR/\"",
                "\"DIR/..\"",
            ],
        ),
        line(
            "socket_mode",
            &["\"0600\"", "\"777\""],
            &["\"0888\"", "\"7777\""],
        ),
        line(
            "socket_group",
            &["\"0\"", "\"root\""],
            &["\"\"", "\"4294967295\"", "\"a b\""],
        ),
    );
    lines.prop_map(|(a, b, c, d)| format!("[admin]\n{a}{b}{c}{d}"))
}

fn defaults() -> impl Strategy<Value = String> {
    let lines = (
        line(
            "connect_timeout",
            &["\"1ms\"", "\"31557600s\""],
            &["\"31557601s\"", "\"0s\""],
        ),
        line(
            "idle_timeout",
            &["0", "\"1h 30m\""],
            &["\"18446744073709551615s 1000ms\""],
        ),
        line(
            "keepalive",
            &[
                "\"off\"",
                "{ idle = \"1s\", interval = \"1s\", count = 1 }",
                "{ idle = \"32767s\", interval = \"32767s\", count = 127 }",
            ],
            &["{ idle = \"32768s\" }", "{ count = 128 }"],
        ),
        line(
            "user_timeout",
            &["\"off\"", "\"1ms\"", "\"24days\""],
            &["\"25days\""],
        ),
        line("backlog", &["1", "65535"], &["0", "65536"]),
        line("max_sessions", &["1", "4294967295"], &["4294967296"]),
        line(
            "bandwidth",
            &[
                "\"1KiB\"",
                "\"1024GiB\"",
                "{ rate = \"1024GiB\", burst = \"1KiB\" }",
                "{ rate = \"1KiB\", per = \"1day\" }",
            ],
            &["\"1025GiB\"", "{ rate = \"1KiB\", per = \"2days\" }"],
        ),
        line(
            "bind",
            &["\"off\""],
            &[
                "\"fe80::1\"",
                "\"255.255.255.255\"",
                "\"::\"",
                "\"224.0.0.1\"",
            ],
        ),
        line(
            "allow",
            &["[]", "[\"::/0\", \"0.0.0.0/0\"]", "[\"fe80::/10\"]"],
            &["[\"fe80::1%eth0\"]", "[\"::ffff:10.0.0.1\"]"],
        ),
    );
    lines.prop_map(|(a, b, c, d, e, f, g, h, i)| format!("[defaults]\n{a}{b}{c}{d}{e}{f}{g}{h}{i}"))
}

fn mappings() -> impl Strategy<Value = String> {
    let lines = (
        needed("name", &["\"a\""], &["\"job/a/ssh\"", "\"b\"", "\"a b\""]),
        needed(
            "listen",
            &[
                "PORT1",
                "\"127.0.0.1:PORT1\"",
                "[\"127.0.0.1:PORT1\", \"[::1]:PORT1\"]",
                "[\"0.0.0.0:PORT1\", \"[::]:PORT1\"]",
                "\"203.0.113.1:PORT1\"",
                "\"[2001:db8::1]:PORT1\"",
            ],
            &[
                "[PORT1, \"127.0.0.1:PORT1\"]",
                "\"[fe80::1]:PORT1\"",
                "\"[fe80::1%lo]:PORT1\"",
                "\"255.255.255.255:PORT1\"",
                "\"[ff02::1]:PORT1\"",
                "\"PORT2-PORT1\"",
                "PORT2",
            ],
        ),
        needed(
            "target",
            &["\"127.0.0.1:9\"", "\"[::1]:65535\""],
            &[
                "\"127.0.0.1:PORT1\"",
                "\"[fe80::1]:22\"",
                "\"0.0.0.0:22\"",
                "\"[::1]:65536\"",
            ],
        ),
        line(
            "bind",
            &["\"off\"", "\"127.0.0.1\""],
            &["\"fe80::9\"", "\"::1%lo\""],
        ),
    );
    lines.prop_map(|(name, listen, target, bind)| {
        format!(
            "[[mapping]]\n{name}{listen}{target}{bind}freebind = true\n\
             [[mapping]]\nname = \"b\"\nlisten = \"PORT2-PORT3\"\ntarget = \"127.0.0.1:9\"\n"
        )
    })
}

fn switchboard() -> impl Strategy<Value = String> {
    let lines = (
        needed(
            "url",
            &[
                "\"http://127.0.0.1:9\"",
                "\"http://[::1]:9/x/\"",
                "\"https://localhost:9/api/v1\"",
            ],
            &[
                "\"https://[::1\"",
                "\"https://a%zz\"",
                "\"http://localhost:99999\"",
                "\"http://u:sesame@h\"",
                "\"http://h/a b\"",
            ],
        ),
        needed(
            "token_file",
            &["\"DIR/token\""],
            &["\"token\"", "\"DIR/\\u0000\""],
        ),
        needed(
            "ports",
            &["\"60000-60099\"", "[60000, \"60001-60009\"]"],
            &["\"60099-60000\"", "\"PORT1-65535\"", "0"],
        ),
        line(
            "lookup",
            &["\"off\"", "\"127.0.0.1:PORT5\"", "PORT5", "\"[::1]:PORT5\""],
            &["PORT4", "\"[::1]:PORT2\"", "\"[fe80::1]:PORT5\"", "60000"],
        ),
        needed(
            "state_dir",
            &["\"DIR/state\""],
            &["\"state\"", "\"/\\u0000\""],
        ),
        line("poll", &["\"100ms\"", "\"1year\""], &["\"99ms\""]),
        line("transparent", &["false"], &["true"]),
    );
    let section = lines.prop_map(|(a, b, c, d, e, f, g)| {
        format!(
            "[switchboard]\n{a}{b}{c}{d}{e}{f}{g}public_host = \"p.example.org\"\n\
             targets = {{ allow = [\"fd00::/8\"] }}\n[[switchboard.expose]]\nname = \"ssh\"\nport = 22\n"
        )
    });
    prop_oneof![Just(String::new()), section]
}

fn fleet() -> impl Strategy<Value = String> {
    let lines = (
        needed(
            "database",
            &[
                "\"postgresql://u@127.0.0.1:9/d\"",
                "\"postgres://u%40x@localhost,[::1]:9/d?sslmode=disable\"",
            ],
            &[
                "\"postgresql://u:sesame@h/d\"",
                "\"postgresql://u@h/d?password=sesame\"",
                "\"postgresql://h/d\"",
                "\"postgresql://u@h:99999/d\"",
                "9",
            ],
        ),
        line(
            "password_file",
            &["\"DIR/token\"", "\"DIR/none\"", "\"off\""],
            &["\"DIR/\\u0000\"", "\"\""],
        ),
        line("ca_file", &["\"DIR/none\"", "\"off\""], &["\"token\""]),
        needed("name", &["\"us-1\""], &["\"US\"", "\"\""]),
        needed("region", &["\"us\""], &["\"a b\""]),
        line("nearest", &["[]", "[\"us\", \"eu\"]"], &["[\"-\"]"]),
        line(
            "lease",
            &["\"1m\"", "\"30days\""],
            &["\"59999ms\"", "\"31days\""],
        ),
        line("ports", &["\"own\"", "\"shared\""], &["\"mine\""]),
        line("follow", &["false"], &["0"]),
        line("reserve", &["0", "1000"], &["-1", "1001"]),
    );
    let section = lines.prop_map(|(a, b, c, d, e, f, g, h, i, j)| {
        format!("[fleet]\n{a}{b}{c}{d}{e}{f}{g}{h}{i}{j}")
    });
    prop_oneof![Just(String::new()), section]
}

/// The file with free ports and a directory for `DIR`.
fn filled(file: &str, dir: &Path) -> String {
    let first = ports::range(5);
    let room = 107 - dir.as_os_str().len() - "///admin.sock".len() + 1;
    let long = "x".repeat(room);
    fs::create_dir_all(dir.join(&long)).expect("a directory of its own");
    fs::write(dir.join("token"), "secret\n").expect("a directory of its own");
    let mut text = file.to_owned();
    for number in 0..5 {
        text = text.replace(
            &format!("PORT{}", number + 1),
            &(first + number).to_string(),
        );
    }
    text.replace("LONG", &long)
        .replace("DIR", &dir.display().to_string())
}

fn check(file: &Path) -> Output {
    process::output(Command::new(PROGRAM).args(["check", "--config"]).arg(file))
}

/// What became of a start: nothing if it listens, else how it ended and what it said.
fn start(file: &Path) -> Option<(Option<i32>, String)> {
    let mut command = Command::new(PROGRAM);
    command
        .args(["run", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    let stdout = running.child().stdout.take().expect("asked for");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let listens = lines.any(|line| line.contains(" listening "));
    if listens {
        running.signal(Signal::TERM);
    }
    let rest = std::thread::spawn(move || lines.for_each(drop));
    let mut said = String::new();
    let mut stderr = running.child().stderr.take().expect("asked for");
    stderr.read_to_string(&mut said).expect("it writes text");
    let status = running.wait();
    rest.join().expect("it only reads");
    (!listens).then_some((status.code(), said))
}

#[test]
fn a_file_that_check_accepts_starts_and_one_that_does_not_start_is_refused_in_the_same_words() {
    let config = Config {
        cases: FILES,
        failure_persistence: None,
        max_shrink_iters: 64,
        ..Config::default()
    };
    // The same files each time: what one run finds, the next one does.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(&file(), |file| {
        let dir = TempDir::new();
        let text = filled(&file, dir.path());
        let path = dir.write("proxy.toml", &text);
        let checked = check(&path);
        let complaints = String::from_utf8_lossy(&checked.stderr).into_owned();
        prop_assert!(
            !complaints.contains("sesame"),
            "a password is shown: {complaints}"
        );
        match (checked.status.code(), start(&path)) {
            (Some(0), None) => accepted.update(|count| count + 1),
            (Some(1), Some((Some(1), said))) => {
                prop_assert_eq!(said, format!("tml-proxy: {complaints}"), "{}", text);
                refused.update(|count| count + 1);
            }
            (checked, started) => prop_assert!(
                false,
                "check {checked:?} and run {started:?} do not agree on:\n{text}\n{complaints}"
            ),
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // Else the files say little.
    let (accepted, refused) = (accepted.get(), refused.get());
    assert!(
        accepted >= 10 && refused >= 10,
        "{accepted} accepted, {refused} refused"
    );
}
