//! Call sites in recordings of smalloc: a program that records itself, and what the commands say about it.

#[allow(dead_code, reason = "the tests of reports use the rest")]
#[path = "report/browser.rs"]
mod browser;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::{env, fs};

use browser::Browser;
use serde_json::Value;
use smalloc::SmallocGlobal;

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

/// Blocks of each kind, and bytes of one that comes and goes.
const BLOCKS: usize = 400;
const LARGE: usize = 20_000;

mod cache {
    /// A small block that stays.
    #[inline(never)]
    pub(super) fn insert() -> Box<[u8; 1000]> {
        Box::new([1; 1000])
    }
}

mod parser {
    /// A block that is freed later, by way of an inlined function.
    #[inline(never)]
    pub(super) fn parse(bytes: usize) -> Vec<u8> {
        reserve(bytes)
    }

    #[inline(always)]
    fn reserve(bytes: usize) -> Vec<u8> {
        Vec::with_capacity(bytes)
    }
}

/// Not a test: the program that the tests record. Small blocks keep the pages of large ones that were freed.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn program() {
    let (mut large, mut small) = (Vec::with_capacity(BLOCKS), Vec::with_capacity(BLOCKS));
    for _ in 0..BLOCKS {
        large.push(parser::parse(LARGE));
        small.push(cache::insert());
    }
    drop(large);
    std::process::exit(i32::from(small.len() != BLOCKS));
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("smalloc-sites-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a name in Unicode").to_owned()
    }

    /// Records the program with a stack of one request in so many bytes.
    fn record(&self, interval: &str) -> String {
        let path = self.path(&format!("{interval}.rec"));
        let status = Command::new(env::current_exe().expect("the test has a path"))
            .args(["program", "--exact", "--ignored", "--test-threads=1"])
            .env("SMALLOC_RECORD", &path)
            .env("SMALLOC_SITES", interval)
            .output()
            .expect("it starts");
        assert!(status.status.success(), "{status:?}");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // An error leaves files behind in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn smalloc(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_smalloc")).args(arguments).output().expect("it starts")
}

fn told(arguments: &[&str]) -> String {
    let output = smalloc(arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// The line that contains all parts.
#[track_caller]
fn line<'a>(text: &'a str, parts: &[&str]) -> &'a str {
    let found = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
    found.unwrap_or_else(|| panic!("no line with {parts:?} in {text}"))
}

#[test]
fn the_code_that_pins_memory_is_named() {
    let folder = Folder::new("pins");
    let (recording, page) = (folder.record("1"), folder.path("page.html"));
    let text = told(&["report", &recording, "-o", &page]);
    let pins = line(&text, &["kept", "from going back"]);
    assert!(pins.contains("blocks of sites::cache::insert (tests/sites.rs:"), "{pins}");
    let count = pinning(&text);
    assert!((BLOCKS * 9 / 10..=BLOCKS).contains(&count), "few lie in holes from before: {pins}");
    let page = fs::read_to_string(page).expect("the page is there");
    for name in
        ["sites::parser::parse (tests/sites.rs:", "sites::parser::reserve (tests/sites.rs:", "sites::program"]
    {
        assert!(page.contains(name), "{name} is not on the page");
    }
    assert!(!page.contains("id=\"column-weights\""), "every block stands for itself");
    let facts = page.split_once("id=\"facts\">").and_then(|(_, rest)| rest.split_once("</script>"));
    let facts: Value = serde_json::from_str(facts.expect("there are facts").0).expect("it is JSON");
    let (stacks, names) = (&facts["sites"]["stacks"], &facts["sites"]["frames"]);
    for stack in stacks.as_object().expect("there are stacks").values() {
        let first = stack["frames"][0].as_u64().expect("a stack has frames") as usize;
        let name = names[first].as_str().expect("a frame has a name");
        assert!(!name.starts_with("smalloc::") && !name.starts_with("__rust"), "{name} is the allocator's");
    }
}

#[test]
fn a_sample_tells_about_all() {
    let folder = Folder::new("sample");
    let (all, sample) = (folder.record("1"), folder.record("2K"));
    let text = told(&["report", &sample, "-o", &folder.path("page.html")]);
    line(&text, &["The call stacks of", "one in 2 KiB on average"]);
    let diff = told(&["diff", &all, &sample, "--rows", "1000"]);
    let row = |name: &str| -> Vec<String> {
        line(&diff, &[name]).split_ascii_whitespace().map(str::to_owned).collect()
    };
    // Nearly every large block is in the sample.
    let parser = row("sites::parser::reserve");
    assert_eq!(parser[0], "0", "{parser:?}");
    // The sample has 155 of 400 blocks of 1000 bytes, with a standard deviation of 10.
    let near = |count: usize| (BLOCKS / 2..BLOCKS * 3 / 2).contains(&count);
    let count = pinning(&text);
    assert!(near(count), "{count} blocks are estimated");

    // The page counts in the same way.
    let Some(mut browser) = Browser::start("sample") else { return };
    browser.open(&folder.path("page.html"));
    let row = "state.facts.groups.site.find((row) => row.name.startsWith('sites::cache::insert'))";
    browser.wait_until(&format!("{row}.liveBlocks > 0"));
    let live = browser.value(&format!("{row}.liveBlocks")).as_u64().expect("a number") as usize;
    assert!(near(live) && live >= count, "{live} blocks are shown, {count} of them pin pages");
    assert_eq!(browser.console(), [""; 0]);
}

