//! A real Chromium without a window, by `WebDriver` (<https://www.w3.org/TR/webdriver2/>): JSON over HTTP, which
//! `ureq` speaks already.

use crate::deadline::{PATIENCE, eventually};
use crate::process::{Process, Sink};
use crate::requirement::program;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// A browser with one window; it is closed when this goes.
#[derive(Debug)]
pub struct Browser {
    // Ends before its folder goes.
    _driver: Process,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one whose window is so large; `dark` is what the user prefers.
    pub fn start(width: u32, height: u32, dark: bool) -> Self {
        let profile = tempfile::tempdir().expect("the folder for temporary files is writable");
        // It cannot tell which port it was given for 0. One that was free a moment ago is very likely still.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("loopback has a free port")
            .port();
        let output = Sink::new();
        let driver = Process::spawn(
            Command::new(program("chromedriver").expect("the test requires chromedriver"))
                .arg(format!("--port={port}"))
                .env("HOME", profile.path())
                .stdin(Stdio::null())
                .stdout(output.stdio())
                .stderr(output.stdio()),
        );
        let driver_url = format!("http://127.0.0.1:{port}");
        eventually("chromedriver is ready", || {
            let answer = ask("GET", &format!("{driver_url}/status"), &Value::Null)?;
            if answer["ready"] == true { Ok(()) } else { Err(answer.to_string()) }
        });
        let mut options = vec![
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--no-proxy-server".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.path().join("profile").display()),
        ];
        if dark {
            options.push("--force-dark-mode".to_owned());
        }
        let chromium = program("chromium").expect("the test requires chromium");
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium, "args": options},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let answer = ask("POST", &format!("{driver_url}/session"), &wanted)
            .unwrap_or_else(|error| panic!("start chromium: {error}"));
        let id = answer["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}"));
        let browser = Self {
            session: format!("{driver_url}/session/{id}"),
            _driver: driver,
            _profile: profile,
        };
        let scheme = if dark { "dark" } else { "light" };
        let feature = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        browser.devtools("Emulation.setEmulatedMedia", &json!({"features": feature}));
        browser
    }

    /// Goes to `url` and waits until the page is loaded.
    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({"url": url}));
    }

    /// The value of a JavaScript expression. A promise is waited for.
    pub fn value(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        self.command("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Runs statements.
    pub fn run(&self, script: &str) {
        self.command("POST", "/execute/sync", &json!({"script": script, "args": []}));
    }

    /// Waits until an expression is true; a panic shows what the page says.
    pub fn wait(&self, what: &str, expression: &str) {
        eventually(what, || {
            if self.value(&format!("!!({expression})")) == true {
                Ok(())
            } else {
                Err(self.value("document.body.innerText.slice(0, 3000)").to_string())
            }
        });
    }

    /// Presses keys, as `WebDriver` names them (section 17.4.2), where the focus is.
    pub fn press(&self, keys: &str) {
        let steps: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key})))
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": steps}]});
        self.command("POST", "/actions", &actions);
    }

    /// What is in the window, as PNG in base64.
    pub fn screenshot(&self) -> String {
        self.command("GET", "/screenshot", &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    /// What the page wrote to the console since this was last asked, and what the browser had to say of it.
    pub fn console(&self) -> Vec<String> {
        self.log("browser")
            .iter()
            .map(|entry| format!("{} {}", entry["level"], entry["message"]))
            .collect()
    }

    /// The addresses of what the page has asked for over a network since this was last asked. What the browser's own
    /// pages read from itself is left out.
    pub fn requests(&self) -> Vec<String> {
        self.log("performance")
            .iter()
            .filter_map(|entry| serde_json::from_str::<Value>(entry["message"].as_str()?).ok())
            .filter(|entry| entry["message"]["method"] == "Network.requestWillBeSent")
            .filter_map(|entry| {
                entry["message"]["params"]["request"]["url"].as_str().map(str::to_owned)
            })
            .filter(|url| !url.starts_with("chrome:") && !url.starts_with("data:"))
            .collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.command("POST", "/se/log", &json!({"type": kind}));
        entries.as_array().cloned().unwrap_or_default()
    }

    /// A command of the browser's own protocol.
    fn devtools(&self, command: &str, parameters: &Value) {
        self.command("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": parameters}));
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        ask(method, &format!("{}{path}", self.session), body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends chromium; chromedriver itself is killed afterwards.
        let _ = ask("DELETE", &self.session, &Value::Null);
    }
}

/// One request to chromedriver: the `value` of its answer.
fn ask(method: &str, url: &str, body: &Value) -> Result<Value, String> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .proxy(None)
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let answer = match method {
        "GET" => agent.get(url).call(),
        "DELETE" => agent.delete(url).call(),
        _ => agent.post(url).content_type("application/json").send(body.to_string()),
    };
    let mut answer = answer.map_err(|error| error.to_string())?;
    let text = answer
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_string()
        .map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    if answer.status() == 200 { Ok(value["value"].clone()) } else { Err(value.to_string()) }
}
