use std::{fs, path::PathBuf};

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Every captured body of `kind`, from every generation.
fn captures(kind: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut found = Vec::new();
    for generation in ["g2", "g3", "g4"] {
        let Ok(dir) = fs::read_dir(root.join(generation).join(kind)) else {
            continue;
        };
        for entry in dir {
            let path = entry.expect("an entry").path();
            let body = fs::read(&path).expect("a capture");
            found.push((path, body));
        }
    }
    assert!(!found.is_empty(), "there are captures of {kind}");
    found
}

fn id(number: u32) -> JobId {
    JobId::parse(&format!("10b00000-0000-7000-8000-{number:012}")).expect("an id")
}

fn invalid<T>(result: Result<T, Unreadable>) -> bool {
    result.is_err()
}

#[test]
fn every_captured_listing_is_read_in_full() {
    for (path, body) in captures("jobs") {
        let read = page(&body).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let value: Value = serde_json::from_slice(&body).expect("JSON");
        let expected = value["jobs"].as_array().expect("a list");
        assert_eq!(
            (read.lost, read.rows.len()),
            (0, expected.len()),
            "{path:?}"
        );
        for (row, expected) in read.rows.iter().zip(expected) {
            assert_eq!(row.id.as_str(), expected["job_id"]);
            assert_eq!(row.state.map(JobState::word), expected["state"].as_str());
        }
        assert_eq!(
            read.next.is_some(),
            value["next_cursor"].is_string(),
            "{path:?}"
        );
    }
}

#[test]
fn every_captured_job_is_read_in_full() {
    for (path, body) in captures("job") {
        let value: Value = serde_json::from_slice(&body).expect("JSON");
        let id = JobId::parse(value["job_id"].as_str().expect("text")).expect("an id");
        let read = detail(&id, &body).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(read.job.state.word(), value["state"], "{path:?}");
        let address = read.job.address.map(|address| address.to_string());
        assert_eq!(
            address.as_deref(),
            value["job_ip_address"].as_str(),
            "{path:?}"
        );
        let host = read.job.host.map(|host| host.to_string());
        assert_eq!(
            host.as_deref(),
            value["dispatched_on_host_id"].as_str(),
            "{path:?}"
        );
        let expected = value["services"].as_array().cloned().unwrap_or_default();
        assert_eq!(read.job.services.len(), expected.len(), "{path:?}");
        for (service, expected) in read.job.services.iter().zip(expected) {
            assert_eq!(*service.name, *expected["name"].as_str().expect("text"));
            assert_eq!(
                *service.protocol,
                *expected["protocol"].as_str().expect("text")
            );
        }
        assert_eq!(read.left_out, 0);
    }
}

#[test]
fn every_captured_set_of_hosts_is_read_in_full() {
    for (path, body) in captures("hosts") {
        let read = hosts(&body).expect("hosts");
        let value: Value = serde_json::from_slice(&body).expect("JSON");
        let expected = value.as_array().expect("a list");
        assert_eq!(read.ids().count(), expected.len(), "{path:?}");
        for host in expected {
            let id = HostId::parse(host["host_id"].as_str().expect("text")).expect("an id");
            assert_eq!(read.live(&id), host["live"].as_bool(), "{path:?}");
        }
    }
}

#[test]
fn half_an_answer_is_no_answer() {
    for (_, body) in captures("jobs") {
        for cut in (0..body.trim_ascii_end().len()).step_by(37) {
            assert!(invalid(page(&body[..cut])));
        }
    }
    for (_, body) in captures("job") {
        for cut in (0..body.trim_ascii_end().len()).step_by(7) {
            assert!(invalid(detail(&id(5), &body[..cut])));
        }
    }
}

