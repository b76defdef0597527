use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::{crc32c::crc32c, *};

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("a literal")
}

fn ends(source: &str, destination: &str) -> Endpoints {
    Endpoints {
        source: addr(source),
        destination: addr(destination),
    }
}

fn whole(bytes: &[u8]) -> Header {
    match parse(bytes) {
        Ok(Parsed::Whole { header, len }) if len == bytes.len() => header,
        other => panic!("{other:?} of {bytes:?}"),
    }
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = (rest.len() as u16).to_be_bytes();
    [v2::SIGNATURE, &[command, family], &len, rest].concat()
}

#[test]
fn the_lines_of_the_specification_are_read() {
    let cases = [
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Header::Proxied(ends("255.255.255.255:65535", "255.255.255.255:65535")),
        ),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:db8::1 65535 0\r\n",
            Header::Proxied(ends(
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[2001:db8::1]:0",
            )),
        ),
        ("PROXY UNKNOWN\r\n", Header::Own),
        ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Header::Own),
    ];
    for (line, header) in cases {
        assert_eq!(whole(line.as_bytes()), header, "{line}");
    }
}

#[test]
fn a_line_that_is_not_exactly_right_is_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n",
        "PROXY TCP4 ::1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Malformed::Words), "{line:?}");
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(parse(endless.as_bytes()), Err(Malformed::Line));
    for other in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "GET / HTTP/1.1\r\n",
        "PROXX",
        "\r\n\r\nx",
    ] {
        assert_eq!(
            parse(other.as_bytes()),
            Err(Malformed::Signature),
            "{other}"
        );
    }
}

#[test]
fn a_sender_that_speaks_for_itself_is_heard_whatever_it_adds() {
    assert_eq!(whole(&v2(0x20, 0x00, &[])), Header::Own);
    assert_eq!(whole(&v2(0x20, 0x77, &[9; 100])), Header::Own);
    assert_eq!(whole(&v2(0x21, 0x00, &[9; 5])), Header::Own);
    assert_eq!(whole(&v2(0x21, 0x31, &[9; 216])), Header::Own);
}

#[test]
fn a_binary_header_that_lies_is_refused() {
    let refused = |command, family, rest: &[u8], why| {
        assert_eq!(parse(&v2(command, family, rest)), Err(why));
    };
    refused(0x11, 0x11, &[0; 12], Malformed::Command(0x11));
    refused(0x22, 0x11, &[0; 12], Malformed::Command(0x22));
    refused(0x21, 0x12, &[0; 12], Malformed::Family(0x12));
    refused(0x21, 0x41, &[0; 12], Malformed::Family(0x41));
    refused(0x21, 0x11, &[0; 11], Malformed::Short);
    refused(0x21, 0x21, &[0; 35], Malformed::Short);
    refused(0x21, 0x31, &[0; 215], Malformed::Short);
    refused(0x21, 0x11, &[0; 13], Malformed::Short);
    let value = [&[0; 12][..], &[0xe0, 0, 9, 1]].concat();
    refused(0x21, 0x11, &value, Malformed::Short);
    refused(0x21, 0x11, &[0; 5000], Malformed::Length(5016));
    // A length that is too much is refused before anybody waits for it.
    let promise = [v2::SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
    assert_eq!(parse(&promise), Err(Malformed::Length(65551)));
}

#[test]
fn a_checksum_has_to_be_right_if_there_is_one() {
    let sealed = |sum: [u8; 4]| {
        let rest = [&[1; 12][..], &[0x03, 0, 4], &sum, &[0xe0, 0, 1, b'x']].concat();
        v2(0x21, 0x11, &rest)
    };
    let sum = crc32c(&[&sealed([0; 4])]).to_be_bytes();
    assert!(matches!(whole(&sealed(sum)), Header::Proxied(_)));
    assert_eq!(parse(&sealed([0; 4])), Err(Malformed::Checksum));
    let short = [&[1; 12][..], &[0x03, 0, 1, 0]].concat();
    assert_eq!(parse(&v2(0x21, 0x11, &short)), Err(Malformed::Checksum));
}

#[test]
fn ends_of_two_families_are_written_as_ipv6() {
    let mixed = ends("192.0.2.1:1", "[2001:db8::1]:2");
    assert_eq!(
        String::from_utf8_lossy(&write(Version::V1, mixed, &[])),
        "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n"
    );
    let mapped = ends("[::ffff:192.0.2.1]:1", "192.0.2.2:2");
    assert_eq!(
        String::from_utf8_lossy(&write(Version::V1, mapped, &[])),
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
    );
}

#[test]
fn a_binary_header_has_its_values_behind_the_addresses() {
    let values = [
        Value {
            kind: Value::MAPPING,
            content: b"board-14",
        },
        Value {
            kind: Value::UNIQUE_ID,
            content: b"17",
        },
    ];
    let bytes = write(Version::V2, ends("192.0.2.1:258", "192.0.2.2:22"), &values);
    let expected: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x1c\
        \xc0\0\x02\x01\xc0\0\x02\x02\x01\x02\0\x16\
        \xe0\0\x08board-14\x05\0\x0217";
    assert_eq!(bytes, expected);
}

fn endpoints() -> impl Strategy<Value = Endpoints> {
    (any::<(IpAddr, u16)>(), any::<(IpAddr, u16)>()).prop_map(|(source, destination)| Endpoints {
        source: source.into(),
        destination: destination.into(),
    })
}

proptest! {
    /// However it is cut, what was written is read, and nothing behind it is taken for header.
    #[test]
    fn what_is_written_is_read_wherever_it_is_cut(
        of in endpoints(),
        binary in any::<bool>(),
        content in prop::collection::vec(any::<u8>(), 0..100),
        behind in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let version = if binary { Version::V2 } else { Version::V1 };
        let value = Value { kind: Value::MAPPING, content: &content };
        let header = write(version, of, &[value]);
        for end in 0..header.len() {
            prop_assert_eq!(parse(&header[..end]), Ok(Parsed::Partly));
        }
        let bytes = [&header[..], &behind].concat();
        let expected = Parsed::Whole {
            header: Header::Proxied(of.of_one_family()),
            len: header.len(),
        };
        prop_assert_eq!(parse(&bytes), Ok(expected));
    }

    /// Whatever the bytes: no panic, never a header longer than what is there, and once a decision
    /// is made more bytes do not change it.
    #[test]
    fn any_bytes_are_a_header_or_not(
        tail in prop::collection::vec(any::<u8>(), 0..300),
        start in prop::sample::select(vec![
            &b""[..], b"PROXY ", b"PROXY TCP4 1.2.3.4 ", b"PROXY TCP6 ::1 ::1 1 ",
            b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x30", b"\r\n\r\n\0\r\nQUIT\n\x20",
        ]),
    ) {
        let bytes = [start, &tail].concat();
        let mut decided = None;
        for end in 0..=bytes.len() {
            let parsed = parse(&bytes[..end]);
            if let Ok(Parsed::Whole { len, .. }) = parsed {
                prop_assert!(len <= end);
            }
            match (decided, parsed) {
                (Some(before), now) => prop_assert_eq!(before, now),
                (None, Ok(Parsed::Partly)) => {}
                (None, now) => decided = Some(now),
            }
        }
        if bytes.len() >= LONGEST {
            prop_assert!(decided.is_some());
        }
    }
}
