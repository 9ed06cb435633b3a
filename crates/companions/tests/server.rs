//! The server's `/metrics`, read by the parser of the Python package `prometheus_client`, and the dashboard that draws
//! it.
//!
//! `SMALLOC_TEST_PYTHON` names a Python that has the package, as `.ci/run` does.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use promql_parser::parser::{Expr, parse};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

const DASHBOARD: &str = include_str!("../grafana/smalloc.json");

/// The server, until it is dropped.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        let mut process = command.arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("it tells its address");
        let address =
            line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { process, address }
    }

    /// The status of the answer, its head, and its body.
    fn call(&self, method: &str, path: &str, head: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}"
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_lowercase(), body.to_owned())
    }

    fn metrics(&self, head: &str) -> (String, String) {
        let (status, head, body) = self.call("GET", "/metrics", head, "");
        assert_eq!(status, 200, "{head}");
        (head, body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}

/// The value of a sample of the only heap.
#[track_caller]
fn sample(text: &str, name: &str) -> u64 {
    let start = format!("{name}{{heap=\"server\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn values_are_kept_and_their_bytes_are_shown() {
    let server = Server::start();
    let before = server.metrics("").1;
    let value = "x".repeat(10_000);
    for key in 0..50 {
        assert_eq!(server.call("PUT", &format!("/items/{key}"), "", &value).0, 201);
    }
    assert_eq!(server.call("PUT", "/items/7", "", "short").0, 204);
    assert_eq!(server.call("GET", "/items/7", "", ""), {
        let (_, head, _) = server.call("GET", "/items/7", "", "");
        (200, head, "short".to_owned())
    });
    assert_eq!(server.call("GET", "/items/none", "", "").0, 404);
    assert_eq!(server.call("DELETE", "/items/8", "", "").0, 204);
    let after = server.metrics("").1;
    let grown = sample(&after, "smalloc_used_bytes") - sample(&before, "smalloc_used_bytes");
    assert!((480_000..700_000).contains(&grown), "48 values of 10,000 bytes came to {grown}");
    assert!(sample(&after, "smalloc_allocs_total") > sample(&before, "smalloc_allocs_total") + 50);
}

/// Go's `pprof` fetches the profile from the server, and finds the bytes of the values in it.
#[cfg(feature = "sites")]
#[test]
fn pprof_asks_the_server_who_holds_the_memory() {
    let Some(pprof) = std::env::var_os("SMALLOC_TEST_PPROF") else {
        assert!(std::env::var_os("CI").is_none(), "SMALLOC_TEST_PPROF does not name Go's pprof");
        eprintln!("not tested, for want of Go's pprof, which SMALLOC_TEST_PPROF would name");
        return;
    };
    let server = Server::start();
    let value = "x".repeat(100_000);
    for key in 0..300 {
        assert_eq!(server.call("PUT", &format!("/items/{key}"), "", &value).0, 201);
    }
    let folder = std::env::temp_dir().join(format!("smalloc-server-{}", std::process::id()));
    let mut command = Command::new(pprof);
    command.args([
        "-top",
        "-unit=B",
        "-symbolize=none",
        &format!("http://{}/debug/pprof/heap", server.address),
    ]);
    // It keeps a copy of what it fetches.
    let output = command.env("PPROF_TMPDIR", &folder).output().expect("pprof starts");
    // An error leaves files behind in the folder for temporary files.
    let _ = std::fs::remove_dir_all(folder);
    let text = String::from_utf8_lossy(&output.stdout);
    let total = text.lines().find_map(|line| line.split_once(" of ")?.1.strip_suffix("B total"));
    // One request in 512 KiB is sampled: 57 of the 300 values, give or take 8.
    let bytes = total.and_then(|bytes| bytes.parse().ok());
    assert!(bytes.is_some_and(|bytes: u64| (12_000_000..60_000_000).contains(&bytes)), "{output:?}");
}

/// Prints the name of each sample.
const READ: &str = "
import sys
if sys.argv[1] == 'openmetrics':
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
else:
    from prometheus_client.parser import text_string_to_metric_families as parse
for family in parse(sys.stdin.read()):
    for sample in family.samples:
        print(sample.name)
";

/// The names of the samples as a parser sees them; none without a Python that has it.
fn names(format: &str, text: &str) -> Option<BTreeSet<String>> {
    let named = std::env::var("SMALLOC_TEST_PYTHON").ok();
    let python = named.as_deref().unwrap_or("python3");
    let found = Command::new(python).args(["-c", "import prometheus_client"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        assert!(
            named.is_none() && std::env::var_os("CI").is_none(),
            "{python} has no package prometheus_client"
        );
        eprintln!("not tested, for want of a Python with the package prometheus_client");
        return None;
    }
    let mut command = Command::new(python);
    command.args(["-c", READ, format]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("Python starts");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("Python reads");
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "{text}");
    Some(String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect())
}

/// The names of the metrics in a query.
#[derive(Default)]
struct Metrics(BTreeSet<String>);

impl ExprVisitor for Metrics {
    type Error = String;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, String> {
        let selector = match expression {
            Expr::VectorSelector(selector) => selector,
            Expr::MatrixSelector(over_time) => &over_time.vs,
            _ => return Ok(true),
        };
        self.0.insert(selector.name.clone().ok_or("a selector without a name")?);
        Ok(true)
    }
}

#[test]
fn the_dashboard_asks_for_numbers_that_the_server_has() {
    let server = Server::start();
    let (head, plain) = server.metrics("");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";
    let (head, open) = server.metrics(accept);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");

    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("an array");
    assert_eq!(panels.len(), 8);
    let mut asked = Metrics::default();
    for panel in panels {
        let (title, targets) = (&panel["title"], panel["targets"].as_array().expect("an array"));
        assert!(
            title.is_string() && panel["fieldConfig"]["defaults"]["unit"].is_string() && !targets.is_empty()
        );
        for target in targets {
            let query = target["expr"].as_str().expect("a query").replace("$__rate_interval", "1m");
            let parsed = parse(&query).unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
            walk_expr(&mut asked, &parsed).unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
        }
    }
    assert!(asked.0.len() > 15, "{:?}", asked.0);
    for (format, text) in [("classic", plain), ("openmetrics", open)] {
        let Some(names) = names(format, &text) else { return };
        let missing: Vec<&String> = asked.0.difference(&names).collect();
        assert!(missing.is_empty(), "{format}: {missing:?} are not among {names:?}");
    }
}