#[test]
fn an_answer_without_its_list_is_no_empty_list() {
    for body in [
        "{}",
        "null",
        "[]",
        r#"{"jobs":null}"#,
        r#"{"jobs":{}}"#,
        "",
        "<html>",
    ] {
        assert!(invalid(page(body.as_bytes())), "{body}");
    }
    assert_eq!(page(br#"{"jobs":[]}"#).expect("a page").rows, []);
    assert!(invalid(hosts(b"{}")));
}

#[test]
fn a_cursor_of_no_sensible_length_is_refused() {
    let page = |cursor: &str| page(format!(r#"{{"jobs":[],"next_cursor":"{cursor}"}}"#).as_bytes());
    assert!(invalid(page("")));
    assert!(page(&"x".repeat(CURSOR_AT_MOST)).is_ok());
    assert!(invalid(page(&"x".repeat(CURSOR_AT_MOST + 1))));
}

#[test]
fn a_bad_row_spoils_no_other() {
    let body = format!(
        r#"{{"jobs":[{{"job_id":"{}","state":7}},17,{{"state":"ready"}},{{"job_id":"{}","state":"ready"}}]}}"#,
        id(1),
        id(2)
    );
    let read = page(body.as_bytes()).expect("a page");
    assert_eq!(read.lost, 2);
    let states: Vec<_> = read.rows.iter().map(|row| row.state).collect();
    assert_eq!(states, [None, Some(JobState::Ready)]);
}

#[test]
fn a_job_with_a_thousand_services_keeps_some_and_counts_the_rest() {
    let one = r#"{"name":"n","label":null,"protocol":"p"}"#;
    let body = format!(
        r#"{{"job_id":"{}","state":"ready","services":[{}]}}"#,
        id(5),
        vec![one; 1000].join(",")
    );
    let read = detail(&id(5), body.as_bytes()).expect("a job");
    assert_eq!(read.job.services.len(), SERVICES_AT_MOST);
    assert_eq!(read.left_out, 1000 - SERVICES_AT_MOST);
}

#[test]
fn what_a_job_wrote_wrongly_is_left_out() {
    let body = format!(
        r#"{{"job_id":"{}","state":"napping","job_ip_address":"fd00::1/64","services":
            [7,{{"name":"{}"}},{{"name":"a\u0000\u202eb"}}],"dispatched_on_host_id":"../x"}}"#,
        id(5),
        "x".repeat(SERVICE_TEXT_AT_MOST + 1)
    );
    let read = detail(&id(5), body.as_bytes()).expect("a job");
    assert_eq!(read.job.state, JobState::Unknown);
    assert_eq!(read.job.address, None);
    assert_eq!(read.job.host, None);
    assert_eq!(read.left_out, 3);
    assert_eq!(&*read.job.services[0].name, "a\0\u{202e}b");
}

#[test]
fn an_answer_about_another_job_is_no_answer() {
    let (_, body) = captures("job").remove(0);
    assert!(invalid(detail(&id(999), &body)));
}

#[test]
fn an_ipv4_mapped_address_stays_what_it_is() {
    let body = format!(
        r#"{{"job_id":"{}","state":"ready","job_ip_address":"::ffff:10.0.0.1"}}"#,
        id(5)
    );
    let address = detail(&id(5), body.as_bytes()).expect("a job").job.address;
    assert!(matches!(address, Some(std::net::IpAddr::V6(_))));
}

#[test]
fn annotations_need_a_version() {
    let (_, body) = captures("job")
        .into_iter()
        .rfind(|(path, _)| path.to_string_lossy().contains("g4"))
        .expect("a capture");
    let id = JobId::parse("01a20994-afb4-74f3-a248-780dc2e3515f").expect("an id");
    assert!(invalid(annotations(&id, None, &body)));
    let version = HeaderValue::from_static("\"3\"");
    let mut read = annotations(&id, Some(version), &body).expect("annotations");
    read.annotations.insert("a".to_owned(), "b".to_owned());
    assert_eq!(read.to_patch(), br#"{"annotations":{"a":"b"}}"#);
}

proptest! {
    /// Nobody's bytes bring the reader down.
    #[test]
    fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (page(&body), detail(&id(1), &body), hosts(&body));
    }

    /// A captured job with bytes replaced is read or refused, and never becomes another job.
    #[test]
    fn a_damaged_job_stays_the_same_job(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let (_, mut body) = captures("job").remove(0);
        let value: Value = serde_json::from_slice(&body).expect("JSON");
        let id = JobId::parse(value["job_id"].as_str().expect("text")).expect("an id");
        let place = place.index(body.len());
        body[place] = byte;
        if let Ok(read) = detail(&id, &body) {
            prop_assert_eq!(read.job.id, id);
            prop_assert!(read.job.services.len() <= SERVICES_AT_MOST);
        }
    }
}
