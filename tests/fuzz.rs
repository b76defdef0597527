//! Everything that reads what others wrote, with inputs nobody would write.
//!
//! Each target says what has to hold for any input at all. The corpora and a few seconds of new
//! inputs are part of every run; `TML_PROXY_FUZZ_SECONDS=3600 cargo test --release --test fuzz --
//! --nocapture` is the long one.

mod harness;

#[path = "fuzz/engine.rs"]
mod engine;

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
};

use engine::Target;
use harness::{DEADLINE, Scene, Setup, TempDir};
use tml_proxy::{
    config::{self, Config},
    provider::switchboard::{
        JobId,
        read::{self, SERVICE_TEXT_AT_MOST, SERVICES_AT_MOST},
        state::{Found, StateDir},
        watch::{Event, EventDecoder},
    },
    proxy_protocol::{self, Header, Parsed, Version},
};
use tokio_util::{bytes::BytesMut, codec::Decoder};

/// A sentence without what differs from input to input.
fn gist(sentence: &str) -> String {
    let words = sentence.split(|c: char| !c.is_ascii_lowercase());
    words.filter(|word| word.len() > 3).take(12).collect()
}

/// Reads a configuration: what is wrong is said in lines that can be shown on a terminal.
fn read_config(text: &str) -> Result<Config, String> {
    config::parse(text, Path::new("fuzz.toml")).map_err(|errors| {
        let problems = errors.problems().len();
        assert!(problems > 0, "refused without a problem");
        let said = errors.to_string();
        for line in said.lines() {
            assert!(!line.contains(char::is_control), "unprintable: {line:?}");
        }
        assert!(said.starts_with("fuzz.toml"), "no place: {said}");
        let allowed = said.rsplit("allowed").next().unwrap_or_default();
        format!("{} {}", problems.min(4), gist(allowed))
    })
}

#[test]
fn any_configuration_is_taken_or_refused_with_a_place() {
    let reference = include_bytes!("../config/tml-proxy.toml").to_vec();
    let target = Target {
        name: "config",
        words: &[
            "[[mapping]]",
            "[defaults]",
            "[limits]",
            "[switchboard]",
            "[admin]",
            "[fleet]",
            "database = \"postgresql://u@h:1,[::1]/d?sslmode=disable\"",
            "name = ",
            "listen = ",
            "target = ",
            "\"off\"",
            "\"auto\"",
            "\"90s\"",
            "\"1h 30m\"",
            "\"64KiB\"",
            "true",
            "0",
            "-1",
            "65536",
            "18446744073709551616",
            "1e400",
            "[",
            "]",
            "{ ",
            " }",
            "\"\"\"",
            "'''",
            "\\u0000",
            "\u{feff}",
            "\r\n",
            "1979-05-27T07:32:00Z",
            "inf",
            "nan",
            "0x10",
            "version = 1\n",
        ],
        more: vec![reference, include_bytes!("../config/demo.toml").to_vec()],
    };
    target.fuzz(|input| match read_config(&String::from_utf8_lossy(input)) {
        Ok(config) => format!("{} mappings", config.mappings.len().min(3)),
        Err(gist) => gist,
    });
}

#[test]
fn any_listen_address_is_refused_or_reads_back_as_itself() {
    let addresses = |listen: &str| {
        let listen = listen.escape_default().to_string().replace("\\'", "'");
        let listen = listen.replace("\\u{", "\\U{");
        // TOML has eight digits and no braces.
        let mut quoted = String::new();
        let mut rest = listen.as_str();
        while let Some((before, after)) = rest.split_once("\\U{") {
            let (digits, after) = after.split_once('}').expect("as it was escaped");
            quoted += &format!("{before}\\U{digits:0>8}");
            rest = after;
        }
        quoted += rest;
        let text = format!(
            "version = 1\n[[mapping]]\nname = \"m\"\nlisten = \"{quoted}\"\ntarget = \"[fd00::1]:22\"\n"
        );
        read_config(&text).map(|config| {
            let pairs = config.mappings[0].pairs.iter();
            pairs
                .map(|(listen, _)| listen.to_string())
                .collect::<Vec<_>>()
        })
    };
    let target = Target {
        name: "listen",
        words: &[
            "[::]",
            "*",
            ":",
            "127.0.0.1",
            "::ffff:1.2.3.4",
            "22014",
            "0",
            "65535",
            "65536",
            "-",
            "%eth0",
        ],
        more: Vec::new(),
    };
    target.fuzz(|input| {
        let text = String::from_utf8_lossy(input);
        match addresses(&text) {
            Ok(found) => {
                let [first, .., last] = &[&found[..], &found[..]].concat()[..] else {
                    panic!("taken without an address");
                };
                for one in [first, last] {
                    assert_eq!(addresses(one).as_deref(), Ok([one.clone()].as_slice()));
                }
                format!("{}", found.len().min(3))
            }
            Err(gist) => gist,
        }
    });
}

