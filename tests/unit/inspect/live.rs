//! Readers see the numbers that were published.

extern crate std;
use super::*;
use std::string::String;
use std::vec::Vec;

fn temporary(name: &str) -> String {
    let name = std::format!("smalloc-{}-{name}", std::process::id());
    std::env::temp_dir().join(name).to_str().unwrap().into()
}

/// Numbers that all differ.
fn example() -> Stats {
    let words: Vec<u64> = (0..HOPS - NUMBERS).map(|n| 1000 + wide(n)).collect();
    let page: Words = core::array::from_fn(|at| {
        AtomicU64::new(at.checked_sub(NUMBERS).and_then(|at| words.get(at)).copied().unwrap_or(0))
    });
    let mut stats = stats(&page);
    [0, 3, 3, 900].iter().for_each(|&hops| stats.hops.record(hops));
    [7, 1 << 20].iter().for_each(|&hops| stats.failed_hops.record(hops));
    stats
}

#[test]
fn a_page_reads_as_written() {
    let path = temporary("written");
    let text = Path::new(path.as_bytes());
    let process = std::process::id();
    let page = LivePage::create(&text, process, (5_000, || 5_000), "indexed").unwrap();
    let live = Live::open(&path).unwrap();
    assert_eq!(
        (live.process(), live.list(), live.began()),
        (process, "indexed", Duration::from_nanos(5_000))
    );
    assert_eq!(live.read().stats, Stats::default());
    assert!(page.call(64, 96, 10));
    page.write(&example(), 7_000, 20);
    assert!(!page.call(32, 96, 19));
    assert!(page.call(16, 96, 20));
    let published = live.read();
    assert_eq!(published.stats, example());
    assert_eq!((published.calls, published.calls_since, published.at.as_nanos()), (3, 2, 7_000));
    assert_eq!((published.used_bytes, published.top, published.stopped), (16, 96, false));
    page.stop();
    assert!(live.read().stopped && live.read().whole);
    // A read that overlaps a write is never whole, however long it takes.
    for sequence in [NOW, LAST] {
        write_sequence(page.page.words(), sequence, || assert!(!live.read().whole));
        assert!(live.read().whole);
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn numbers_are_in_field_order() {
    let text = std::format!(
        "{:#?}",
        Stats { hops: HopHistogram::new(), failed_hops: HopHistogram::new(), ..example() }
    );
    let lines = text.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
    let values: Vec<u64> = lines.filter_map(|(_, value)| value.trim_end_matches(',').parse().ok()).collect();
    assert_eq!(values[..HOPS - NUMBERS], numbers(&example()));
    assert!(values[..HOPS - NUMBERS].is_sorted());
}

/// A writer alternates between two contents almost without a pause; readers see either one or the other.
#[test]
fn no_reader_sees_half_a_write() {
    let path = temporary("torn");
    let text = Path::new(path.as_bytes());
    let page = LivePage::create(&text, std::process::id(), (0, || 0), "linked").unwrap();
    let mut other = example();
    other.used_bytes = 5;
    other.failed_hops.record(9);
    page.write(&other, 0, 0);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let live = Live::open(&path).unwrap();
                    for _ in 0..20_000 {
                        let Published { stats, whole, .. } = live.read();
                        assert!(whole && (stats == example() || stats == other), "{whole} {stats:?}");
                    }
                })
            })
            .collect();
        while !readers.iter().all(|reader| reader.is_finished()) {
            for stats in [example(), other] {
                page.write(&stats, 0, 0);
                (0..200).for_each(|_| core::hint::spin_loop());
            }
        }
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn foreign_files_are_refused_and_left_unchanged() {
    let path = temporary("other");
    for contents in [&b"mine"[..], &[b'x'; 4096], &[]] {
        std::fs::write(&path, contents).unwrap();
        assert_eq!(Live::open(&path).unwrap_err(), LiveError::OtherFile);
        let text = Path::new(path.as_bytes());
        assert_eq!(LivePage::create(&text, 1, (0, || 0), "linked").unwrap_err(), LiveError::OtherFile);
        assert_eq!(std::fs::read(&path).unwrap(), contents);
    }
    let mut contents = [0; 4096];
    contents[..8].copy_from_slice(b"smalloc\0");
    contents[8] = 9;
    std::fs::write(&path, contents).unwrap();
    assert_eq!(Live::open(&path).unwrap_err(), LiveError::Version { found: 9 });
    std::fs::remove_file(&path).unwrap();
    assert_eq!(Live::open(&path).unwrap_err(), LiveError::System { errno: libc::ENOENT });
    assert_eq!(Live::open("/").unwrap_err(), LiveError::OtherFile);
    assert_eq!(Live::open("").unwrap_err(), LiveError::System { errno: libc::ENOENT });
    assert_eq!(Live::open("a\0b").unwrap_err(), LiveError::BadPath);
}

#[test]
fn only_files_of_dead_processes_are_replaced() {
    let path = temporary("taken");
    let text = Path::new(path.as_bytes());
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let first = LivePage::create(&text, child.id(), (0, || 0), "linked").unwrap();
    let own = std::process::id();
    let refused = LivePage::create(&text, own, (5, || 9), "linked").unwrap_err();
    assert_eq!(refused, LiveError::InUse { process: child.id() });
    child.kill().unwrap();
    child.wait().unwrap();
    let second = LivePage::create(&text, own, (5, || 9), "linked").unwrap();
    first.call(16, 16, 0);
    second.call(32, 32, 0);
    assert_eq!(Live::open(&path).unwrap().read().used_bytes, 32);
    // The file of another heap of this process is kept, that of an earlier process of the same number is replaced.
    let create = |began, clock: fn() -> u64| LivePage::create(&text, own, (began, clock), "linked");
    assert_eq!(create(5, || 20).unwrap_err(), LiveError::InUse { process: own });
    assert!(create(10, || 20).is_ok() && create(5, || 19).is_ok());
    std::fs::remove_file(path).unwrap();
}
