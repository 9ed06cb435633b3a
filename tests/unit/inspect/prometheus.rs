extern crate std;
use super::super::metrics::tests::example;
use super::*;
use std::string::{String, ToString};
use std::vec::Vec;

fn text(options: PrometheusOptions<'_>, sources: &[PrometheusSource<'_>]) -> String {
    let mut text = String::new();
    options.write(sources, &mut text).unwrap();
    text
}

#[test]
fn names_follow_the_conventions_and_are_written_once() {
    let text = text(PrometheusOptions::new(), &[PrometheusSource::new(&example())]);
    let mut heads: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(heads.len(), metrics().count() + 2);
    for head in &heads {
        let (name, kind) = head.split_once(' ').unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(name.starts_with("smalloc_"));
    }
    heads.sort_unstable();
    heads.dedup();
    assert_eq!(heads.len(), metrics().count() + 2);
}

/// The counts of the buckets of `hops`.
fn buckets(options: PrometheusOptions<'_>) -> Vec<u64> {
    let text = text(options, &[PrometheusSource::new(&example())]);
    assert!(text.contains("smalloc_hops_sum 48\nsmalloc_hops_count 6\n"));
    let lines = text.lines().filter(|line| line.starts_with("smalloc_hops_bucket"));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
}

#[test]
fn histograms_are_cumulative_and_complete() {
    assert_eq!(buckets(PrometheusOptions::new()), [2, 3, 4, 5, 5, 6, 6, 6, 6]);
    let all = buckets(PrometheusOptions::new().all_buckets(true));
    assert_eq!(all[..7], [2, 3, 4, 5, 5, 5, 6]);
    assert_eq!((all.len(), all.last()), (22, Some(&6)));
}

#[test]
fn labels_are_escaped_and_prefixes_made_valid() {
    let stats = example();
    let odd = PrometheusSource::new(&stats).heap("a\"b\\c\nd").region(3);
    let text = text(PrometheusOptions::new().prefix("1 pp-"), &[odd, PrometheusSource::new(&stats)]);
    let value = "_used_bytes{heap=\"a\\\"b\\\\c\\nd\",region=\"3\"} 786432\n__pp_smalloc_used_bytes 786432\n";
    assert!(text.contains(&("__pp_smalloc".to_string() + value)), "{text}");
    assert!(text.contains("c\\nd\",region=\"3\",le=\"+Inf\"} 6\n"));
}
