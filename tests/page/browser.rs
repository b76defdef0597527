//! A browser that does as it is told, over the pipe it has for debuggers.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use serde_json::{Value, json};

use crate::{
    chromium,
    harness::{DEADLINE, TempDir, process::Running, wait_until},
};

/// A browser that shows a page.
pub struct Browser {
    // Fields are dropped in this order, and the browser writes into its profile to the end.
    _running: Running,
    orders: ChildStdin,
    answers: Receiver<Value>,
    session: Option<String>,
    asked: u64,
    _profile: TempDir,
}

impl Browser {
    /// Has it show that page.
    #[track_caller]
    pub fn open(url: &str) -> Self {
        let profile = TempDir::new();
        let browser = chromium(&profile);
        let mut command = Command::new("sh");
        command
            // Descriptors 3 and 4 are where it takes orders and answers.
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >&2", "sh"])
            .arg(browser.get_program())
            .args(browser.get_args())
            .args(["--remote-debugging-pipe", "--window-size=500,900"])
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut running = Running::start(&mut command);
        let orders = running.child().stdin.take().expect("asked for");
        let written = running.child().stdout.take().expect("asked for");
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(written).split(0) {
                let message = message.map(|bytes| serde_json::from_slice(&bytes));
                let Ok(Ok(message)) = message else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            _running: running,
            orders,
            answers,
            session: None,
            asked: 0,
            _profile: profile,
        };
        let target = browser.order("Target.createTarget", json!({ "url": "about:blank" }));
        let target = &target["targetId"];
        let attach = json!({ "targetId": target, "flatten": true });
        let session = browser.order("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        // It answers when it has moved on to the page, so that nothing is asked of the one before.
        browser.order("Page.navigate", json!({ "url": url }));
        browser
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let question = json!({ "expression": expression, "returnByValue": true });
        let answer = self.order("Runtime.evaluate", question);
        assert!(answer["exceptionDetails"].is_null(), "{answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression in the page has that value.
    #[track_caller]
    pub fn comes_to(&mut self, expression: &str, value: impl Into<Value>) {
        let value = value.into();
        wait_until(expression, || self.value(expression) == value);
    }

    /// Has the page be so wide, in a colour scheme.
    #[track_caller]
    pub fn shows_as(&mut self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 1800, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.order("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.order(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        );
    }

    /// Keeps what is seen, for whoever wants to look.
    #[track_caller]
    pub fn screenshot(&mut self, path: &Path) {
        let image = self.order("Page.captureScreenshot", json!({}));
        let image = image["data"].as_str().expect("an image").to_owned();
        let file = File::create(path).expect("a file of our own");
        let mut decode = Command::new("base64");
        let mut decode = Running::start(decode.arg("-d").stdin(Stdio::piped()).stdout(file));
        let mut input = decode.child().stdin.take().expect("asked for");
        input.write_all(image.as_bytes()).expect("it is read");
        drop(input);
        assert!(decode.wait().success());
    }

    #[track_caller]
    fn order(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut order = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(session) = &self.session {
            order["sessionId"] = json!(session);
        }
        write!(self.orders, "{order}\0").expect("it takes orders");
        loop {
            let answer = self
                .answers
                .recv_timeout(DEADLINE)
                .unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }
}
