//! What a reader of the manual would stumble over.

use std::{fs, path::Path};

use super::{TOPICS, to_roff, topic};
use crate::config::Config;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/manual"))
}

#[test]
fn every_chapter_in_the_folder_is_a_topic() {
    for file in fs::read_dir(folder()).expect("the folder of this file") {
        let path = file.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path
                .file_stem()
                .and_then(|name| name.to_str())
                .expect("a name");
            assert!(topic(name).is_some(), "{name}");
        }
    }
}

#[test]
fn no_link_of_the_manual_leads_nowhere() {
    let readme = include_str!("../../README.md");
    let chapters = TOPICS.iter().map(|topic| (folder().to_owned(), topic.text));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).to_owned();
    for (from, text) in chapters.chain([(root, readme)]) {
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().expect("split gives one");
            if link.starts_with("http") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = from.join(file);
            assert!(file.is_empty() || target.exists(), "{link}");
            if !heading.is_empty() {
                let target = match file {
                    "" => text.to_owned(),
                    _ => fs::read_to_string(target).expect("text"),
                };
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                let anchor = |line: &str| {
                    let text = line.trim_start_matches(['#', ' ']).to_lowercase();
                    text.replace(' ', "-").replace(['.', ',', '…'], "")
                };
                assert!(headings.any(|line| anchor(line) == heading), "{link}");
            }
        }
    }
}

#[test]
fn a_chapter_becomes_a_man_page() {
    let text = "# Reload\n\nReads `a-b` **again**.\n.dot\n\n- one\n- two\n\n```sh\n.x -y\n```\n\n\
                | a | b |\n| --- | --- |\n| `c` | d |\n";
    let page = "'\\\" t\n.TH tml-proxy-reload 7\n.ad l\n.SH NAME\ntml\\-proxy\\-reload \\- what\n\
                .SH DESCRIPTION\n.PP\nReads \\fBa\\-b\\fR \\fBagain\\fR.\n\\&.dot\n\
                .IP \\(bu 3\none\n.IP \\(bu 3\ntwo\n.PP\n.RS 4\n.EX\n\\&.x \\-y\n.EE\n.RE\n.PP\n.TS\n\
                tab(\x07);\nlw(\\n(.lu*7u/11u*4u/5u) lw(\\n(.lu*4u/11u*4u/5u).\n\
                T{\na\nT}\x07T{\nb\nT}\nT{\n\\fBc\\fR\nT}\x07T{\nd\nT}\n.TE\n";
    assert_eq!(to_roff("tml-proxy-reload", 7, "what", text), page);
}

#[test]
fn the_first_screen_of_the_readme_leads_to_the_status_page() {
    let readme = include_str!("../../README.md");
    let first: Vec<&str> = readme.lines().take(25).collect();
    let page = format!(
        "<http://{}/>",
        Config::default()
            .admin
            .listen
            .map_or(String::new(), |at| at.to_string())
    );
    assert!(first.join("\n").contains(&page), "{page}");
}
