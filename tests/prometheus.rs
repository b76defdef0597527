//! What comes with the proxy for Prometheus and Grafana, checked with their own tools and against
//! what the proxy exports.

mod harness;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use harness::{
    Scene, TempDir, metrics, ports, process,
    process::Running,
    require::{Need, require},
    wait_until,
};
use serde_json::Value;
use tml_proxy::telemetry::metric::{ALL, Kind};

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(path)
}

fn promtool(arguments: &[&str], file: &Path) {
    process::succeed(Command::new("promtool").args(arguments).arg(file));
}

#[test]
fn the_rules_are_valid_and_fire_when_they_should() {
    if !require(&[Need::Tool("promtool")]) {
        return;
    }
    promtool(
        &["check", "rules"],
        &shipped("prometheus/tml-proxy.rules.yml"),
    );
    promtool(
        &["test", "rules"],
        &shipped("prometheus/tml-proxy.rules.test.yml"),
    );
    promtool(&["check", "config"], &shipped("prometheus/scrape.yml"));
}

#[test]
fn the_mixin_has_the_same_rules_and_panels_for_a_job_of_another_name() {
    if !require(&[Need::Tool("promtool"), Need::PythonModule("_jsonnet")]) {
        return;
    }
    let dir = TempDir::new();
    let mixin = shipped("prometheus/mixin.libsonnet");
    let source = dir.write(
        "all.jsonnet",
        format!(
            "local mixin = (import '{}') + {{ _config+:: {{ tmlProxyJob: 'proxies' }} }};
            {{
              rules: {{ groups: mixin.prometheusRules.groups + mixin.prometheusAlerts.groups }},
              dashboards: mixin.grafanaDashboards,
            }}",
            mixin.display()
        ),
    );
    let evaluate = "import _jsonnet, sys; print(_jsonnet.evaluate_file(sys.argv[1]))";
    let made = process::succeed(Command::new("python3").args(["-c", evaluate]).arg(&source));
    assert!(!made.contains("tml-proxy\\\""), "the job of before is left");
    let made: Value = serde_json::from_str(&made).expect("JSON");

    let file = dir.write("rules.json", made["rules"].to_string());
    promtool(&["check", "rules"], &file);
    let names = |text: &str| -> BTreeSet<String> {
        let names = text.lines().filter_map(|line| {
            let (key, name) = line.trim_start_matches([' ', '-']).split_once(": ")?;
            ["alert", "record"].contains(&key).then(|| name.to_owned())
        });
        names.collect()
    };
    let rules = fs::read_to_string(shipped("prometheus/tml-proxy.rules.yml")).expect("rules");
    let groups = made["rules"]["groups"].as_array().expect("groups");
    let rules_made = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"));
    let names_made = rules_made.map(|rule| {
        let name = rule.get("alert").or(rule.get("record"));
        name.and_then(Value::as_str).expect("a name").to_owned()
    });
    assert_eq!(names_made.collect::<BTreeSet<_>>(), names(&rules));

    let dashboard = &made["dashboards"]["tml-proxy.json"];
    let shipped = fs::read_to_string(shipped("grafana/tml-proxy.json")).expect("a dashboard");
    let shipped = shipped.replace(r#"job=\"tml-proxy\""#, r#"job=\"proxies\""#);
    let shipped: Value = serde_json::from_str(&shipped).expect("JSON");
    assert_eq!(*dashboard, shipped);
}

#[test]
fn promtool_has_nothing_against_the_page() {
    if !require(&[Need::Tool("promtool")]) {
        return;
    }
    let scene = Scene::new("");
    drop(scene.pair());
    scene.proxy.settles();
    let (_, page) = scene.proxy.page("/metrics");
    let dir = TempDir::new();
    let file = dir.write("page", page);
    let input = fs::File::open(file).expect("just written");
    let mut command = Command::new("promtool");
    let output = command
        .args(["check", "metrics"])
        .stdin(Stdio::from(input))
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    scene.finish();
}

#[test]
fn every_series_in_rules_and_dashboard_exists() {
    let rules = fs::read_to_string(shipped("prometheus/tml-proxy.rules.yml")).expect("rules");
    let dashboard = fs::read_to_string(shipped("grafana/tml-proxy.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 20, "{queries:?}");
    let expressions: Vec<String> = rules.lines().map(str::to_owned).collect();
    let mut seen = 0;
    for query in queries.iter().chain(&expressions) {
        for name in names(query) {
            assert!(exists(name), "{name} in {query}");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

/// The variables of the dashboard, as a query has them.
const VARIABLES: [&str; 3] = ["$instance", "$mapping", "$__rate_interval"];

/// No Grafana is at hand: what it would say nothing of is checked here.
#[test]
fn every_panel_of_the_dashboard_has_its_place_and_queries_that_prometheus_takes() {
    if !require(&[Need::Tool("promtool")]) {
        return;
    }
    let dashboard = fs::read_to_string(shipped("grafana/tml-proxy.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value}"));
    let mut variables: Vec<String> = list(&dashboard["templating"]["list"])
        .iter()
        .map(|variable| format!("${}", variable["name"].as_str().expect("a name")))
        .collect();
    variables.sort();
    assert_eq!(variables, ["$datasource", "$instance", "$mapping"]);
    let (mut ids, mut taken, mut rules) = (BTreeSet::new(), BTreeSet::new(), String::new());
    for panel in list(&dashboard["panels"]) {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            ids.insert(number(&panel["id"])),
            "{title}: its id is another's"
        );
        let place = &panel["gridPos"];
        let [x, y, width, height] = ["x", "y", "w", "h"].map(|key| number(&place[key]));
        assert!(
            width > 0 && height > 0 && x + width <= 24,
            "{title}: {place}"
        );
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies over another at {cell:?}");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = list(&panel["targets"]);
        assert!(!targets.is_empty(), "{title}");
        let mut references = BTreeSet::new();
        for target in &targets {
            let reference = target["refId"].as_str().expect("a reference");
            assert!(
                references.insert(reference.to_owned()),
                "{title}: {reference}"
            );
            let mut query = target["expr"].as_str().expect("a query").to_owned();
            for (variable, value) in VARIABLES.into_iter().zip(["i", "m", "1m"]) {
                query = query.replace(variable, value);
            }
            assert!(!query.contains('$'), "{title}: {query}");
            let rule = format!("panel:{}:{reference}", panel["id"]);
            rules.push_str(&format!(
                "  - record: {rule}\n    expr: {}\n",
                Value::from(query)
            ));
        }
    }
    let dir = TempDir::new();
    let text = format!("groups:\n- name: dashboard\n  rules:\n{rules}");
    promtool(&["check", "rules"], &dir.write("dashboard.yml", &text));
}

#[test]
fn every_alert_is_seen_to_fire() {
    let words = |file: &str, key: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(shipped(file)).expect("shipped");
        let lines = text.lines().filter_map(|line| line.split_once(key));
        lines.map(|(_, name)| name.trim().to_owned()).collect()
    };
    let rules = words("prometheus/tml-proxy.rules.yml", "- alert:");
    let tested = words("prometheus/tml-proxy.rules.test.yml", "- alertname:");
    assert_eq!(rules, tested);
}

/// Every query of a dashboard.
fn collect(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" || name == "definition" => {
                        queries.push(text.to_owned());
                    }
                    _ => collect(value, queries),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, queries)),
        _ => {}
    }
}