#[test]
fn any_beginning_of_a_connection_is_a_proxy_header_or_never_becomes_one() {
    let target = Target {
        name: "proxy-header",
        words: &[
            "PROXY ",
            "TCP4 ",
            "TCP6 ",
            "UNKNOWN",
            "\r\n",
            "\r\n\r\n\0\r\nQUIT\n",
            "65535",
            "::1",
            "127.0.0.1",
            "0",
            "255.255.255.255",
            "ffff:f...f:ffff",
        ],
        more: Vec::new(),
    };
    target.fuzz(|input| {
        let whole = proxy_protocol::parse(input);
        for cut in 0..input.len() {
            let part = proxy_protocol::parse(&input[..cut]);
            match whole {
                // Nothing behind a header changes what it says.
                Ok(Parsed::Whole { len, .. }) if cut >= len => assert_eq!(part, whole),
                Ok(_) => assert_eq!(part, Ok(Parsed::Partly), "of the first {cut} bytes"),
                // What was refused, or not, by its beginning may come to be refused later only.
                Err(_) => assert!(!matches!(part, Ok(Parsed::Whole { .. }))),
            }
        }
        if let Ok(Parsed::Whole { header, len }) = whole {
            assert!(len <= input.len());
            if let Header::Proxied(ends) = header {
                let again = proxy_protocol::write(Version::V2, ends, &[]);
                let len = again.len();
                assert_eq!(
                    proxy_protocol::parse(&again),
                    Ok(Parsed::Whole { header, len })
                );
            }
        }
        match whole {
            Ok(Parsed::Whole {
                header: Header::Proxied(ends),
                ..
            }) => {
                format!("proxied {}", ends.source.is_ipv6())
            }
            other => gist(&format!("{other:?}")),
        }
    });
}

#[test]
fn any_stream_of_events_says_the_same_in_any_pieces() {
    /// Changes and signs of life, unless a line has no end.
    fn count(input: &[u8], size: usize) -> Option<(usize, usize)> {
        let (mut decoder, mut buffer) = (EventDecoder::default(), BytesMut::new());
        let (mut changes, mut alive) = (0, 0);
        for piece in input.chunks(size) {
            buffer.extend_from_slice(piece);
            while let Some(event) = decoder.decode(&mut buffer).ok()? {
                match event {
                    Event::Change => changes += 1,
                    Event::KeepAlive => alive += 1,
                }
            }
        }
        Some((changes, alive))
    }
    let target = Target {
        name: "events",
        words: &[
            "event: change\n",
            "data: {}\n\n",
            ":\n\n",
            "\r\n\r\n",
            "id: 1\n",
            "retry: 5\n",
        ],
        more: vec![include_bytes!("captures/g3/watch/job5.raw").to_vec()],
    };
    target.fuzz(|input| {
        let whole = count(input, input.len().max(1));
        for size in [1, 2, 3, 7] {
            assert_eq!(count(input, size), whole, "in pieces of {size}");
        }
        whole.map_or("endless".to_owned(), |(changes, alive)| {
            format!("{} {}", changes.min(5), alive.min(5))
        })
    });
}

