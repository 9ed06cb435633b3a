//! `smalloc report`: the output of the command, and the page in a browser. `smalloc diff`.

mod browser;
#[path = "../common/mod.rs"]
mod common;

use common::Folder;
use std::alloc::Layout;
use std::fmt::Write;
use std::process::{Command, Output};
use std::{env, fs};

use browser::Browser;
use serde_json::json;
use smalloc::{Heap, Indexed};

/// Bytes of a block that is leaked, of one that pins pages, and of one that comes and goes.
const LEAKED: usize = 512;
const PIN: usize = 48;
const LARGE: usize = 20_000;

fn report(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_smalloc")).arg("report").args(arguments).output().expect("it starts")
}

/// Reports on a trace, and returns the output, and the path of the page.
#[track_caller]
fn page(folder: &Folder, trace: &str, more: &[&str]) -> (String, String) {
    let (path, page) = (folder.file("trace", trace), folder.path("page.html"));
    let output = report(&[&[path.as_str(), "-o", &page], more].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    (String::from_utf8(output.stdout).expect("it prints text"), page)
}

/// 200 large blocks with small ones between them, the large ones freed; and a small one leaked with each short-lived
/// block.
fn planted() -> String {
    let mut trace = String::new();
    for block in 0..200 {
        _ = writeln!(trace, "7: malloc 0x{block}1 {LARGE}\n7: malloc 0x{block}2 {PIN}");
    }
    (0..200).for_each(|block| _ = writeln!(trace, "7: free 0x{block}1"));
    for round in 0..4000 {
        _ = writeln!(trace, "8: malloc 0xf1 100\n8: malloc 0x{round}3 {LEAKED}\n8: free 0xf1");
    }
    trace
}

#[test]
fn leaks_and_pins_are_told() {
    let folder = Folder::new("told");
    let (told, page) = page(&folder, &planted(), &[]);
    for sentence in [
        "Replayed 12,600 calls of a trace for memory_replay.",
        "- Blocks of 512 B only became more: ",
        "blocks of 48 B kept ",
        "- At that moment, 200 blocks of 48 B",
        "- The most bytes in use were ",
    ] {
        assert!(told.contains(sentence), "{sentence:?} is not in\n{told}");
    }
    let page = fs::read_to_string(page).expect("the page is there");
    for sentence in told.lines().filter_map(|line| line.strip_prefix("- ")) {
        assert!(page.contains(sentence), "the page says: {sentence}");
    }
    for loads in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(loads), "the page loads something: {loads}");
    }
}