/// The names in a query that look like ours. Those of recording rules have colons and are made
/// here, not exported.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    query
        .split(move |c| !is_part(c))
        .filter(|word| word.starts_with("tml_proxy_") || word.starts_with("process_"))
        .filter(|word| !word.contains(':'))
}

fn exists(name: &str) -> bool {
    ALL.iter().any(|series| match series.kind {
        Kind::Histogram(_) => name
            .strip_prefix(series.name)
            .is_some_and(|suffix| ["_bucket", "_sum", "_count"].contains(&suffix)),
        Kind::Counter | Kind::Gauge => series.name == name,
    })
}

/// Prometheus with what comes with the proxy and the `more` arguments, and how to ask it.
fn prometheus(scene: &Scene, dir: &TempDir, more: &[&str]) -> (Running, SocketAddr) {
    let admin = scene.proxy.admin();
    let rules = fs::read_to_string(shipped("prometheus/tml-proxy.rules.yml")).expect("rules");
    dir.write("tml-proxy.rules.yml", rules);
    let scrape = fs::read_to_string(shipped("prometheus/scrape.yml")).expect("a configuration");
    let scrape = scrape
        .replace("127.0.0.1:9422", &admin.to_string())
        .replace(
            "scrape_interval: 15s",
            "scrape_interval: 200ms\n    scrape_timeout: 200ms",
        );
    let global = "global:\n  evaluation_interval: 200ms\n";
    let file = dir.write("prometheus.yml", format!("{global}{scrape}"));
    let web = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let running = Running::start(
        Command::new("prometheus")
            .args(more)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg(format!("--web.listen-address={web}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    (running, web)
}

fn value(web: SocketAddr, query: &str) -> Option<f64> {
    let (_, body) = metrics::get(web, &format!("/api/v1/query?query={query}")).ok()?;
    let answer: Value = serde_json::from_str(&body).ok()?;
    answer["data"]["result"][0]["value"][1]
        .as_str()?
        .parse()
        .ok()
}

#[test]
fn a_real_prometheus_scrapes_the_proxy_and_evaluates_the_rules() {
    if !require(&[Need::Tool("prometheus")]) {
        return;
    }
    let scene = Scene::new("");
    let (mut client, mut server) = scene.pair();
    let dir = TempDir::new();
    let (_prometheus, web) = prometheus(&scene, &dir, &[]);
    let value = |query: &str| value(web, query);
    wait_until("a scrape", || value("up") == Some(1.0));
    wait_until("the session", || {
        value("tml_proxy_sessions_open") == Some(1.0)
    });
    wait_until("a recording rule above 0", || {
        client.exchange(&mut server, b"something to count");
        value("instance:tml_proxy_bytes:rate5m").is_some_and(|rate| rate > 0.0)
    });
    let (_, rules) = metrics::get(web, "/api/v1/rules").expect("it serves");
    assert!(!rules.contains("\"health\":\"err\""), "{rules}");
    assert!(rules.contains("TmlProxyTargetFailing"), "{rules}");
}

#[test]
fn a_prometheus_that_wants_native_histograms_gets_them() {
    if !require(&[Need::Tool("prometheus")]) {
        return;
    }
    let scene = Scene::new("");
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"something to count");
    let dir = TempDir::new();
    let (_prometheus, web) = prometheus(&scene, &dir, &["--enable-feature=native-histograms"]);
    let value = |query: &str| value(web, query);
    let latency = "tml_proxy_connect_latency_seconds";
    wait_until("the connection in a native histogram", || {
        value(&format!("histogram_count({latency})")) == Some(1.0)
    });
    let sum = value(&format!("histogram_sum({latency})")).expect("a sum");
    let all = value(&format!("histogram_fraction(-1,3600,{latency})")).expect("a share");
    assert!(sum > 0.0 && all == 1.0, "{sum} {all}");
    for (query, expected) in [
        ("tml_proxy_sessions_open", 1.0),
        ("tml_proxy_mappings", 1.0),
        ("tml_proxy_bytes_total{direction=\"up\"}", 18.0),
        ("tml_proxy_config_reload_success", 1.0),
    ] {
        wait_until(query, || value(query) == Some(expected));
    }
    assert!(value("process_cpu_seconds_total").is_some());
}
