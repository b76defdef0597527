//! What cannot take over does not, and nobody notices.

use std::{fs, path::PathBuf};

use crate::{
    harness::{Peer, proxy::PROGRAM},
    stage::{Stage, VERSION},
};

/// A stage with a session, which has to be there afterwards as if nothing had been tried.
struct Kept {
    stage: Stage,
    client: Peer,
    server: Peer,
}

impl Kept {
    fn new() -> Self {
        let stage = Stage::new("", "");
        let (mut client, mut server) = stage.scene.pair();
        client.exchange(&mut server, b"before");
        Self {
            stage,
            client,
            server,
        }
    }

    /// Tries to upgrade, which fails for a reason in which these words are.
    #[track_caller]
    fn fails(mut self, binary: impl FnOnce(&Stage) -> PathBuf, words: &[&str]) {
        let pid = self.stage.scene.proxy.id();
        let binary = binary(&self.stage);
        let said = self.stage.upgrade_fails(&binary);
        assert!(said.contains(&binary.display().to_string()), "{said}");
        for words in words {
            assert!(said.contains(words), "{words:?}: {said}");
        }
        self.client.exchange(&mut self.server, b"after");
        let (mut more, mut more_server) = self.stage.scene.pair();
        more.exchange(&mut more_server, b"a new one");
        let status = self.stage.json(&["status"]);
        assert_eq!(status["version"], VERSION);
        assert_eq!(status["process"]["pid"], pid);
        assert_eq!(status["upgrade"]["failed"], 1);
        assert_eq!(status["upgrade"]["succeeded"], 0);
        assert_eq!(status["sessions"], 2);
        // One that is well can take over afterwards.
        let upgraded = self.stage.upgrade_to(PROGRAM.as_ref());
        assert_eq!(
            (&upgraded["upgrade"], &upgraded["sessions"]),
            (&2.into(), &2.into())
        );
        self.client.exchange(&mut self.server, b"after that");
        more.exchange(&mut more_server, b"as well");
        drop((self.client, self.server, more, more_server));
        self.stage.scene.finish();
    }
}

#[test]
fn a_binary_that_is_not_there() {
    let missing = |stage: &Stage| stage.dir.join("nothing");
    Kept::new().fails(missing, &["No such file or directory"]);
}

#[test]
fn a_binary_that_is_not_executable() {
    let plain = |stage: &Stage| stage.dir.write("plain", "");
    Kept::new().fails(plain, &["not executable"]);
}

#[test]
fn a_binary_that_is_a_directory() {
    Kept::new().fails(|stage| stage.dir.path().to_owned(), &["no file"]);
}

#[test]
fn a_binary_that_is_no_program() {
    let text = |stage: &Stage| stage.executable("text", "no program\n");
    Kept::new().fails(text, &[]);
}

#[test]
fn a_binary_that_is_truncated() {
    let truncated = |stage: &Stage| {
        let program = fs::read(PROGRAM).expect("it was built");
        stage.executable("truncated", &program[..64 << 10])
    };
    Kept::new().fails(truncated, &[]);
}

#[test]
fn a_binary_that_exits_at_once() {
    let exits = |stage: &Stage| stage.script("exits", "echo oh no >&2; exit 3");
    Kept::new().fails(exits, &["code 3", "oh no"]);
}

#[test]
fn a_binary_that_is_killed_while_it_rehearses() {
    let killed = |stage: &Stage| stage.script("killed", "kill -KILL $$");
    Kept::new().fails(killed, &["signal 9"]);
}

#[test]
fn a_binary_that_exits_well_and_says_nothing() {
    Kept::new().fails(|_| "/bin/true".into(), &["code 0"]);
}

#[test]
fn a_binary_that_crashes() {
    let crashes = |stage: &Stage| stage.script("crashes", "kill -SEGV $$");
    Kept::new().fails(crashes, &["signal 11"]);
}

#[test]
fn a_binary_that_talks_nonsense() {
    let talks = |stage: &Stage| stage.script("talks", "echo hello");
    Kept::new().fails(talks, &["without saying"]);
}

#[test]
fn a_binary_that_talks_without_end() {
    let talks = |stage: &Stage| stage.script("talks", "exec yes");
    Kept::new().fails(talks, &["without saying"]);
}

#[test]
fn a_binary_that_hangs() {
    let hangs = |stage: &Stage| stage.script("hangs", "sleep 1000");
    Kept::new().fails(hangs, &["did not answer"]);
}

#[test]
fn a_binary_of_another_format() {
    let newer = |stage: &Stage| stage.build("9.8.7", "003 003");
    let both = [VERSION, "9.8.7", "formats 3 to 3"];
    Kept::new().fails(newer, &both);
}

#[test]
fn a_binary_that_rehearses_and_then_cannot_go_on() {
    let fickle = |stage: &Stage| {
        let newer = stage.build("9.8.7", "003 003");
        let newer = newer.display();
        let text = format!(
            "for last; do :; done\n[ \"$last\" = --adopt ] && exec {newer} \"$@\"\nexec {PROGRAM} \"$@\""
        );
        stage.script("fickle", &text)
    };
    Kept::new().fails(fickle, &["formats 3 to 3"]);
}
