//! The NixOS module: what it makes of options, without nixpkgs.

mod harness;

use std::{path::Path, process::Command};

use harness::{
    TempDir, process,
    proxy::PROGRAM,
    require::{Need, require},
};
use serde_json::Value;

const SETTINGS: &str = r#"{
    targets.allow = [ "fd9d:773b:e6f8::/48" ];
    process.shutdown_timeout = "1m";
    mapping = [
        { name = "board-14"; listen = 22014; target = "[fd9d:773b:e6f8:cafe::14]:22"; }
        { name = "lab"; listen = [ "127.0.0.1:22100-22199" 22300 ]; target = "[fd9d:773b:e6f8:cafe::10]:3000"; }
    ];
}"#;

/// What the module comes to with further arguments.
fn evaluated(arguments: &[&str]) -> Value {
    let expression = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nix/evaluate.nix");
    let mut command = Command::new("nix-instantiate");
    // No store is needed to evaluate, nor a daemon.
    command.args(["--store", "dummy://", "--eval", "--strict", "--json"]);
    command
        .arg(expression)
        .args(["--arg", "settings", SETTINGS]);
    let json = process::succeed(command.args(arguments));
    serde_json::from_str(&json).expect("it was asked for JSON")
}

#[test]
fn an_update_of_nixpkgs_or_of_the_package_leaves_the_unit_as_it_is() {
    if !require(&[Need::Tool("nix-instantiate")]) {
        return;
    }
    let before = evaluated(&[]);
    let after = evaluated(&["--argstr", "package", "/nix/store/two"]);
    assert_eq!(before["units"], after["units"]);
    let unit = before["units"][0]["text"].as_str().expect("a text");
    assert!(!unit.contains("/nix/store"), "{unit}");
    let program = "/run/current-system/sw/bin/tml-proxy";
    for line in [
        format!("ExecStart={program} run --config /etc/tml-proxy/tml-proxy.toml\n"),
        format!("ExecReload={program} upgrade --if-changed\nExecReload={program} reload\n"),
    ] {
        assert!(unit.contains(&line), "{unit}");
    }
    // NixOS would put paths in the store there.
    let service = &before["service"];
    assert_eq!(service["enableDefaultPath"], false);
    assert_eq!(service["environment"]["TZDIR"], Value::Null);
    assert_eq!(service["environment"]["LOCALE_ARCHIVE"], Value::Null);
    // Only what a reload is for differs.
    let (mut old, mut new) = (service.clone(), after["service"].clone());
    assert_ne!(old["reloadTriggers"].take(), new["reloadTriggers"].take());
    assert_eq!(old, new);
    assert_eq!(before["environment"]["systemPackages"][0], "/nix/store/one");
    assert_eq!(after["environment"]["systemPackages"][0], "/nix/store/two");
}

#[test]
fn the_settings_become_a_file_that_is_checked_before_anything_changes() {
    if !require(&[Need::Tool("nix-instantiate")]) {
        return;
    }
    let made = evaluated(&["--arg", "operators", "[ \"maria\" ]"]);
    let file = &made["environment"]["etc"]["tml-proxy/tml-proxy.toml"]["source"];
    let build = file.as_str().expect("a text");
    assert!(
        build.contains("/nix/store/one/bin/tml-proxy check --config "),
        "{build}"
    );
    assert_eq!(made["users"]["groups"]["tml-proxy"]["members"][0], "maria");

    let dir = TempDir::new();
    let path = dir.join("tml-proxy.toml");
    std::fs::write(&path, made["toml"].as_str().expect("a text")).expect("own directory");
    let mut check = Command::new(PROGRAM);
    let listed = process::succeed(check.args(["check", "--config"]).arg(&path));
    assert!(
        listed.contains("[fd9d:773b:e6f8:cafe::10]:3000-3099"),
        "{listed}"
    );
}
