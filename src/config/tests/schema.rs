//! `config/tml-proxy.schema.json` is what the reader takes, not what somebody remembers of it.

use std::{fs, path::Path};

use schemars::JsonSchema;
use serde_json::{Map, json};
use toml::de::{DeTable, DeValue};

use super::{Admin, Log, Process, SCHEMA, Targets, settings::Includes};
use crate::{
    config::mapping::{Keys, REQUIRED},
    fleet::Fleet,
    limit::{Limits, SessionLimits},
    manual::TOPICS,
    provider::switchboard::Switchboard,
    resolve::Asking,
    setting::{Json, schema::table},
    table::{Policy, SourceLists},
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/tml-proxy.schema.json");
const REFERENCE: &str = include_str!("../../../config/tml-proxy.toml");
const README: &str = include_str!("../../../README.md");

/// The keys of a struct.
fn keys<T: JsonSchema>() -> Map<String, Json> {
    match table::<T>().get_mut("properties").map(Json::take) {
        Some(Json::Object(keys)) => keys,
        other => panic!("a struct has keys: {other:?}"),
    }
}

/// The same without defaults: what is left out is as somewhere else.
fn inherited(mut keys: Map<String, Json>) -> Map<String, Json> {
    for schema in keys.values_mut() {
        schema.as_object_mut().expect("a schema").remove("default");
    }
    keys
}

/// A table with the keys of several structs.
fn merged(parts: impl IntoIterator<Item = Map<String, Json>>, required: &[&str]) -> Json {
    let keys: Map<_, _> = parts.into_iter().flatten().collect();
    json!({
        "type": "object",
        "properties": keys,
        "required": required,
        "additionalProperties": false,
    })
}

fn policy() -> [Map<String, Json>; 3] {
    [
        keys::<Policy>(),
        keys::<SourceLists>(),
        keys::<SessionLimits>(),
    ]
}

fn generated() -> Json {
    let switchboard = table::<Switchboard>();
    let required = switchboard["required"].as_array().expect("keys").iter();
    let required: Vec<_> = required.filter_map(Json::as_str).collect();
    let of_policy = policy().map(inherited);
    let of_jobs = [keys::<Switchboard>()].into_iter().chain(of_policy.clone());
    let of_mapping = [inherited(keys::<Keys>())].into_iter().chain(of_policy);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of tml-proxy",
        "type": "object",
        "required": ["version"],
        "additionalProperties": false,
        "properties": {
            "include": keys::<Includes>()["include"],
            "version": { "description": "The version of this format.", "const": super::VERSION },
            "process": table::<Process>(),
            "admin": table::<Admin>(),
            "log": table::<Log>(),
            "targets": table::<Targets>(),
            "resolver": table::<Asking>(),
            "limits": merged([keys::<Limits>(), keys::<SessionLimits>()], &[]),
            "defaults": merged(policy(), &[]),
            "switchboard": merged(of_jobs, &required),
            "fleet": table::<Fleet>(),
            "mapping": { "type": "array", "items": merged(of_mapping, &REQUIRED) },
        },
    });
    allow_variables(&mut schema);
    schema["$defs"] = json!({
        "variable": {
            "description": "A variable of the environment, or text with one: ${NAME}, ${NAME:-default}.",
            "type": "string",
            "pattern": "\\$\\{",
        },
    });
    schema
}

/// Whatever is no list and no table may come from a variable.
fn allow_variables(schema: &mut Json) {
    let variable = json!({ "$ref": "#/$defs/variable" });
    let Some(words) = schema.as_object_mut() else {
        return;
    };
    if let Some(any) = words.get_mut("anyOf").and_then(Json::as_array_mut) {
        any.iter_mut().for_each(allow_variables_below);
        any.push(variable);
        return;
    }
    let is_plain = |key: &str| key != "description" && key != "default";
    if matches!(
        words.get("type").and_then(Json::as_str),
        Some("array" | "object")
    ) {
        allow_variables_below(schema);
        return;
    }
    let own: Vec<_> = words.keys().filter(|key| is_plain(key)).cloned().collect();
    let own: Map<_, _> = own
        .into_iter()
        .filter_map(|key| words.remove_entry(&key))
        .collect();
    words.insert("anyOf".to_owned(), json!([own, variable]));
}

/// The same for what is in a list or a table.
fn allow_variables_below(schema: &mut Json) {
    if let Some(items) = schema.get_mut("items") {
        allow_variables(items);
    }
    let keys = schema.get_mut("properties").and_then(Json::as_object_mut);
    for (key, of_key) in keys.into_iter().flatten() {
        if key != "version" {
            allow_variables(of_key);
        }
    }
}

#[test]
fn the_schema_in_the_repository_is_that_of_the_program() {
    let now = serde_json::to_string_pretty(&generated()).expect("JSON") + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(FILE, &now).expect("the repository is writable");
    }
    let written = fs::read_to_string(FILE).expect("it is in the repository");
    assert!(written == now, "{FILE} is out of date; UPDATE=1 renews it");
    assert_eq!(SCHEMA, written);
}

