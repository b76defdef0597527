//! The OpenAPI document in `config/openapi.json`, generated from the list of operations and from
//! the types of the documents, and compared with the file.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::model;
use crate::admin::{Access, OPERATIONS, metrics::Format};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/openapi.json");

/// What an operation takes and gives.
struct Shape {
    parameters: Value,
    body: Option<Value>,
    answer: Value,
    /// The content of a 503 that is no failure.
    unready: Option<Value>,
}

fn shape(path: &str, schemas: &mut SchemaGenerator) -> Shape {
    fn of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
        schemas.subschema_for::<T>().to_value()
    }
    let json = |schema: Value| json!({ "application/json": { "schema": schema } });
    let text = |media_type: &str| json!({ media_type: schema("string") });
    let mut parameters = Vec::new();
    let mut body = None;
    let mut unready = None;
    let answer = match path {
        "/" => text("text/html"),
        "/livez" => text("text/plain"),
        "/metrics" => {
            let mut formats = Map::new();
            for format in Format::ALL {
                formats.insert(format.name().to_owned(), schema("string"));
            }
            formats.into()
        }
        "/readyz" => {
            let ready = json(of::<model::Ready>(schemas));
            unready = Some(ready.clone());
            ready
        }
        "/api/v1/status" => json(of::<model::Status>(schemas)),
        "/api/v1/mappings" => {
            parameters = query::<model::MappingQuery>(schemas);
            json(of::<model::Mappings>(schemas))
        }
        "/api/v1/sessions" => {
            parameters = query::<model::SessionQuery>(schemas);
            json(of::<model::Sessions>(schemas))
        }
        "/api/v1/config" => json(json!({
            "type": "object",
            "description": "The document that `tml-proxy check --json` prints",
        })),
        "/api/v1/endpoints" => {
            parameters = query::<model::EndpointQuery>(schemas);
            json(of::<model::Endpoints>(schemas))
        }
        "/api/v1/fleet" => json(of::<model::Fleet>(schemas)),
        "/api/v1/events" => {
            parameters = query::<model::EventQuery>(schemas);
            json(of::<model::Events>(schemas))
        }
        "/api/v1/sessions/kill" => {
            body = Some(of::<model::Kill>(schemas));
            json(of::<model::Killed>(schemas))
        }
        "/api/v1/mappings/pause" | "/api/v1/mappings/drain" | "/api/v1/mappings/resume" => {
            body = Some(of::<model::MappingChange>(schemas));
            json(of::<model::MappingState>(schemas))
        }
        "/api/v1/reload" => json(of::<model::Reloaded>(schemas)),
        "/api/v1/upgrade" => {
            body = Some(of::<model::Upgrade>(schemas));
            json(of::<model::UpgradeBegun>(schemas))
        }
        "/api/v1/log/level" => {
            body = Some(of::<model::Level>(schemas));
            json(of::<model::Level>(schemas))
        }
        other => panic!("what does {other} give?"),
    };
    Shape {
        parameters: parameters.into(),
        body,
        answer,
        unready,
    }
}

fn schema(kind: &str) -> Value {
    json!({ "schema": { "type": kind } })
}

/// The fields of a query as parameters; one that may be left out has a type beside `null`.
fn query<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Vec<Value> {
    let mut query = T::json_schema(schemas).to_value();
    let fields = query["properties"].as_object_mut().expect("it has fields");
    let parameter = |(name, field): (&String, &mut Value)| {
        let description = field["description"].take();
        let kind = match &field["type"] {
            Value::Array(kinds) => kinds[0].clone(),
            kind => kind.clone(),
        };
        let schema = match kind {
            Value::Null => json!({ "$ref": field["$ref"] }),
            kind => json!({ "type": kind }),
        };
        json!({ "name": name, "in": "query", "description": description, "schema": schema })
    };
    fields.iter_mut().map(parameter).collect()
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let failure = schemas.subschema_for::<model::Failure>().to_value();
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let shape = shape(operation.path, &mut schemas);
        let where_served = match operation.access {
            Access::Read => "On the unix socket and on TCP.",
            Access::Write => "On the unix socket only.",
        };
        let (done, said) = match operation.path {
            "/api/v1/upgrade" => ("202", "It begins"),
            _ => ("200", "Done"),
        };
        let mut described = json!({
            "summary": operation.summary,
            "description": where_served,
            "parameters": shape.parameters,
            "responses": {
                done: { "description": said, "content": shape.answer },
                "default": {
                    "description": "Not done, and why; 4xx is the request's fault, 5xx the proxy's",
                    "content": { "application/json": { "schema": failure } },
                },
            },
        });
        if let Some(unready) = shape.unready {
            described["responses"]["503"] =
                json!({ "description": "Not now, and why", "content": unready });
        }
        if let Some(body) = shape.body {
            described["requestBody"] = json!({
                "required": true,
                "content": { "application/json": { "schema": body } },
            });
        }
        let method = operation.method.to_lowercase();
        paths.insert(operation.path.to_owned(), json!({ method: described }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tml-proxy admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

#[test]
fn every_answer_of_a_probe_and_of_a_scrape_is_described() {
    let document = document();
    let ready = &document["paths"]["/readyz"]["get"]["responses"];
    assert!(ready["503"]["content"].is_object(), "{ready}");
    assert_eq!(ready["503"]["content"], ready["200"]["content"]);
    let metrics = &document["paths"]["/metrics"]["get"]["responses"]["200"]["content"];
    for media_type in ["text/plain", "application/openmetrics-text"] {
        assert!(metrics[media_type].is_object(), "{metrics}");
    }
}

#[test]
fn the_document_describes_what_is_served() {
    let mut expected = serde_json::to_string_pretty(&document()).expect("JSON");
    expected.push('\n');
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(DOCUMENT, &expected).expect("the document can be written");
    }
    let actual = std::fs::read_to_string(DOCUMENT).expect("the document exists");
    let actual: Value = serde_json::from_str(&actual).expect("JSON");
    assert!(
        actual == document(),
        "{DOCUMENT} is out of date; UPDATE=1 renews it"
    );
}
