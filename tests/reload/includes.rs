//! A configuration in several files, with values from the environment.

use std::fs;

use rustix::process::Signal;

use super::{
    counts,
    harness::{Proxy, Setup, Target, config, mapping, ports},
    leads_to,
};

#[test]
fn a_mapping_in_a_directory_of_its_own_comes_and_goes_with_its_file() {
    let [main, first, second] = [Target::bind(), Target::bind(), Target::bind()];
    let [main_port, first_port, second_port] = [ports::free(), ports::free(), ports::free()];
    let whole = |include: &str| {
        let include = format!("include = {include}\n");
        config([include, mapping("main", main_port, main.addr(), "")])
    };
    let proxy = Proxy::start(&whole("[]"));
    let path = |name: &str| proxy.dir().join("conf.d").join(name);
    fs::create_dir(proxy.dir().join("conf.d")).expect("own directory");

    let done = proxy.reload(&whole("[\"conf.d/*.toml\"]"));
    assert_eq!(
        counts(&done),
        [0, 0, 0, 0, 1],
        "an empty directory is no mistake"
    );

    fs::write(
        path("20.toml"),
        mapping("two", second_port, second.addr(), ""),
    )
    .expect("space");
    fs::write(
        path("10.toml"),
        mapping("one", first_port, first.addr(), ""),
    )
    .expect("space");
    fs::write(path("30.toml~"), "what an editor left").expect("space");
    assert_eq!(counts(&proxy.reload_file()), [2, 0, 0, 0, 1]);
    leads_to(first_port, &first);
    leads_to(second_port, &second);

    let wrong = mapping("two", second_port, "localhost", "");
    fs::write(path("20.toml"), wrong).expect("space");
    let failed = proxy.reload_file_fails();
    let file = path("20.toml").display().to_string();
    let said = failed.text("error");
    assert!(
        said.contains(&format!(
            "{file}:5:10: mapping \"two\": target: found \"localhost\""
        )),
        "{said}"
    );
    leads_to(second_port, &second);

    fs::remove_file(path("20.toml")).expect("it was there");
    assert_eq!(counts(&proxy.reload_file()), [0, 1, 0, 0, 2]);
    leads_to(first_port, &first);
    leads_to(main_port, &main);
}

#[test]
fn what_variables_say_holds_after_a_reload_and_in_the_next_build() {
    let target = Target::bind();
    let port = ports::free();
    let setup = Setup {
        env: vec![
            ("LISTEN", port.to_string()),
            ("TARGET", target.addr().to_string()),
            ("FREEBIND", "true".to_owned()),
        ],
        ..Setup::default()
    };
    let more = "max_sessions = \"${MOST:-40}\"\nfreebind = \"${FREEBIND}\"\n";
    let text = config([mapping("m", "${LISTEN}", "${TARGET}", more)]);
    let proxy = Proxy::start_with(&setup, &text);
    leads_to(port, &target);
    assert_eq!(counts(&proxy.reload_file()), [0, 0, 0, 0, 1]);
    let from = proxy.log().len();
    proxy.signal(Signal::USR2);
    proxy.wait_for_line(from, "upgraded");
    assert_eq!(counts(&proxy.reload_file()), [0, 0, 0, 0, 1]);
    let failed = proxy.reload_fails(&text.replace("${MOST:-40}", "${MOST}"));
    let said = failed.text("error");
    assert!(
        said.contains("mapping \"m\": max_sessions: the environment variable MOST is not set"),
        "{said}"
    );
    leads_to(port, &target);
}