#[test]
fn errors_are_told() {
    let folder = Folder::new("errors");
    let path = folder.file("trace", "1: malloc 0x10 16\n");
    for (arguments, error) in [
        (&[path.as_str(), "-o", &path][..], "--output: cannot write"),
        (&[&path, "-o", "/nowhere/page.html"], "--output: cannot write /nowhere/page.html"),
        (&["/nowhere/trace", "-o", &folder.path("page")], "cannot read /nowhere/trace"),
        (&[&path], "--output <HTML>"),
    ] {
        let output = report(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(error), "{error:?} is not in\n{stderr}");
    }
    let cut = folder.file("cut", "1: malloc 0x10 16\n1: free 0x10\nhello\n");
    let output = report(&[&cut, "-o", &folder.path("page")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Replayed 2 calls"), "the rest has a page");
}

/// The size that only the second trace leaked comes first.
#[test]
fn the_groups_that_grew_are_listed() {
    let folder = Folder::new("diff");
    let calm: String = planted()
        .lines()
        .filter(|line| !line.ends_with(" 512"))
        .fold(String::new(), |text, line| text + line + "\n");
    let (before, after) = (folder.file("a", calm), folder.file("b", planted()));
    let diff = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_smalloc")).arg("diff").args(arguments).output().expect("it starts")
    };
    let output = diff(&[&before, &after, "--rows", "1"]);
    let told = String::from_utf8(output.stdout).expect("it prints text");
    assert!(output.status.success(), "{told}");
    let rows: Vec<Vec<&str>> =
        told.lines().map(|line| line.split("  ").filter(|it| !it.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["A: 8,600 calls, 3.8 MiB live at most, 9.4 KiB at the end"]);
    assert_eq!(rows[1], ["B: 12,600 calls, 3.8 MiB live at most, 2.0 MiB at the end"]);
    let row: Vec<&str> = rows[4].iter().map(|cell| cell.trim()).collect();
    assert_eq!(row, ["2.0 MiB", "+2.0 MiB", "+2.0 MiB", "+2.0 MiB", "+4,000", "512 B"]);
    assert_eq!(rows[5..], [["unchanged groups: 3"]]);

    let same = String::from_utf8(diff(&[&before, &before]).stdout).expect("it prints text");
    assert!(same.ends_with("group\nunchanged groups: 3\n"), "{same}");
    let all =
        String::from_utf8(diff(&[&folder.file("none", "1: malloc 0x10 8\n"), &before, "--rows", "1"]).stdout);
    let all = all.expect("it prints text");
    assert!(all.ends_with("and 3 groups that grew less (--rows shows more)\n"), "{all}");
    let back = String::from_utf8(diff(&[&after, &before, "--by", "thread"]).stdout).expect("it prints text");
    assert!(back.lines().any(|line| line.contains("-2.0 MiB") && line.ends_with("thread 8")), "{back}");
    let refused = diff(&[&before, &after, "--by", "site"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(refused.stderr, b"smalloc diff: --by site: not both traces have call stacks\n");
}

/// Names in traces are text, whatever they contain.
#[test]
fn names_are_no_html() {
    let folder = Folder::new("names");
    let trace = "v 10400 3\nm 1d /tmp/</script><b id=x>a\"&b.so 1000 0 1000\nt 1100 0\n+ 100 1 50\n";
    let (told, path) = page(&folder, trace, &[]);
    assert!(told.contains("a trace of heaptrack"), "{told}");
    let text = fs::read_to_string(&path).expect("the page is there");
    assert!(!text.contains("<b id=x>"));
    let Some(mut browser) = Browser::start("names") else { return };
    browser.open(&path);
    assert_eq!(browser.value("document.getElementById('x')"), json!(null));
    assert_eq!(browser.value("state.facts.groups.site[0].name"), "script><b id=x>a\"&b.so+0x100");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn the_page_is_drawn_and_zoomed_and_finds_what_was_planted() {
    let folder = Folder::new("drawn");
    let (_, path) = page(&folder, &planted(), &[]);
    let Some(mut browser) = Browser::start("drawn") else { return };
    let took = browser.open(&path);
    assert!(took.as_secs() < 10, "the first picture took {took:?}");
    let everything = browser.value("[view.t0, view.t1, view.a0]");
    assert_eq!(everything, json!([0, 12_601, 0]));

    // The wheel zooms at the mouse, and dragging moves.
    browser.act("document.getElementById('picture').scrollIntoView({ block: 'center' }); redraw()");
    for _ in 0..4 {
        let wheel = json!({ "deltaX": 0, "deltaY": -200 });
        browser.mouse("mouseWheel", "picture", 0.5, 0.5, wheel);
    }
    browser.wait_until("view.t1 - view.t0 < 12_601 / 10");
    let before = browser.value("view.t0").as_f64().expect("a call");
    let left = json!({ "button": "left", "buttons": 1, "clickCount": 1 });
    for (kind, x) in [("mousePressed", 0.5), ("mouseMoved", 0.6), ("mouseMoved", 0.7), ("mouseReleased", 0.7)]
    {
        browser.mouse(kind, "picture", x, 0.5, left.clone());
    }
    browser.wait_until(&format!("view.t0 < {before}"));
    assert!(browser.value("state.marked").is_null(), "dragging is no click");

    // Keys zoom and move too, down to single blocks and calls.
    browser.act("document.getElementById('picture').focus(); redraw()");
    (0..40).for_each(|_| browser.key("+"));
    browser.wait_until("view.t1 - view.t0 === 2 && view.a1 - view.a0 === 4");
    browser.key("0");
    browser.wait_until("view.t1 === 12_601");

    // The planted blocks: pins after the frees of the large ones, and the leak at the end.
    browser.act("setNow(600)");
    browser.act("state.sort = 'pinned'; mark(null)");
    let row =
        "[...document.querySelectorAll('#groups tbody tr:first-child td')].map((cell) => cell.textContent)";
    let pinned = browser.value(row);
    assert_eq!((&pinned[0], &pinned[2]), (&json!("48 B"), &json!("200")), "{pinned}");
    browser.act("setNow(12_600)");
    browser.act("state.sort = 'live'; mark(null)");
    let leaked = browser.value(row);
    assert_eq!((&leaked[0], &leaked[2]), (&json!("512 B"), &json!("4,000")), "{leaked}");

    // Hovering shows a block, and a click marks its group. The first block lies at the bottom until it is freed.
    browser.act("lookAt(100, 110, 0, 1000); redraw()");
    browser.mouse("mouseMoved", "picture", 0.5, 0.7, json!({}));
    let first =
        "19.5 KiB at offset 0x0; placed by call 1; freed by call 401, 400 calls later; 0 hops; thread 7.";
    browser.wait_until(&format!("document.getElementById('tip').textContent === {}", json!(first)));
    for kind in ["mousePressed", "mouseReleased"] {
        browser.mouse(kind, "picture", 0.5, 0.7, left.clone());
    }
    browser.wait_until("state.marked === sizeGroup(20_000)");
    browser.wait_until("document.querySelector('#groups tr.marked')");

    // Every finding with a button can be shown.
    let buttons = browser.value("document.querySelectorAll('#findings button').length").as_u64();
    for button in 0..buttons.expect("a number") {
        browser.act(&format!("document.querySelectorAll('#findings button')[{button}].click()"));
    }
    assert!(buttons >= Some(4));
    assert_eq!(browser.console(), [""; 0]);
}

/// The color of a style sheet's variable, as in a screenshot.
fn color(browser: &mut Browser, name: &str) -> [u8; 3] {
    let color = browser.value(&format!("color('{name}')"));
    [0, 1, 2].map(|i| color[i].as_u64().expect("a number") as u8)
}

/// Twenty points of the picture have the colour that the heap determines, in both themes, drawn block by block and as
/// shares.
#[test]
fn a_screenshot_shows_what_the_heap_says() {
    const BLOCKS: usize = 20;
    let mut heap = Heap::<Indexed>::with_region_size(1 << 20).expect("there is room");
    let (mut trace, mut lives) = (String::new(), Vec::new());
    for block in 0..BLOCKS {
        let layout = Layout::from_size_align(1600 * (1 + block * 7 % 5), 16).expect("a layout");
        let offset = heap.smalloc(layout).1.payload_offset.expect("there is room");
        _ = writeln!(trace, "1: malloc 0x{block}1 {}", layout.size());
        lives.push((block as f64 + 1.0, offset, layout.size()));
    }
    (0..BLOCKS).step_by(2).for_each(|block| _ = writeln!(trace, "1: free 0x{block}1"));
    let top = heap.stats().top;
    let calls = BLOCKS + BLOCKS / 2;
    // After call BLOCKS + n + 1, block 2 n is gone.
    let death =
        |block: usize| if block.is_multiple_of(2) { (BLOCKS + block / 2 + 1) as f64 } else { f64::INFINITY };
    let folder = Folder::new("points");
    let (_, path) = page(&folder, &trace, &[]);
    let Some(mut browser) = Browser::start("points") else { return };
    browser.open(&path);
    for (theme, few) in [("light", true), ("dark", true), ("light", false)] {
        browser.act(&format!("document.getElementById('theme').value = '{theme}'; applyTheme()"));
        browser.act("setNow(0)");
        if !few {
            let canvas = "document.getElementById('picture')";
            browser.act(&format!("fewInView = () => null; redraw(); {canvas}.scrollIntoView()"));
        }
        let shot = browser.screenshot("picture");
        let mut reader = png::Decoder::new(std::io::Cursor::new(shot)).read_info().expect("it is a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("it has a size")];
        let frame = reader.next_frame(&mut pixels).expect("it has pixels");
        let channels = pixels.len() / (frame.width * frame.height) as usize;
        let plot = browser.value("plotBox(document.getElementById('picture'))");
        let plot = ["x", "y", "width", "height"].map(|name| plot[name].as_f64().expect("a number"));
        let used = color(&mut browser, if few { "middle" } else { "high" });
        for (block, &(birth, offset, size)) in lives.iter().enumerate() {
            for (call, inside) in [(birth + 0.5, true), (birth - 0.5, false), (death(block) + 0.5, false)] {
                if call > calls as f64 {
                    continue;
                }
                let address = (offset + size / 3) as f64;
                let x = plot[0] + plot[2] * call / (calls as f64 + 1.0);
                let y = plot[1] + plot[3] * (1.0 - address / top as f64);
                let at = (y as usize * frame.width as usize + x as usize) * channels;
                let found = [pixels[at], pixels[at + 1], pixels[at + 2]];
                assert_eq!(found == used, inside, "{theme}, block {block} at call {call}: {found:?}");
            }
        }
    }
    assert_eq!(browser.console(), [""; 0]);
}
