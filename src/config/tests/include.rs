//! A configuration in several files.

use std::fs;

use super::*;

/// Files in a directory of their own, gone with it.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory for temporary files");
        for (name, content) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("own directory");
            fs::write(path, content).expect("space for a small file");
        }
        Self(directory)
    }

    fn load(&self) -> Result<Config, String> {
        let loaded = load(&self.0.path().join("main.toml"));
        let place = format!("{}/", self.0.path().display());
        loaded.map_err(|errors| errors.to_string().replace(&place, ""))
    }
}

fn mapping(name: &str, listen: u16) -> String {
    format!("[[mapping]]\nname = \"{name}\"\nlisten = {listen}\ntarget = \"10.0.0.1:22\"\n")
}

fn names(config: &Config) -> Vec<&str> {
    let names = config.mappings.iter().map(|spec| spec.name.as_str());
    names.collect()
}

#[test]
fn mappings_of_all_files_come_in_the_order_of_the_patterns_and_their_names() {
    let files = Files::new(&[
        (
            "main.toml",
            &format!(
                "version = 1\ninclude = [\"b/*.toml\", \"a/only\", \"b/2.toml\", \"*.toml\"]\n{}",
                mapping("main", 1)
            ),
        ),
        ("b/10.toml", &mapping("b10", 2)),
        ("b/2.toml", &format!("version = 1\n{}", mapping("b2", 3))),
        ("b/.hidden.toml", "not TOML"),
        ("b/note.txt", "not TOML"),
        ("b/empty.toml", ""),
        ("a/only", &mapping("only", 4)),
        (
            "other.toml",
            "[defaults]\nmax_sessions = 7\nkeepalive = { idle = \"5s\" }\n",
        ),
    ]);
    let config = files.load().expect("a fit configuration");
    assert_eq!(names(&config), ["main", "b10", "b2", "only"]);
    for spec in &config.mappings {
        assert_eq!(spec.policy.max_sessions, Some(7), "{}", spec.name);
    }
    let origin = config.mappings[1].origin.to_string();
    assert!(origin.ends_with("b/10.toml:3:10"), "{origin}");
}

#[test]
fn what_is_wrong_is_told_with_its_file_and_line() {
    let files = Files::new(&[
        (
            "main.toml",
            &format!(
                "version = 1\ninclude = [\"a.toml\", \"none.toml\", \"gone/*.toml\", \"d\", \"b?.toml\"]\n[log]\n{}",
                mapping("one", 1)
            ),
        ),
        (
            "a.toml",
            &format!(
                "[log]\n[defaults]\nbacklog = 0\n[process]\nworker = 2\n{}",
                mapping("one", 2)
            ),
        ),
        ("d/x", ""),
        ("b1.toml", "include = [\"a.toml\"]\n"),
        (
            "b2.toml",
            &format!("{}keepalive = {{ count = 9 }}\n", mapping("two", 1)),
        ),
        ("b3.toml", "version = 2\n[later]\n"),
    ]);
    // A file of another version may mean anything, so it is the only thing that is said.
    let said = files.load().expect_err("wrong");
    assert!(
        said.contains("b3.toml:1:11: version: found 2, allowed: 1"),
        "{said}"
    );
    fs::write(files.0.path().join("b3.toml"), b"x = \"\xff").expect("space");
    let said = files.load().expect_err("wrong");
    for line in [
        "main.toml:2:22: include (item 2): none.toml: No such file or directory",
        "main.toml:2:35: include (item 3): gone: No such file or directory",
        "main.toml:2:50: include (item 4): d: found a directory, allowed: a regular file",
        "a.toml:1:1: log: is already at main.toml:3:1: a section stands in one file",
        "a.toml:3:11: defaults.backlog: found 0, allowed: a number from 1 to 65535",
        "a.toml:5:1: process.worker: unknown key, did you mean \"workers\"?",
        "a.toml:7:8: mapping \"one\": name: already used at main.toml:5:8",
        "b1.toml:1:11: include: files that are included include no others",
        "b3.toml:1:6: not UTF-8 text (byte 0xff)",
    ] {
        assert!(
            said.lines().any(|found| found.starts_with(line)),
            "{line}\n{said}"
        );
    }
}

#[test]
fn a_pattern_that_could_go_anywhere_is_refused() {
    for pattern in ["", "conf.d/", "*/a.toml", "/**/a", "a\\u0000"] {
        let text = problems(&format!("include = [\"{pattern}\"]\n"));
        assert!(text.contains("f:2:12: include (item 1): found"), "{text}");
        assert!(text.contains("in whose last part"), "{text}");
    }
}

#[test]
fn more_files_than_anybody_has_are_refused() {
    let many: Vec<_> = (0..1001).map(|number| format!("d/{number}")).collect();
    let mut files = vec![("main.toml", "version = 1\ninclude = [\"d/*\"]\n")];
    files.extend(many.iter().map(|name| (name.as_str(), "")));
    let files = Files::new(&files);
    let said = files.load().expect_err("too many");
    assert!(
        said.contains("include (item 1): more than 1000 files are included"),
        "{said}"
    );
    fs::remove_file(files.0.path().join("d/7")).expect("it was there");
    files.load().expect("as many as allowed");
}

