//! JSON schemas of the kinds.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;

use super::{As, Json, Kind};

/// A text that matches.
pub(crate) fn text(pattern: &str) -> Json {
    json!({ "type": "string", "pattern": pattern })
}

/// One of these words.
pub(crate) fn words(words: &[&str]) -> Json {
    json!({ "enum": words })
}

/// One of both.
pub(crate) fn or(one: Json, other: Json) -> Json {
    let mut all = Vec::new();
    for schema in [one, other] {
        match schema.get("anyOf").and_then(Json::as_array) {
            Some(more) => all.extend(more.clone()),
            None => all.push(schema),
        }
    }
    json!({ "anyOf": all })
}

/// The schema of a table.
pub(crate) fn table<T: JsonSchema>() -> Json {
    let mut schema = SchemaGenerator::default()
        .into_root_schema_for::<T>()
        .to_value();
    if let Some(keys) = schema.as_object_mut() {
        keys.remove("$schema");
        keys.remove("title");
        keys.insert("additionalProperties".to_owned(), false.into());
    }
    schema
}

impl<K: Kind> JsonSchema for As<K> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "setting".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(K::schema()).expect("a kind's schema is an object")
    }
}
