//! Everything that a session is comes back as it was.

use std::{fs::File, os::fd::OwnedFd};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    limit::Limits,
    table::{
        KnownMappings, MappingName, MappingSpec, Origin, Policy, SavedTable, Surroundings, Table,
    },
};

const BYTES: usize = 1000;

/// A table of one mapping that limits everything.
fn known() -> KnownMappings {
    let policy = Policy {
        bandwidth_per_source: Some(crate::limit::Rate::even(std::num::NonZeroU64::MIN)),
        ..Policy::default()
    };
    let (listen, target) = addresses();
    let spec = MappingSpec {
        name: MappingName::new("m"),
        pairs: [(listen.into(), target.into())].into(),
        policy: policy.into(),
        origin: Origin::BuiltIn,
    };
    let around = Surroundings {
        reserved: &[],
        departed: &[],
        is_local: &|_| false,
        looping: &Default::default(),
    };
    let table = Table::build(&[spec], &Table::default(), &around).expect("no conflict");
    SavedTable::new(&table, &[]).load().expect("no conflict")
}

fn addresses() -> (SocketAddr, SocketAddr) {
    (
        "127.0.0.1:1000".parse().expect("an address"),
        "127.0.0.1:22".parse().expect("an address"),
    )
}

/// Loads a session and saves it again, with descriptors that are none of a socket.
fn again(saved: &Value) -> Result<Value, String> {
    let mut known = known();
    let gate = Gate::new(Limits::default(), 100);
    let pipes = PipeBudget::new(4, 1 << 20, 1 << 16);
    let table = std::sync::Arc::clone(&known.table);
    let mut routes = RouteSaver::new(&table);
    let (listen, _) = addresses();
    routes.route(table.route(&listen.into()).expect("it is there"));
    let loaded = routes
        .finish()
        .load(&mut known)
        .map_err(|error| error.to_string())?;
    let file = || OwnedFd::from(File::open("/dev/null").expect("it is there"));
    let mut loader = Loader::new((0..6).map(|_| file()).collect(), vec![7; BYTES]);
    let mut from = Loading {
        loader: &mut loader,
        routes: &loaded,
        gate: &gate,
        pipes: &pipes,
    };
    let saved: SavedSession =
        serde_json::from_value(saved.clone()).map_err(|error| error.to_string())?;
    let session = Session::load(saved, &mut from).map_err(|error| error.to_string())?;
    assert_eq!(session.route.mapping.stats.open(), 1);
    let (mut saver, mut routes) = (Saver::default(), RouteSaver::new(&table));
    let saved = session.save(&mut saver, &mut routes);
    Ok(serde_json::to_value(&saved).expect("plain values"))
}

/// A direction, its descriptors and bytes to be numbered yet.
fn direction() -> impl Strategy<Value = Value> {
    let carrier = prop_oneof![
        Just(json!("scratch")),
        (0..BYTES / 2).prop_map(|len| json!({ "kept": { "at": 0, "len": len } })),
        (1..65536u32, 1..65536u32).prop_map(|(level, size)| {
            json!({ "pipe": { "read": 0, "write": 0, "level": level, "size": size } })
        }),
    ];
    let flow = prop::sample::select(&["open", "ending", "closed", "abandoned"][..]);
    let mode = prop::sample::select(&["auto", "copy", "splice"][..]);
    (
        (carrier, -1000..1_000_000_000i64, 0..1_000_000_000u64, mode),
        (flow, any::<bool>(), any::<u8>(), any::<bool>()),
    )
        .prop_map(
            |((carrier, delivered, spliced, mode), (flow, bulk, small_reads, must_copy))| {
                json!({
                    "carrier": carrier, "delivered": delivered, "spliced": spliced, "mode": mode,
                    "flow": flow, "bulk": bulk, "small_reads": small_reads, "must_copy": must_copy,
                })
            },
        )
}

fn readiness() -> impl Strategy<Value = Value> {
    any::<[bool; 6]>().prop_map(|[readable, writable, closing, ends, urgent, hung_up]| {
        json!({
            "readable": readable, "writable": writable, "closing": closing, "ends": ends,
            "urgent": urgent, "hung_up": hung_up,
        })
    })
}

fn time() -> impl Strategy<Value = i64> {
    1_000_000..1_000_000_000_000_000i64
}

fn maybe(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::option::of(value).prop_map(|value| value.unwrap_or(Value::Null))
}