#[test]
fn variables_stand_in_values_of_every_kind() {
    let unset = "TML_PROXY_TEST_NOWHERE";
    let whole = format!(
        "[process]\nsplice = \"${{{unset}:-false}}\"\nworkers = \"${{{unset}:-3}}\"\n\
         [log]\nlevel = \"${{{unset}:-debug}}\"\n\
         [defaults]\nidle_timeout = \"${{{unset}:-0}}\"\non_remove = {{ drain = \"${{{unset}:-5}}s\" }}\n\
         [[mapping]]\nname = \"x${{{unset}:-14}}\"\nlisten = [\"${{{unset}:-22}}\", 23]\n\
         target = \"10.0.0.1:${{{unset}:-22}}\"\nallow = [\"${{{unset}:-10.0.0.0}}/8\"]\n"
    );
    let config = config(&whole);
    assert!(!config.process.splice);
    assert_eq!(config.process.workers.value().map(u32::from), Some(3));
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.defaults.on_remove, RemovalPolicy::Drain(seconds(5)));
    assert_eq!(names(&config), ["x14"]);
    assert_eq!(config.mappings[0].pairs.len(), 2);
}

#[test]
fn a_variable_that_stands_for_nothing_is_told_with_its_key() {
    let text = problems(
        "[process]\nworkers = \"${TML_PROXY_TEST_NOWHERE}\"\n\
         [[mapping]]\nname = \"a\"\nlisten = [1, \"${TML_PROXY_TEST_NOWHERE}\"]\ntarget = \"${\"\n\
         keepalive = { count = \"${TML_PROXY_TEST_NOWHERE:-many}\" }\n\
         \"${KEY}\" = 1\n",
    );
    for line in [
        "f:3:11: process.workers: the environment variable TML_PROXY_TEST_NOWHERE is not set",
        "f:6:14: mapping \"a\": listen (item 2): the environment variable",
        "f:7:10: mapping \"a\": target: found ${ without a }",
        "f:8:23: mapping \"a\": keepalive.count: found \"many\", allowed: a number from 1 to 127",
        "f:9:1: mapping \"a\": \"${KEY}\": unknown key",
    ] {
        assert!(
            text.lines().any(|found| found.starts_with(line)),
            "{line}\n{text}"
        );
    }
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[test]
fn prefixes_may_stand_in_a_file_of_their_own() {
    let files = Files::new(&[
        (
            "office",
            "# offices\n198.51.100.0/24 ; Berlin\n\n2001:db8::/32\r\n198.51.100.7\n",
        ),
        ("none", "\n"),
    ]);
    let at = |name: &str| files.0.path().join(name).display().to_string();
    let (office, none) = (at("office"), at("none"));
    let main = format!(
        "version = 1\n[defaults]\nallow = [{{ file = \"{office}\" }}, \"10.0.0.0/8\"]\n{}{}deny = [{{ file = \"{none}\" }}, \"198.51.100.7\"]\n",
        mapping("a", 1),
        mapping("b", 2)
    );
    fs::write(files.0.path().join("main.toml"), main).expect("space");
    let config = files.load().expect("a fit configuration");
    for (client, permitted) in [
        ("198.51.100.7", [true, false]),
        ("198.51.100.8", [true, true]),
        ("2001:db8::1", [true, true]),
        ("10.1.1.1", [true, true]),
        ("192.0.2.1", [false, false]),
    ] {
        let client = client.parse().expect("an address");
        let found: Vec<_> = config
            .mappings
            .iter()
            .map(|spec| spec.policy.sources.permits(client))
            .collect();
        assert_eq!(found, permitted, "{client}");
    }
    let shown = serde_json::to_value(Document::from(&config)).expect("plain values");
    let [file, net] = [
        &shown["defaults"]["allow"][0]["file"],
        &shown["defaults"]["allow"][1],
    ];
    assert_eq!(
        (file.as_str(), net.as_str()),
        (Some(&*office), Some("10.0.0.0/8"))
    );
}

#[test]
fn what_is_wrong_in_a_file_with_prefixes_is_told_once_with_its_line() {
    let files = Files::new(&[("list", "10.0.0.0/8\n  10.0.0.0/33 # no\nlocalhost\n")]);
    let list = files.0.path().join("list").display().to_string();
    let deny = format!(
        "deny = [\"10.0.0.1\", {{ file = \"{list}\" }}, {{ file = \"/nonexistent/l\" }}]\n"
    );
    let main = format!(
        "version = 1\n{}{deny}{}{deny}{}deny = [{{ file = \"list\" }}]\n",
        mapping("a", 1),
        mapping("b", 2),
        mapping("c", 3)
    );
    fs::write(files.0.path().join("main.toml"), main).expect("space");
    let said = files.load().expect_err("wrong");
    let lines: Vec<_> = said.lines().collect();
    assert!(
        lines[0].starts_with("list:2:3: found \"10.0.0.0/33\", allowed: a prefix such as"),
        "{said}"
    );
    assert!(
        lines[1].starts_with("list:3:1: found \"localhost\", allowed: a prefix"),
        "{said}"
    );
    for (line, place) in lines[2..4].iter().zip(["main.toml:6:", "main.toml:11:"]) {
        assert!(
            line.starts_with(place) && line.contains("deny (item 3): /nonexistent/l: No such file"),
            "{said}"
        );
    }
    assert!(
        lines[4].contains("deny (item 1): file: found \"list\"")
            || lines[4]
                .contains("deny (item 1).file: found \"list\", allowed: a path from the root"),
        "{said}"
    );
    assert_eq!(lines.len(), 5, "{said}");
}
