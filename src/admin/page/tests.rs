//! What the page shows, and that nothing from outside is more than text on it.

use super::{tables::leads_to, *};
use crate::admin::api::model::Target;

const EVIL: &str = "<script>alert(1)</script>\"'&";

fn content(text: &str) -> Content {
    Content {
        problems: vec![Problem {
            severity: Severity::Error,
            text: text.to_owned(),
        }],
        switchboard: Some(Switchboard {
            state: text.to_owned(),
            ..Switchboard::default()
        }),
        search: String::new(),
        host: text.to_owned(),
        history: vec![Totals::default(); 3],
        mappings: vec![Mapping {
            mapping: text.to_owned(),
            state: text.to_owned(),
            ..Mapping::default()
        }],
        total: 1,
        sessions: vec![Session {
            mapping: text.to_owned(),
            client: text.to_owned(),
            ..Session::default()
        }],
        events: vec![Event {
            message: text.to_owned(),
            fields: [(text.to_owned(), text.to_owned())].into(),
            ..Event::default()
        }],
        ..Content::default()
    }
}

#[test]
fn names_from_outside_are_text_wherever_they_appear() {
    let page = content(EVIL).page().into_string();
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(
        page.matches("&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;")
            .count()
            >= 8
    );
}

#[test]
fn the_page_needs_no_other_file() {
    let page = content("m").page().into_string();
    for reference in ["src=", "<link", "url(", "@import"] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn trouble_is_in_the_title_and_at_the_top() {
    let page = content("A reload failed.").page().into_string();
    assert!(page.contains("<title>Something is wrong"), "{page}");
    let place = |text: &str| page.find(text).expect("it is there");
    assert!(place("A reload failed.") < place("The last ten minutes"));
}

#[test]
fn a_screen_reader_finds_each_table_once_and_the_name_of_each_row() {
    let page = content("board-14").page().into_string();
    for id in ["mappings", "live-sessions", "events"] {
        let label = format!("aria-labelledby=\"{id}\"");
        assert_eq!(page.matches(&label).count(), 1, "{id}: {page}");
    }
    assert!(
        page.contains("<th scope=\"row\" class=\"text\">board-14</th>"),
        "{page}"
    );
}

#[test]
fn events_that_are_left_out_are_counted() {
    let many = Content {
        events: vec![Event::default(); 256],
        ..content("m")
    };
    let page = many.page().into_string();
    assert!(page.contains("Events <small>256</small>"), "{page}");
    assert!(page.contains("And 206 more"), "{page}");
}

/// 300 mappings of which 43 are dead, one is paused and one drained, and those have no sessions.
fn crowd() -> Content {
    let mapping = |number: u64| {
        let serving = Mapping {
            mapping: format!("job/0000{number:04}-0000-4000-8000-000000000000/ssh"),
            state: "accepting".to_owned(),
            sessions: number,
            ..Mapping::default()
        };
        match number % 7 {
            6 => Mapping {
                mapping: format!("dead-{number:03}"),
                failing: Some("connection refused, 3s ago".to_owned()),
                sessions: 0,
                ..serving
            },
            _ => serving,
        }
    };
    let mut mappings: Vec<_> = (0..301).map(mapping).collect();
    (mappings[0].state, mappings[1].state) = ("paused".to_owned(), "drained".to_owned());
    mappings[1].sessions_end_in_ms = Some(61_000);
    Content {
        mappings,
        ..Content::default()
    }
}

#[test]
fn what_needs_attention_comes_before_what_is_busy() {
    let page = crowd().page().into_string();
    let rows: Vec<&str> = page.split("<tr").collect();
    let marked = |rows: &[&str], mark| rows.iter().filter(|row| row.starts_with(mark)).count();
    assert_eq!(marked(&rows, " class=\"bad\""), 43);
    let first: Vec<&str> = rows.iter().skip(2).take(45).copied().collect();
    assert_eq!(marked(&first, " class=\"bad\""), 43, "{page}");
    assert_eq!(marked(&first, " class=\"warn\""), 2, "{page}");
    for text in [
        "301 mappings, 43 failing, 1 paused, 1 drained",
        "drained, 1 left for 1m 01s",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(page.contains("And 251 more"), "{page}");
    assert!(page.len() < 40_000, "{}", page.len());
}

#[test]
fn a_search_finds_what_is_not_among_the_first_rows() {
    let found = |text: &str| {
        let search = text.to_owned();
        let page = Content { search, ..crowd() }.page().into_string();
        let (_, rows) = page.split_once("<tbody>").unwrap_or_default();
        (page.contains("of 301<"), rows.matches("<tr").count())
    };
    assert_eq!(found("00000002-"), (true, 1));
    assert_eq!(found("Dead-0"), (true, 14));
    assert_eq!(found("paused"), (true, 1));
    assert_eq!(found("<b>"), (true, 0));
}

#[test]
fn a_mapping_with_many_targets_takes_no_more_room_than_others() {
    let target = |number| Target {
        target: format!("192.0.2.{number}:22"),
        ..Target::default()
    };
    let mapping = Mapping {
        targets: (1..=200).map(target).collect(),
        ..Mapping::default()
    };
    let first = "192.0.2.1:22, 192.0.2.2:22, 192.0.2.3:22 and 197 more";
    assert_eq!(leads_to(&mapping), first);
}

#[test]
fn text_that_hides_or_turns_around_is_shown_as_such() {
    let shown = |text: &str| Shown(text).render().into_string();
    for c in ['\0', '\x1b', '\r', '\u{202e}', '\u{2066}', '\u{2069}'] {
        assert_eq!(shown(&format!("a{c}b")), "a\u{fffd}b", "{c:?}");
    }
    // An error of several lines keeps them.
    assert_eq!(shown("line 1\n  | ^"), "line 1\n  | ^");
}
