//! What the program is made of: licences that go with its own, crates from the registry, and one
//! version of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    process::Command,
};

use serde_json::Value;

/// Licences that ask for no more than being named.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Crates that are there in several versions. Of syn it is the derive macros of others that have not
/// all moved on to version 3; it is gone when the program runs. The random numbers and the maps of
/// metrics-util, of which the exporter uses little, are older or newer than those of ring and indexmap.
const SEVERAL: &[&str] = &["getrandom", "hashbrown", "syn"];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The packages that are compiled into the program or run to compile it.
fn packages() -> Vec<Value> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version=1"])
        .arg("--filter-platform=x86_64-unknown-linux-gnu")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"]["nodes"])
        .map(|node| (text(&node["id"]), node))
        .collect();
    let root = text(&metadata["resolve"]["root"]);
    let mut reached = BTreeSet::from([root]);
    let mut left = vec![root];
    while let Some(id) = left.pop() {
        for dependency in list(&nodes[id]["deps"]) {
            let mut kinds = list(&dependency["dep_kinds"]);
            if kinds.any(|kind| kind["kind"] != "dev") && reached.insert(text(&dependency["pkg"])) {
                left.push(text(&dependency["pkg"]));
            }
        }
    }
    reached.remove(root);
    list(&metadata["packages"])
        .filter(|package| reached.contains(text(&package["id"])))
        .cloned()
        .collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// Whether an SPDX expression can be fulfilled with [`LICENCES`]. A slash is an old way to say OR.
fn permits(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let permits = any_of(&mut words);
    assert!(words.next().is_none(), "{expression}");
    permits
}

type Words<'w> = std::iter::Peekable<std::str::SplitWhitespace<'w>>;

fn any_of(words: &mut Words<'_>) -> bool {
    let mut permits = all_of(words);
    while words.next_if_eq(&"OR").is_some() {
        permits |= all_of(words);
    }
    permits
}

fn all_of(words: &mut Words<'_>) -> bool {
    let mut permits = one(words);
    while words.next_if_eq(&"AND").is_some() {
        permits &= one(words);
    }
    permits
}

fn one(words: &mut Words<'_>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let permits = any_of(words);
        assert_eq!(words.next(), Some(")"));
        return permits;
    }
    let permits = LICENCES.contains(&words.next().expect("a licence"));
    if words.next_if_eq(&"WITH").is_some() {
        // An exception only permits more.
        words.next();
    }
    permits
}

#[test]
fn expressions_of_licences_are_understood() {
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Unlicense",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(permits(good), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "MIT AND (GPL-3.0 OR MPL-2.0)"] {
        assert!(!permits(bad), "{bad}");
    }
}

#[test]
fn every_crate_is_of_the_registry_and_its_licence_goes_with_ours() {
    for package in packages() {
        let name = text(&package["name"]);
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(permits(licence), "{name} has the licence {licence}");
        assert_eq!(package["source"], REGISTRY, "{name}");
    }
}

#[test]
fn there_is_one_version_of_each_crate() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let name = text(&package["name"]).to_owned();
        let version = text(&package["version"]).to_owned();
        versions.entry(name).or_default().insert(version);
    }
    let several: Vec<&str> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(several, SEVERAL, "of {versions:#?}");
}
