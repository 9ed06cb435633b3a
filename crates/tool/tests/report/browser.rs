//! A headless Chromium that is driven over its DevTools protocol.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// The names of the program on the systems that have it.
const NAMES: [&str; 5] =
    ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome-headless-shell"];
/// The longest time in which a page gets ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// The browser and the page that it shows.
pub(crate) struct Browser {
    process: Child,
    profile: PathBuf,
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    session: Value,
    sent: u64,
    /// Errors and messages of the page.
    console: Vec<String>,
}

impl Browser {
    /// Starts the browser. None if there is no such program, which is an error only in CI.
    pub(crate) fn start(name: &str) -> Option<Self> {
        let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
        let found = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        let Some(program) = found.into_iter().find(|path| path.is_file()) else {
            assert!(env::var_os("CI").is_none(), "there is no Chromium: install chromium-headless-shell");
            eprintln!("not tested, for want of Chromium: install chromium-headless-shell");
            return None;
        };
        let profile = env::temp_dir().join(format!("smalloc-browser-{}-{name}", std::process::id()));
        let mut process = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"])
            .args(["--window-size=1200,900", "--force-device-scale-factor=1"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the browser starts");
        let stderr = BufReader::new(process.stderr.take().expect("it is piped"));
        let mut lines = stderr.lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("ws://")).expect("the browser tells its address");
        let (socket, _) =
            tungstenite::connect(&line[line.find("ws://").expect("it is there")..]).expect("connect");
        // The rest of its output must not fill the pipe.
        thread::spawn(move || lines.for_each(drop));
        let mut browser =
            Self { process, profile, socket, session: Value::Null, sent: 0, console: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let flat = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", flat)["sessionId"].clone();
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            browser.call(domain, json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol, and collects the messages of the page meanwhile.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": parameters });
        if self.session != Value::Null {
            message["sessionId"] = self.session.clone();
        }
        self.socket.send(Message::text(message.to_string())).expect("the browser listens");
        loop {
            let answer = self.socket.read().expect("the browser answers");
            let Ok(answer) = serde_json::from_str::<Value>(answer.to_text().unwrap_or_default()) else {
                continue;
            };
            match answer["method"].as_str() {
                Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded") => {
                    self.console.push(answer["params"].to_string());
                }
                _ if answer["id"] == self.sent => {
                    assert!(answer["error"].is_null(), "{method}: {answer}");
                    return answer["result"].clone();
                }
                _ => {}
            }
        }
    }

    /// The value of an expression in the page, after its promise.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Opens a file and waits until the page is drawn. Returns the time taken.
    pub(crate) fn open(&mut self, path: &str) -> Duration {
        let begin = Instant::now();
        self.call("Page.navigate", json!({ "url": format!("file://{path}") }));
        self.wait_until("document.documentElement?.dataset.draws > 0");
        begin.elapsed()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, expression: &str) {
        let begin = Instant::now();
        while self.value(&format!("!!({expression})")) != true {
            assert!(begin.elapsed() < PATIENCE, "not true in time: {expression}, {:?}", self.console);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a statement, and waits until the page has been drawn after it.
    #[track_caller]
    pub(crate) fn act(&mut self, statement: &str) {
        let draws = self.value("document.documentElement.dataset.draws");
        self.value(&format!("(() => {{ {statement}; }})()"));
        self.wait_until(&format!(
            "document.documentElement.dataset.draws > {}",
            draws.as_str().unwrap_or("0")
        ));
    }

    /// Sends a mouse event at a place in an element, in shares of its width and height.
    pub(crate) fn mouse(&mut self, kind: &str, id: &str, x: f64, y: f64, more: Value) {
        let corner = self.value(&format!(
            "(() => {{ const box = document.getElementById('{id}').getBoundingClientRect(); \
             return [box.x + {x} * box.width, box.y + {y} * box.height] }})()"
        ));
        let mut event = json!({ "type": kind, "x": corner[0], "y": corner[1] });
        more.as_object().into_iter().flatten().for_each(|(key, value)| event[key] = value.clone());
        self.call("Input.dispatchMouseEvent", event);
    }

    /// Presses and releases a key.
    pub(crate) fn key(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({ "type": kind, "key": key }));
        }
    }

    /// A screenshot of an element, as PNG.
    pub(crate) fn screenshot(&mut self, id: &str) -> Vec<u8> {
        let clip = self.value(&format!(
            "(() => {{ const box = document.getElementById('{id}').getBoundingClientRect(); \
             return {{ x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height, scale: 1 }} }})()"
        ));
        let shot =
            self.call("Page.captureScreenshot", json!({ "clip": clip, "captureBeyondViewport": true }));
        STANDARD.decode(shot["data"].as_str().expect("there is a picture")).expect("it is Base64")
    }

    /// The messages of the page since the last call: errors, exceptions, logs.
    pub(crate) fn console(&mut self) -> Vec<String> {
        std::mem::take(&mut self.console)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends the processes that it started when it is asked to close. The test is over, so errors are
        // ignored.
        let _ = self.socket.send(Message::text(json!({ "id": 0, "method": "Browser.close" }).to_string()));
        let begin = Instant::now();
        while self.process.try_wait().is_ok_and(|ended| ended.is_none()) && begin.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        remove(&self.profile);
    }
}

fn remove(folder: &Path) {
    // An error leaves files behind in the folder for temporary files.
    let _ = fs::remove_dir_all(folder);
}