fn extras() -> impl Strategy<Value = Value> {
    let net = json!([7, { "net": "192.0.2.0/24" }]);
    let throttle = || {
        (any::<u32>(), any::<u32>())
            .prop_map(|(spent, granted)| json!({ "spent": spent, "granted": granted }))
    };
    let waiting = || {
        prop_oneof![
            Just(json!("nothing")),
            Just(json!("left_to_kernel")),
            time().prop_map(|at| json!({ "since": at })),
        ]
    };
    let user_timeout = (waiting(), waiting(), maybe(time().prop_map(Value::from))).prop_map(
        |(client, target, next)| json!({ "client": client, "target": target, "next": next }),
    );
    let retry = (time(), time()).prop_map(|(since, at)| {
        json!({ "since": since, "pause": { "secs": 0, "nanos": 5_000_000 }, "at": at })
    });
    let front = json!({ "peer": "192.0.2.9:1", "destination": "[2001:db8::1]:22" });
    let times = (
        maybe(time().prop_map(Value::from)),
        maybe(time().prop_map(Value::from)),
    );
    (
        (throttle(), throttle(), times),
        (maybe(Just(front)), maybe(user_timeout), maybe(retry)),
        (any::<[bool; 2]>(), any::<bool>()),
    )
        .prop_map(
            move |((up, down, (wake, drained)), (front, user_timeout, retry), counted)| {
                let ([process, mapping], metered) = counted;
                let source = |is| if is { net.clone() } else { Value::Null };
                json!({
                    "admission": {
                        "sources": [source(process), source(mapping)],
                        "metered": metered && mapping,
                        "dialling": [false, process],
                    },
                    "up": up, "down": down, "wake": wake, "drained": drained, "front": front,
                    "user_timeout": user_timeout, "retry": retry,
                })
            },
        )
}

fn session() -> impl Strategy<Value = Value> {
    let phase = prop_oneof![
        Just(json!("dialing")),
        Just(json!("relaying")),
        (time(), any::<u32>()).prop_map(|(since, left)| {
            let pause = json!({ "secs": 0, "nanos": 8_000_000 });
            json!({ "settling": {
                "side": "client", "since": since, "left": left, "pause": pause,
            }})
        }),
    ];
    let leave = time().prop_map(|at| json!({ "at": at, "reason": "killed" }));
    let fault = prop::sample::select(&["client", "target"][..]);
    let fault = (fault, 1..133u16).prop_map(|(side, errno)| json!([side, errno]));
    (
        (
            any::<u64>(),
            time(),
            maybe(time().prop_map(Value::from)),
            time(),
            maybe(leave),
        ),
        (
            any::<(bool, u8)>(),
            any::<u16>(),
            any::<u32>(),
            phase,
            maybe(extras()),
        ),
        (
            direction(),
            direction(),
            readiness(),
            readiness(),
            maybe(fault),
        ),
    )
        .prop_map(
            |(first, second, (mut up, mut down, client, target, fault))| {
                let (id, opened, connected, active, leave) = first;
                let ((guarded, bound), header_len, bulk, phase, extras) = second;
                // As they are numbered when they are saved.
                let (mut descriptor, mut at) = (2, 0);
                for direction in [&mut up, &mut down] {
                    let carrier = &mut direction["carrier"];
                    if carrier.get("pipe").is_some() {
                        carrier["pipe"]["read"] = json!(descriptor);
                        carrier["pipe"]["write"] = json!(descriptor + 1);
                        descriptor += 2;
                    } else if let Some(kept) = carrier.get_mut("kept") {
                        kept["at"] = json!(at);
                        at += kept["len"].as_u64().expect("a length");
                    }
                }
                json!({
                    "id": id, "route": 0, "client": 0, "target": 1, "peer": "192.0.2.1:1000",
                    "local": "[fe80::1%3]:5", "opened": opened, "connected": connected,
                    "active": active, "leave": leave, "guarded": guarded, "bound": bound, "header_len": header_len,
                    "bulk": bulk, "phase": phase, "extras": extras,
                    "relay": {
                        "up": up, "down": down, "client": client, "target": target, "fault": fault,
                    },
                })
            },
        )
}