#[test]
fn any_answer_of_a_switchboard_is_read_within_bounds_or_refused() {
    let job = "00000000-0000-4000-8000-000000000005";
    let id = JobId::parse(job).expect("an id");
    let target = Target {
        name: "switchboard",
        words: &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "null",
            "true",
            "-1",
            "1e999",
            "\"\"",
            "\"job_id\":",
            "\"jobs\":",
            "\"services\":",
            "\"name\":",
            "\"state\":\"ready\"",
            "\"next_cursor\":",
            "\\u0000",
            "\\ud800",
            "\"job_ip_address\":\"fd00::1\"",
            "\"host_id\":",
            "\"live\":true",
            "\"expires_at\":",
            job,
        ],
        more: vec![
            include_bytes!("captures/g3/jobs/svc.json").to_vec(),
            include_bytes!("captures/g4/jobs/active.json").to_vec(),
            include_bytes!("captures/g4/job/ready.json").to_vec(),
            include_bytes!("captures/g3/job/05.json").to_vec(),
            include_bytes!("captures/g2/job/01.json").to_vec(),
            include_bytes!("captures/g3/hosts/one-live.json").to_vec(),
        ],
    };
    target.fuzz(|input| {
        let page = read::page(input).map(|page| {
            assert!(page.rows.len() + page.lost <= input.len());
            format!(
                "{} {} {}",
                page.rows.len().min(3),
                page.lost.min(3),
                page.next.is_some()
            )
        });
        let detail = read::detail(&id, input).map(|detail| {
            assert!(detail.job.services.len() <= SERVICES_AT_MOST);
            for service in &detail.job.services {
                assert!(service.name.len() <= SERVICE_TEXT_AT_MOST);
                assert!(service.protocol.len() <= SERVICE_TEXT_AT_MOST);
            }
            format!(
                "{} {}",
                detail.job.services.len().min(3),
                detail.left_out.min(3)
            )
        });
        let hosts = read::hosts(input).map(|hosts| hosts.ids().count().min(3).to_string());
        let expiry = read::token_expiry(input).map(|expiry| expiry.is_some().to_string());
        let outcomes = [page, detail, hosts, expiry];
        outcomes
            .map(|outcome| outcome.unwrap_or_else(|failure| gist(&failure.to_string())))
            .join("|")
    });
}

#[test]
fn whatever_the_database_of_a_fleet_says_is_read_as_far_as_it_is_sound() {
    let target = Target {
        name: "fleet",
        words: &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "null",
            "true",
            "-1",
            "65536",
            "18446744073709551615",
            "\"\"",
            "\\u0000",
            "\\u001b",
            "\\ud800",
            "\"port\":",
            "\"generation\":",
            "\"owner\":",
            "\"target\":",
            "\"left_by\":",
            "\"holder\":",
            "\"is_blocked\":true",
            "\"host\":",
            "\"state\":\"open\"",
            "\"last\":",
            "-oProxyCommand=x",
            "[fe80::1%1]:22",
            "/ssh",
            "host/",
            "job/",
            "mapping/",
        ],
        more: Vec::new(),
    };
    target.fuzz(|input| {
        let outcomes = [tml_proxy::reread_entries, tml_proxy::reread_ports].map(|reread| {
            let read = match reread(input) {
                Ok(read) => read,
                Err(error) => {
                    // Without what the input says.
                    let said = error.to_string();
                    return gist(said.split([':', '`', '"']).next().unwrap_or_default());
                }
            };
            // What was taken is sound: it can be shown, and told again.
            assert!(read.chars().all(|c| matches!(c, ' '..='~')), "{read}");
            assert!(
                !read.contains("\"host\":\"-") && !read.contains("\\u"),
                "{read}"
            );
            let again = reread(read.as_bytes());
            assert_eq!(again.ok(), Some(read.clone()));
            read.matches("\"port\"").count().min(3).to_string()
        });
        outcomes.join("|")
    });
}

/// A state file whose checksum is that of its content (FNV-1a), as it is written and as it was once.
fn signed(body: &[u8]) -> [Vec<u8>; 2] {
    let sum = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let head = format!("{{\"version\":2,\"checksum\":\"{sum:016x}\",\"state\":");
    let first = format!("tml-proxy-ports 1 {sum:016x}\n");
    [
        [head.as_bytes(), body, b"}"].concat(),
        [first.as_bytes(), body].concat(),
    ]
}

#[test]
fn any_state_file_is_read_or_put_aside_and_what_was_read_can_be_kept() {
    let dir = TempDir::new();
    let state = StateDir::open(dir.path()).expect("a directory of its own");
    let load = |file: &[u8]| {
        dir.write("ports.state", file);
        match state.load().expect("a file that can be read or moved") {
            Found::Record(record) => {
                state.save(&record).expect("space for a small file");
                assert!(matches!(state.load(), Ok(Found::Record(again)) if again == record));
                format!("{} {}", record.owned.len().min(3), record.left.len().min(3))
            }
            Found::Damaged { damage, aside } => {
                assert_eq!(fs::read(&aside).expect("the damaged file"), file);
                fs::remove_file(aside).expect("own file");
                gist(&damage.to_string())
            }
            Found::Nothing => panic!("the file is gone"),
        }
    };
    let target = Target {
        name: "state",
        words: &[
            "\"version\":",
            "\"checksum\":",
            "\"state\":",
            "\"owned\":",
            "\"left\":",
            "\"blocked\":",
            "\"waiting\":",
            "\"port\":",
            "\"at\":",
            "\"since\":",
            "18446744073709551615",
            "65536",
            "-1",
            "null",
            "[",
            "]",
            "{",
            "}",
            ",",
        ],
        more: Vec::new(),
    };
    target.fuzz(|input| {
        let [now, once] = signed(input);
        format!("{}|{}|{}", load(input), load(&now), load(&once))
    });
}