/// What a schema says against a value, of the words that the schema above is made of but patterns.
fn refusal(schema: &Json, value: &Json, at: &str) -> Option<String> {
    let wrong = |why: &str| Some(format!("{at}: {why}"));
    if schema["$ref"] == "#/$defs/variable" {
        let is_variable = value.as_str().is_some_and(|text| text.contains("${"));
        return (!is_variable).then(|| format!("{at}: no variable"));
    }
    if let Some(any) = schema["anyOf"].as_array()
        && any.iter().all(|one| refusal(one, value, at).is_some())
    {
        return wrong("nothing of what is allowed");
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return wrong("another word");
    }
    if let Some(only) = schema.get("const")
        && only != value
    {
        return wrong("another value");
    }
    let of_type = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    };
    if !of_type {
        return wrong("another type");
    }
    let number = value.as_i64();
    let below = number < schema["minimum"].as_i64().or(number);
    let above = number > schema["maximum"].as_i64().or(number);
    if below || above {
        return wrong("out of range");
    }
    if let Some(items) = value.as_array() {
        let mut refused = items
            .iter()
            .filter_map(|item| refusal(&schema["items"], item, at));
        return refused.next();
    }
    let table = value.as_object()?;
    let of_key = table.iter().find_map(|(key, value)| {
        let at = format!("{at}.{key}");
        match schema["properties"].get(key) {
            Some(schema) => refusal(schema, value, &at),
            None if schema["additionalProperties"] == false => Some(format!("{at}: unknown")),
            None => None,
        }
    });
    let required = schema["required"].as_array().into_iter().flatten();
    let missing = || {
        required
            .filter_map(Json::as_str)
            .find(|key| !table.contains_key(*key))
    };
    of_key.or_else(|| wrong(&format!("{} is missing", missing()?)))
}

fn json_of(value: &DeValue<'_>) -> Json {
    let table = |table: &DeTable<'_>| {
        let keys = table.iter();
        let keys = keys.map(|(key, value)| (key.get_ref().to_string(), json_of(value.get_ref())));
        Json::Object(keys.collect())
    };
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Array(items) => items.iter().map(|item| json_of(item.get_ref())).collect(),
        DeValue::Table(keys) => table(keys),
        other => panic!("no setting is {other:?}"),
    }
}

fn check(text: &str) -> Option<String> {
    let table = DeTable::parse(text).expect("TOML").into_inner();
    let schema: Json = serde_json::from_str(SCHEMA).expect("JSON");
    refusal(&schema, &json_of(&DeValue::Table(table)), "")
}

#[test]
fn the_reference_and_its_examples_are_what_the_schema_allows() {
    assert_eq!(check(REFERENCE), None);
    assert_eq!(check(&super::reference::uncommented(REFERENCE)), None);
}

#[test]
fn the_examples_of_the_readme_and_the_manual_are_what_the_schema_allows() {
    let mut examples = 0;
    let texts = TOPICS.iter().map(|topic| topic.text).chain([README]);
    for block in texts.flat_map(|text| text.split("```toml\n").skip(1)) {
        let example = block.split("```").next().unwrap_or_default();
        let version = if example.contains("version = ") {
            ""
        } else {
            "version = 1\n"
        };
        // Some show a part of a section.
        let refused = check(&format!("{version}{example}"));
        let refused = refused.filter(|why| !why.ends_with("is missing"));
        assert_eq!(refused, None, "{example}");
        examples += 1;
    }
    assert!(examples > 3, "{examples} examples");
}

#[test]
fn what_the_reader_refuses_is_not_what_the_schema_allows() {
    for (text, at) in [
        ("x = 1", ".x: unknown"),
        ("[process]\nworkers = 65", ".process.workers: nothing"),
        ("[process]\nbulk_nice = 20", ".process.bulk_nice: nothing"),
        ("[process]\nsplice = 1", ".process.splice: nothing"),
        ("[log]\nlevel = \"loud\"", ".log.level: nothing"),
        ("[limits]\nban = { after = 1 }", ".limits.ban: nothing"),
        (
            "[defaults]\nidle_timout = 0",
            ".defaults.idle_timout: unknown",
        ),
        (
            "[defaults]\nallow = \"10.0.0.0/8\"",
            ".defaults.allow: another type",
        ),
        (
            "[switchboard]\nurl = \"https://s\"",
            ".switchboard: token_file is missing",
        ),
        (
            "[[mapping]]\nname = \"a\"\nlisten = 1",
            ".mapping: target is missing",
        ),
        (
            "[[mapping]]\nname = \"a\"\nlisten = 0\ntarget = \"10.0.0.1:1\"",
            ".mapping.listen: nothing",
        ),
    ] {
        let text = format!("version = 1\n{text}\n");
        let found = check(&text).unwrap_or_default();
        assert!(found.starts_with(at), "{found}");
        assert!(super::parse(&text, Path::new("f")).is_err(), "{text}");
    }
}
