use super::*;

#[path = "../../tests/harness/dns.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod dns;

use dns::{DnsServer, Says};

fn resolver(server: &DnsServer, within: u64) -> Resolver {
    Resolver::new(Asking {
        servers: vec![server.address],
        within: Duration::from_millis(within),
    })
}

/// Longer than anything takes on a busy machine.
const PATIENT: u64 = 20_000;

async fn looked_up(server: &DnsServer, name: &str, family: Family) -> Result<Found, LookupError> {
    resolver(server, PATIENT).lookup(name, family).await
}

async fn addresses(server: &DnsServer, name: &str, family: Family) -> Vec<String> {
    let found = looked_up(server, name, family).await.expect(name);
    found.addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_name_has_the_addresses_of_the_family_that_is_wanted_in_an_order_of_their_own() {
    let server = DnsServer::start();
    let (one, other) = ("192.0.2.1", "192.0.2.2");
    server.addresses(
        "both.test",
        &[other, "2001:db8::2", one, "2001:db8::1", one],
    );
    server.addresses("four.test", &[other, one]);
    let (six_1, six_2) = ("2001:db8::1", "2001:db8::2");
    for (name, family, expected) in [
        ("both.test", Family::Both, vec![six_1, six_2, one, other]),
        ("both.test", Family::Ipv4, vec![one, other]),
        ("both.test", Family::Ipv6, vec![six_1, six_2]),
        ("both.test", Family::PreferIpv4, vec![one, other]),
        ("BOTH.test.", Family::PreferIpv6, vec![six_1, six_2]),
        ("four.test", Family::PreferIpv6, vec![one, other]),
    ] {
        assert_eq!(
            addresses(&server, name, family).await,
            expected,
            "{name} {family:?}"
        );
    }
    let error = looked_up(&server, "four.test", Family::Ipv6).await;
    let error = error.expect_err("it has none").to_string();
    assert!(
        error.starts_with("it has no IPv6 address, says 127.0.0.1:"),
        "{error}"
    );
}

#[tokio::test]
async fn the_time_for_which_an_answer_is_good_is_that_of_its_shortest_record() {
    let server = DnsServer::start();
    let ip = [192, 0, 2, 1].into();
    server.say("here.test", Says::Addresses(vec![ip], 300));
    server.say("alias.test", Says::AliasOf("here.test"));
    server.say("never.test", Says::Addresses(vec![ip], u32::MAX));
    for (name, ttl) in [("here.test", 300), ("alias.test", 1), ("never.test", 0)] {
        let found = looked_up(&server, name, Family::Both).await.expect(name);
        assert_eq!(found.ttl, Some(Duration::from_secs(ttl)), "{name}");
        assert!(found.from_server);
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_for_udp_is_had_over_tcp_and_bounded() {
    let server = DnsServer::start();
    let all = (0..1000_u32)
        .rev()
        .map(|number| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number)));
    server.say("many.test", Says::Addresses(all.collect(), 60));
    let found = looked_up(&server, "many.test", Family::Both)
        .await
        .expect("it has many");
    assert_eq!(found.addresses.len(), MOST_ADDRESSES);
    assert_eq!(found.addresses[0], IpAddr::from([10, 0, 0, 0]));
    assert_eq!(found.beyond, 1000 - MOST_ADDRESSES);
}

#[tokio::test]
async fn a_server_that_lies_breaks_off_or_goes_in_circles_is_not_believed() {
    let server = DnsServer::start();
    let ip = vec![[192, 0, 2, 66].into()];
    server.say("other.test", Says::Besides("evil.test", ip.clone()));
    server.say("question.test", Says::OfAnother("evil.test", ip));
    server.say("rubbish.test", Says::Rubbish);
    server.say("round.test", Says::AliasOf("about.test"));
    server.say("about.test", Says::AliasOf("round.test"));
    server.say("failing.test", Says::Error(2));
    for (name, said) in [
        ("other.test", "it has no IP address, says"),
        ("question.test", "answer within"),
        (
            "rubbish.test",
            "gives an answer that cannot be read: it breaks off",
        ),
        (
            "round.test",
            "gives an answer that cannot be read: its aliases have no end",
        ),
        ("failing.test", "answers SERVFAIL"),
        ("nothing.test", "there is no such name, says"),
    ] {
        let found = resolver(&server, 2_000).lookup(name, Family::Both).await;
        let error = found.expect_err(name).to_string();
        assert!(error.contains(said), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_is_silent_or_late_costs_no_more_than_the_time_for_it() {
    let server = DnsServer::start();
    let soon = Says::Addresses(vec![[192, 0, 2, 1].into()], 1);
    server.say("silent.test", Says::Silence);
    server.say("tcp.test", Says::SilenceOverTcp);
    server.say(
        "late.test",
        Says::Late(Duration::from_secs(5), Box::new(soon)),
    );
    for name in ["silent.test", "tcp.test", "late.test"] {
        let found = resolver(&server, 300).lookup(name, Family::Both).await;
        let error = found.expect_err(name);
        assert!(!error.is_certain(), "{error}");
    }
}

#[tokio::test]
async fn another_server_is_asked_when_the_first_is_gone_or_has_no_answer() {
    let (gone, failing, server) = (DnsServer::start(), DnsServer::start(), DnsServer::start());
    server.addresses("here.test", &["192.0.2.1"]);
    failing.say("here.test", Says::Error(5));
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let nobody = nobody.local_addr().expect("it has one");
    gone.say("here.test", Says::Silence);
    let resolver = Resolver::new(Asking {
        servers: vec![nobody, failing.address, server.address],
        within: Duration::from_millis(PATIENT),
    });
    let found = resolver
        .lookup("here.test", Family::Ipv4)
        .await
        .expect("the third knows");
    assert_eq!(found.addresses, [IpAddr::from([192, 0, 2, 1])]);
}

#[tokio::test]
async fn half_an_answer_leaves_the_other_half_as_it_was() {
    let found = Found {
        unknown: Some((Records::Aaaa, LookupError::Unanswered(Duration::ZERO))),
        ..Found::new(vec![[192, 0, 2, 1].into()], None, true, None)
    };
    let before: Vec<IpAddr> = ["2001:db8::1", "192.0.2.9"]
        .map(|text| text.parse().expect("an address"))
        .to_vec();
    let both = found.with_unknown_of(&before).addresses;
    let both: Vec<_> = both.iter().map(ToString::to_string).collect();
    assert_eq!(both, ["2001:db8::1", "192.0.2.1"]);
}

#[tokio::test]
async fn localhost_is_this_machine_whatever_a_server_says() {
    let server = DnsServer::start();
    server.addresses("localhost", &["192.0.2.66"]);
    for name in ["localhost", "LocalHost.", "x.localhost"] {
        let found = looked_up(&server, name, Family::Ipv4).await.expect(name);
        assert_eq!(found.addresses, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        assert!(!found.from_server && found.ttl.is_none());
    }
    assert_eq!(server.asked("localhost"), 0);
}

#[test]
fn resolv_conf_says_who_is_asked_for_which_names() {
    let system = System::of(
        "nameserver 192.0.2.53\nnameserver fe80::1%1\nnameserver nonsense\nsearch a.test b.test\n\
         options ndots:2 timeout:3 attempts:4 use-vc nonsense:x\n",
    );
    let servers: Vec<_> = system.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[fe80::1%1]:53"]);
    assert_eq!((system.timeout.as_secs(), system.attempts), (3, 4));
    assert!(system.only_tcp);
    for (name, names) in [
        ("h", &["h.a.test", "h.b.test", "h"][..]),
        ("h.x", &["h.x.a.test", "h.x.b.test", "h.x"]),
        ("h.x.y", &["h.x.y", "h.x.y.a.test", "h.x.y.b.test"]),
        ("h.", &["h."]),
    ] {
        assert_eq!(system.names(name).collect::<Vec<_>>(), names);
    }
    let empty = System::of("");
    assert_eq!(empty.servers, [SocketAddr::from((Ipv4Addr::LOCALHOST, 53))]);
}

#[test]
fn a_hosts_file_knows_names_in_any_case_and_with_comments() {
    let text = "# hosts\n127.0.0.1 localhost\n192.0.2.1\tDb.test db # primary\n\
                2001:db8::1 db.test\nnonsense db.test\n";
    let hosts = system::Hosts::parse(text);
    let of = |name| {
        hosts
            .addresses(name)
            .map(|ip| ip.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("db.TEST."), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(of("db"), ["192.0.2.1"]);
    assert!(of("primary").is_empty());
}

#[test]
fn an_address_of_a_name_is_judged_as_one_in_the_file_but_for_loopback() {
    let nets = |text: &str| vec![text.parse::<ipnet::IpNet>().expect("a prefix")];
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let any = Vec::new();
    for (address, from_server, allow, judged) in [
        ("192.0.2.1", true, &any, Ok(())),
        ("::ffff:192.0.2.1", true, &any, Ok(())),
        ("192.0.2.1", true, &nets("192.0.2.0/24"), Ok(())),
        (
            "192.0.2.1",
            false,
            &nets("10.0.0.0/8"),
            Err(Unfit::NotAllowed),
        ),
        ("127.0.0.1", false, &any, Ok(())),
        ("127.0.0.1", true, &any, Err(Unfit::Loopback)),
        ("::ffff:127.0.0.1", true, &any, Err(Unfit::Loopback)),
        ("::1", true, &any, Err(Unfit::Loopback)),
        ("127.0.0.1", true, &nets("127.0.0.0/8"), Ok(())),
        ("0.0.0.0", false, &any, Err(Unfit::Unconnectable)),
        ("224.0.0.1", false, &any, Err(Unfit::Unconnectable)),
        ("255.255.255.255", false, &any, Err(Unfit::Unconnectable)),
        ("fe80::1", false, &any, Err(Unfit::LinkLocal)),
    ] {
        let found = judge(ip(address), from_server, allow).map(|_| ());
        assert_eq!(found, judged, "{address}");
    }
}