/// Every value in `saved` is in `again` too, unless it is what stands for nothing.
fn holds(saved: &Value, again: Option<&Value>, place: &str) {
    match (saved, again) {
        (Value::Object(fields), Some(Value::Object(again))) => {
            for (name, value) in fields {
                holds(value, again.get(name), &format!("{place}.{name}"));
            }
        }
        (_, Some(again)) => assert_eq!(saved, again, "{place}"),
        (Value::Object(fields), None) => {
            for (name, value) in fields {
                holds(value, None, &format!("{place}.{name}"));
            }
        }
        (Value::Array(values), None) => {
            for value in values {
                holds(value, None, place);
            }
        }
        (value, None) => {
            // `writable` stands for nothing when it is set.
            let nothing = [
                json!(null),
                json!(false),
                json!(0),
                json!("scratch"),
                json!("auto"),
            ];
            let also = [json!("open"), json!("relaying"), json!("nothing")];
            let is_nothing = nothing.contains(value) || also.contains(value);
            assert!(
                is_nothing || place.ends_with(".writable"),
                "{place}: {value} is lost"
            );
        }
    }
}

/// Each name of a field in a value, as a path.
fn fields(value: &Value, place: &[String], found: &mut Vec<Vec<String>>) {
    let Some(object) = value.as_object() else {
        return;
    };
    for (name, value) in object {
        let path = [place, std::slice::from_ref(name)].concat();
        fields(value, &path, found);
        found.push(path);
    }
}

fn at<'v>(value: &'v mut Value, path: &[String]) -> &'v mut Value {
    path.iter().fold(value, |value, name| &mut value[name])
}

proptest! {
    #[test]
    fn every_field_survives(saved in session()) {
        let again = again(&saved).expect("it is as it is saved");
        holds(&saved, Some(&again), "session");
    }

    /// A later version may say more; what an earlier one does not say has a default, or is said to be
    /// missing.
    #[test]
    fn what_is_unknown_is_ignored_and_what_is_missing_is_no_panic(
        saved in session(), pick in any::<prop::sample::Index>(),
    ) {
        let mut paths = Vec::new();
        fields(&saved, &[], &mut paths);
        let path = &paths[pick.index(paths.len())];
        let (name, above) = path.split_last().expect("at least one");
        let mut changed = saved.clone();
        let object = at(&mut changed, above).as_object_mut().expect("it has fields");
        // A variant is named by its only field; serde knows all there is to a duration.
        let is_closed = object.len() == 1 || above.last().is_some_and(|above| above == "pause");
        let value = object.remove(name).expect("it is there");
        if let Err(error) = again(&changed) {
            prop_assert!(error.contains("missing") || error.contains("expected"), "{}", error);
        }
        let object = at(&mut changed, above).as_object_mut().expect("it has fields");
        object.insert(name.clone(), value);
        if !is_closed {
            object.insert("later".to_owned(), json!({ "than": ["this"] }));
        }
        let again = again(&changed).expect("what is unknown is ignored");
        holds(&saved, Some(&again), "session");
    }
}

/// As the first version that hands sessions over says the least.
#[test]
fn an_idle_session_of_the_first_format_is_understood() {
    let saved = json!({
        "id": 7, "route": 0, "client": 0, "target": 1, "peer": "192.0.2.1:1000",
        "opened": 1_000_000_000, "active": 2_000_000_000,
    });
    assert_eq!(again(&saved), Ok(saved));
}

#[test]
fn what_cannot_be_is_refused_and_no_panic() {
    let session = |relay: Value| {
        json!({
            "id": 7, "route": 0, "client": 0, "target": 1, "peer": "192.0.2.1:1000",
            "opened": i64::MIN, "active": i64::MAX, "relay": relay,
        })
    };
    for (relay, error) in [
        (
            json!({ "up": { "delivered": i64::MIN } }),
            "bytes of a session",
        ),
        (json!({ "fault": ["client", 0] }), "fault of a relay"),
        (json!({ "fault": ["client", 5000] }), "fault of a relay"),
        (
            json!({ "up": { "carrier": { "kept": { "at": 999, "len": 2 } } } }),
            "bytes 999",
        ),
        (
            json!({ "up": { "carrier": { "pipe": { "read": 2, "write": 2, "level": 1, "size": 1 } } } }),
            "named twice",
        ),
        (
            json!({ "up": { "carrier": { "pipe": { "read": 2, "write": 3, "level": 1, "size": 0 } } } }),
            "pipe of a session",
        ),
    ] {
        let refused = again(&session(relay)).expect_err("it cannot be");
        assert!(refused.contains(error), "{refused}");
    }
}