/// What was handed over, as parts: the values of each are a line of the input.
fn as_parts(input: &[u8]) -> Vec<u8> {
    const NAMES: [&str; 4] = ["header", "control", "counted", "worker-0"];
    const BYTES: [u8; 64] = [7; 64];
    let lines = input.splitn(NAMES.len(), |byte| *byte == b'\n');
    let mut state = Vec::new();
    for (name, values) in NAMES.iter().zip(lines) {
        let (length, bytes) = (values.len(), BYTES.len());
        let head = format!(
            "{{\"part\":\"{name}\",\"values\":{length},\"bytes\":{bytes},\"descriptors\":8}}\n"
        );
        state.extend_from_slice(head.as_bytes());
        state.extend_from_slice(values);
        state.extend_from_slice(&BYTES);
    }
    state
}

#[test]
fn any_state_of_another_image_is_built_or_refused() {
    let whole = include_bytes!("fuzz/corpus/handover/proxy");
    assert_eq!(tml_proxy::build_saved(&as_parts(whole)[..]), Ok(()));
    let target = Target {
        name: "handover",
        words: &[
            "{",
            "}",
            "[",
            "]",
            ",",
            "\n",
            "null",
            "true",
            "-1",
            "0",
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551615",
            "1e999",
            "\"carrier\":{\"kept\":{\"at\":0,\"len\":64}}",
            "\"carrier\":{\"pipe\":{\"read\":0,\"write\":1,\"level\":1,\"size\":65536}}",
            "\"up\":{",
            "\"phase\":\"dialing\"",
            "\"phase\":{\"settling\":{\"side\":\"client\",\"since\":1,\"left\":1,\"pause\":{\"secs\":0,\"nanos\":1}}}",
            "\"fault\":[\"client\",104]",
            "\"leave\":{\"at\":1,\"reason\":\"killed\"}",
            "\"route\":1",
            "\"format\":2",
        ],
        more: Vec::new(),
    };
    target.fuzz(|input| {
        let built = [&as_parts(input)[..], input].map(tml_proxy::build_saved);
        let kind = |built: Result<(), String>| match built {
            Ok(()) => "built".to_owned(),
            // What follows names what was made up.
            Err(error) => gist(&error).chars().take(24).collect(),
        };
        built.map(kind).join("|")
    });
}

#[test]
fn any_request_to_the_admin_socket_is_answered_or_dropped_and_harms_nobody() {
    let dir = TempDir::new();
    let socket = dir.join("admin.sock");
    let process = format!("[admin]\nsocket = {socket:?}\n");
    let scene = Scene::with(&Setup::default(), &process, "");
    let (mut client, mut server) = scene.pair();
    let target = Target {
        name: "admin",
        words: &[
            "GET ",
            "POST ",
            "DELETE ",
            "/api/v1/sessions",
            "/api/v1/mappings/",
            "/api/v1/status",
            "/metrics",
            "?mapping=m",
            "&sort=bytes",
            "&limit=",
            "%00",
            "%2e%2e/",
            " HTTP/1.1\r\n",
            "Host: a\r\n",
            "Content-Length: ",
            "Transfer-Encoding: chunked\r\n",
            "Content-Type: application/json\r\n",
            "\r\n\r\n",
            "{\"mapping\":\"m\"}",
            "18446744073709551616",
            "-1",
            "Connection: close\r\n",
        ],
        more: Vec::new(),
    };
    target.fuzz(|input| {
        let mut stream = UnixStream::connect(&socket).expect("the admin socket");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("an open socket");
        // It may have hung up before everything was sent.
        let _ = stream.write_all(input);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.lines().next().unwrap_or("nothing");
        assert!(!status.contains(" 500 "), "{answer}");
        client.exchange(&mut server, b"not affected");
        status.to_owned()
    });
    drop((client, server));
    scene.finish();
}