/// The number of blocks of `cache::insert` in the sentence about pins.
fn pinning(text: &str) -> usize {
    let sentence = line(text, &["sites::cache::insert", "from going back"]);
    let (before, _) = sentence.split_once(" blocks of").expect("it tells a number");
    let number = before.rsplit(' ').next().expect("there is a word").replace(',', "");
    number.parse().expect("a number")
}

#[test]
fn sites_are_compared_and_may_be_off() {
    let folder = Folder::new("off");
    let (all, none) = (folder.record("1"), folder.record("0"));
    // Groups that did not change are not listed, so the other trace has another site.
    let other = folder.path("other");
    fs::write(&other, "v 10400 3\nt 1100 0\n+ 10 1 10\n").expect("a file can be written");
    let text = told(&["diff", &other, &all, "--rows", "1000"]);
    line(&text, &["sites::cache::insert (tests/sites.rs:"]);
    let text = told(&["report", &none, "-o", &folder.path("page.html")]);
    assert!(!text.contains("sites::"), "{text}");
    line(&text, &["blocks of 1000 B kept"]);
    assert!(!smalloc(&["diff", &all, &none, "--by", "site"]).status.success());
}

/// Stacks are named by the files that ran, and not by others at their paths.
#[test]
fn another_build_names_nothing() {
    let folder = Folder::new("another");
    let recording = folder.record("1");
    let mut bytes = fs::read(&recording).expect("the recording is there");
    // The first text record behind the first object record begins with the build ID.
    let text = bytes.chunks(32).position(|record| record[0] == 12).expect("there is a text");
    bytes[32 * text + 8] ^= 0xff;
    fs::write(&recording, bytes).expect("it can be written");
    let text = told(&["report", &recording, "-o", &folder.path("page.html")]);
    assert!(!text.contains("cache::insert"), "{text}");
    line(&text, &["blocks of sites-", "+0x", "kept"]);
}

/// Each format has the bytes of a site, also where its stacks are a sample.
#[test]
fn recordings_with_stacks_are_converted() {
    let folder = Folder::new("converted");
    let insert = |folded: &str| -> u64 {
        let own = folded.lines().filter(|line| line.contains("cache::insert"));
        own.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let all = (BLOCKS * 1000) as u64;
    let recording = folder.record("1");
    assert_eq!(insert(&told(&["convert", &recording, "--to", "folded", "--value", "end", "-o", "-"])), all);
    let sample = folder.record("20000");
    let folded = told(&["convert", &sample, "--to", "folded", "--value", "end", "-o", "-"]);
    let estimate = insert(&folded);
    assert!((all / 3..all * 3).contains(&estimate), "{estimate} of {all}");

    // Allocations less frees are what Firefox retains.
    let firefox = told(&["convert", &sample, "--to", "firefox", "-o", "-"]);
    let firefox: Value = serde_json::from_str(&firefox).expect("it is JSON");
    let weights = firefox["threads"][0]["nativeAllocations"]["weight"].as_array().expect("an array");
    let retained: i64 = weights.iter().filter_map(Value::as_i64).sum();
    let dhat = told(&["convert", &sample, "--to", "dhat", "-o", "-"]);
    let dhat: Value = serde_json::from_str(&dhat).expect("it is JSON");
    let points = dhat["pps"].as_array().expect("an array");
    let live: i64 = points.iter().filter_map(|point| point["eb"].as_i64()).sum();
    assert_eq!(retained, live);
    assert!(live > 0 && points.iter().all(|point| point["tbk"].as_i64() > Some(0)));
}

#[test]
fn pins_are_told_at_any_call() {
    let folder = Folder::new("at");
    let (all, sample) = (folder.record("1"), folder.record("2K"));
    let text = told(&["pins", &all, "--rows", "1"]);
    let pins = line(&text, &["These ", " blocks of sites::cache::insert (tests/sites.rs:", " keep "]);
    let kept = pins.rsplit(' ').nth(1).expect("it tells a size").parse::<f64>().expect("a number");
    // Each of 400 blocks keeps the rest of its page, and a quarter of them lie on two pages: 4 KiB on average.
    assert!(pins.ends_with("MiB.") && (1.4..1.7).contains(&kept), "{pins}");
    line(&text, &["After call ", " below top are free. ", " lie on pages that are in use in part."]);
    line(&text, &["of sites::cache::insert", "highest: without", "lower."]);
    line(&text, &["groups keep less (--rows shows more)."]);
    // While the large blocks are in use, the small ones between them keep little.
    let early = told(&["pins", &all, "--at", "1500", "--by", "site"]);
    assert!(early.starts_with("After call 1,500, "), "{early}");
    let text = told(&["pins", &sample]);
    line(&text, &["The stack of one request in 2 KiB is known: these numbers are estimates."]);
    assert!(!text.contains("highest"), "{text}");
    for (arguments, message) in [
        (&["pins", &all, "--at", "1000000000"][..], "there are only"),
        (&["pins", &folder.record("0"), "--by", "site"][..], "the trace has no call stacks"),
    ] {
        let output = smalloc(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(message), "{output:?}");
    }
    assert!(told(&["pins", &folder.record("0")]).contains(" blocks of 1000 B keep "));
}
