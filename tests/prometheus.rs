//! The text for Prometheus and OpenMetrics, read by the parsers of the Python package `prometheus_client`.
//!
//! `SMALLOC_TEST_PYTHON` names a Python that has the package, as `.ci/run` does. Without it, a `python3` that lacks the
//! package skips the tests.

use smalloc::{Indexed, PrometheusOptions, PrometheusSource, SmallocGlobal};
use std::alloc::Layout;
use std::io::Write;
use std::process::{Command, Stdio};

static FIRST: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(1 << 20);
static SECOND: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);

/// Reads standard input with a parser, and prints each sample as the parser sees it.
const READ: &str = "
import sys
if sys.argv[1] == 'openmetrics':
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
else:
    from prometheus_client.parser import text_string_to_metric_families as parse
for family in parse(sys.stdin.read()):
    for sample in family.samples:
        print(family.type, sample.name, sorted(sample.labels.items()), int(sample.value))
";

/// A Python with the package, if there is one.
fn python() -> Option<String> {
    let named = std::env::var("SMALLOC_TEST_PYTHON").ok();
    let python = named.clone().unwrap_or_else(|| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import prometheus_client"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    assert!(found || named.is_none(), "{python} has no package prometheus_client");
    if !found {
        println!("skipped: there is no Python with the package prometheus_client here");
    }
    found.then_some(python)
}

/// The samples that a parser finds in a text.
fn samples(python: &str, format: &str, text: &str) -> String {
    let mut command = Command::new(python);
    command.args(["-c", READ, format]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("Python starts");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("Python reads");
    let output = child.wait_with_output().expect("Python ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{text}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn parsers_read_two_heaps_and_all_regions_in_one_answer() {
    let Some(python) = python() else { return };
    for size in [100, 2000, 30_000] {
        let [first, second] = [FIRST.smalloc(layout(size)), SECOND.smalloc(layout(2 * size))];
        assert!(first.1.success && second.1.success);
    }
    let regions = [0, 1, 2, 3].map(|region| FIRST.region_stats(region).expect("there are four"));
    let second = SECOND.stats();
    let name = "cache \"a\\b\"\nof words";
    let mut sources: Vec<_> =
        (0..4).map(|at| PrometheusSource::new(&regions[at]).heap(name).region(at)).collect();
    sources.push(PrometheusSource::new(&second).heap("second"));
    for (open_metrics, format) in [(false, "text"), (true, "openmetrics")] {
        let mut text = String::new();
        let options = PrometheusOptions::new().prefix("app_").open_metrics(open_metrics);
        options.write(&sources, &mut text).expect("a string takes everything");
        let read = samples(&python, format, &text);
        let name = r#"('heap', 'cache "a\\b"\nof words')"#;
        let mut expected = vec![
            format!("gauge app_smalloc_used_bytes [('heap', 'second')] {}", second.used_bytes),
            format!("counter app_smalloc_allocs_total [('heap', 'second')] {}", second.allocs),
            format!("histogram app_smalloc_hops_count [('heap', 'second')] {}", second.hops.count()),
        ];
        for (region, stats) in regions.iter().enumerate() {
            let labels = format!("[{name}, ('region', '{region}')]");
            expected.push(format!("gauge app_smalloc_used_bytes {labels} {}", stats.used_bytes));
            expected.push(format!(
                "counter app_smalloc_requested_bytes_total {labels} {}",
                stats.requested_total
            ));
            let bucket = format!("[{name}, ('le', '+Inf'), ('region', '{region}')]");
            expected.push(format!("histogram app_smalloc_hops_bucket {bucket} {}", stats.hops.count()));
        }
        for line in expected {
            assert!(read.lines().any(|read| read == line), "{format}: {line} is not in\n{read}");
        }
        // 29 numbers or so and two histograms of eleven samples each, for each source.
        let numbers = text.lines().filter(|line| line.starts_with("# TYPE ")).count() - 2;
        assert_eq!(read.lines().count(), sources.len() * (numbers + 2 * 11));
    }
}

/// One heap without labels gives the text of `write_prometheus`.
#[test]
fn parsers_read_one_heap_without_labels() {
    let Some(python) = python() else { return };
    let mut text = String::new();
    SECOND.init().expect("addresses are free");
    SECOND.stats().write_prometheus(&mut text).expect("a string takes everything");
    assert!(samples(&python, "text", &text).contains("gauge smalloc_region_bytes [] 1048576\n"));
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}
