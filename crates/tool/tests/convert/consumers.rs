//! The tools that the formats are for.

use std::env;
use std::process::Command;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::{Folder, GROW, INSERT, MAIN, OTHER, STACKS, converted, two_threads};

/// The viewer that comes with valgrind.
const DHAT_VIEWER: &str = "/usr/libexec/valgrind/dh_view.html";

/// Skips a test for want of a tool, which a CI may not lack.
fn skip(tool: &str) {
    assert!(env::var_os("CI").is_none(), "missing: {tool}");
    eprintln!("not tested, for want of {tool}");
}

/// Prints the trace as JSON: all tracks by name, with their counters, slices and instants in the order of time.
const READ_PERFETTO: &str = "
import json, sys
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as messages
trace = messages.Trace()
trace.ParseFromString(open(sys.argv[1], 'rb').read())
tracks, events = {}, []
for packet in trace.packet:
    assert packet.trusted_packet_sequence_id == 1
    if packet.HasField('track_descriptor'):
        track = packet.track_descriptor
        assert track.uuid not in tracks
        parent = tracks[track.parent_uuid]['name'] if track.HasField('parent_uuid') else None
        unit = messages.CounterDescriptor.Unit.Name(track.counter.unit) if track.HasField('counter') else None
        tracks[track.uuid] = { 'name': track.name, 'parent': parent, 'unit': unit, 'events': [] }
    else:
        events.append((packet.timestamp, packet.track_event))
assert trace.packet[0].sequence_flags == messages.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
for time, event in sorted(events, key=lambda event: event[0]):
    track = tracks[event.track_uuid]['events']
    if event.type == messages.TrackEvent.TYPE_COUNTER:
        track.append([time, getattr(event, event.WhichOneof('counter_value_field'))])
    elif event.type == messages.TrackEvent.TYPE_SLICE_BEGIN:
        notes = { note.name: getattr(note, note.WhichOneof('value')) for note in event.debug_annotations }
        track.append([time, None, event.name, list(event.categories), notes])
    elif event.type == messages.TrackEvent.TYPE_SLICE_END:
        assert track[-1][1] is None
        track[-1][1] = time - track[-1][0]
    else:
        assert event.type == messages.TrackEvent.TYPE_INSTANT
        track.append([time, event.name])
print(json.dumps(list(tracks.values())))
";

/// The tracks of a trace, as the classes of the Python package read it.
fn perfetto_tracks(path: &str) -> Option<Vec<Value>> {
    let named = env::var("SMALLOC_TEST_PYTHON").ok();
    let python = named.as_deref().unwrap_or("python3");
    let found = Command::new(python).args(["-c", "import perfetto"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        assert!(named.is_none(), "{python} has no package perfetto");
        skip("a Python with the package perfetto");
        return None;
    }
    let output = Command::new(python).args(["-c", READ_PERFETTO, path]).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("it prints JSON"))
}

/// The events of the only track whose name begins so.
#[track_caller]
fn events<'a>(tracks: &'a [Value], name: &str) -> &'a Value {
    let mut found =
        tracks.iter().filter(|track| track["name"].as_str().is_some_and(|it| it.starts_with(name)));
    let track = found.next().unwrap_or_else(|| panic!("no track {name:?} in {tracks:#?}"));
    assert!(found.next().is_none(), "two tracks {name:?}");
    &track["events"]
}

#[test]
fn perfetto_reads_counters_sites_and_the_map() {
    let folder = Folder::new("perfetto");
    let Some(tracks) = perfetto_tracks(&converted(&folder, STACKS, "perfetto", &[])) else { return };
    // A bin is one call here.
    let microseconds = |numbers: [u64; 9]| -> Value {
        numbers.iter().zip(1..).map(|(&number, call)| json!([call * 1000, number])).collect()
    };
    assert_eq!(*events(&tracks, "live: "), microseconds([100, 200, 1200, 1100, 100, 0, 16, 48, 16]));
    assert_eq!(*events(&tracks, "top: ").get(8).expect("the end"), json!([9000, 16]));
    assert_eq!(*events(&tracks, "holes: ").get(3).expect("call 4"), json!([4000, 1.0]));
    for name in ["used: ", "committed: ", "hops of a search, mean", "hops of a search, most"] {
        assert_eq!(events(&tracks, name).as_array().map(Vec::len), Some(9), "{name}");
    }
    let units = ["used: ", "holes: "].map(|name| {
        let track = tracks.iter().find(|track| track["name"].as_str().is_some_and(|it| it.starts_with(name)));
        track.expect("it is there")["unit"].clone()
    });
    assert_eq!(units, ["UNIT_SIZE_BYTES", "UNIT_COUNT"]);
    let peak = json!([[3000, "peak: 1.2 KiB live after call 3"]]);
    assert_eq!(*events(&tracks, "Heap over time"), peak);

    // Sites, the largest peak first.
    let sites: Vec<&Value> = tracks.iter().filter(|it| it["parent"] == "Live bytes by site").collect();
    let names: Vec<&str> = sites.iter().filter_map(|site| site["name"].as_str()).collect();
    assert_eq!(names, [GROW, INSERT, OTHER]);
    assert_eq!(sites[0]["events"], json!([[0, 0], [3000, 1000], [5000, 0]]));
    assert_eq!(sites[1]["events"], json!([[0, 0], [1000, 100], [2000, 200], [4000, 100], [6000, 0]]));

    let thread = "an unknown thread";
    let notes = json!({ "offset": 0, "size": 16, "call": 7, "hops": 0, "thread": thread });
    assert_eq!(*events(&tracks, "Heap map at the end"), json!([[0, 16, OTHER, ["used"], notes]]));
    let tracks = perfetto_tracks(&converted(&folder, STACKS, "perfetto", &["--at", "4"])).expect("as before");
    let map = events(&tracks, "Heap map after call 4");
    let slices: Vec<Value> =
        map.as_array().expect("an array").iter().map(|slice| json!([slice[0], slice[1], slice[2]])).collect();
    assert_eq!(json!(slices), json!([[0, 112, INSERT], [112, 112, "hole of 112 B"], [224, 1008, GROW]]));
}

#[test]
fn perfetto_reads_a_trace_without_stacks() {
    let folder = Folder::new("perfetto-threads");
    let Some(tracks) = perfetto_tracks(&converted(&folder, &two_threads(), "perfetto", &[])) else { return };
    assert!(tracks.iter().all(|track| track["parent"] != "Live bytes by site"));
    let map = events(&tracks, "Heap map at the end").as_array().expect("an array").clone();
    assert_eq!(map.len(), 99, "50 blocks and the holes between them");
    assert_eq!((&map[0][2], &map[0][4]["thread"]), (&json!("block of 48 B"), &json!("thread 71")));
}

#[test]
fn the_viewer_of_dhat_shows_every_stack() {
    if !std::path::Path::new(DHAT_VIEWER).is_file() {
        return skip("valgrind with its dh_view.html");
    }
    let Some(mut browser) = Browser::start("dhat") else { return };
    let folder = Folder::new("dhat-viewer");
    for (trace, parts) in [
        (STACKS, &["1,248 bytes", "5 blocks", MAIN, INSERT, GROW, OTHER][..]),
        (&two_threads(), &["252,400 bytes", "100 blocks", "blocks of 48 bytes"]),
    ] {
        let text = std::fs::read_to_string(converted(&folder, trace, "dhat", &[])).expect("it is there");
        browser.call("Page.navigate", json!({ "url": format!("file://{DHAT_VIEWER}") }));
        browser.wait_until(
            "document.readyState === 'complete' && typeof gInput === 'object' && gInput.onchange",
        );
        let file = json!(text);
        browser.value(&format!(
            "(() => {{ const files = new DataTransfer(); files.items.add(new File([{file}], 'dhat.json')); \
             gInput.files = files.files; gInput.onchange(); }})()"
        ));
        browser.wait_until("!document.body.innerText.includes('Loading...')");
        let shown = browser.value("document.body.innerText");
        let shown = shown.as_str().expect("a text");
        for part in parts {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
        assert!(!shown.contains("Error"), "{shown}");
        assert!(browser.console().is_empty());
    }
}

#[test]
fn go_pprof_reads_all_four_values() {
    let Some(pprof) = env::var_os("SMALLOC_TEST_PPROF") else {
        return skip("Go's pprof, which SMALLOC_TEST_PPROF would name");
    };
    let folder = Folder::new("pprof");
    let path = converted(&folder, STACKS, "pprof", &[]);
    let read = |arguments: &[&str]| {
        let output = Command::new(&pprof).args(arguments).arg(&path).output().expect("pprof starts");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("it prints text")
    };
    // In use is the default.
    let flat = |text: &str, name: &str| -> Vec<String> {
        let line =
            text.lines().find(|line| line.ends_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let text = read(&["-top", "-nodecount=0", "-nodefraction=0"]);
    assert!(text.contains("Type: inuse_space") && text.contains("16B, 100% of 16B total"), "{text}");
    for (value, unit, [insert, grow, main]) in [
        ("alloc_space", "B", [("200", "1200"), ("1000", "1000"), ("0", "1248")]),
        ("alloc_objects", "", [("2", "3"), ("1", "1"), ("0", "5")]),
    ] {
        let index = format!("-sample_index={value}");
        let text = read(&["-top", "-nodecount=0", "-nodefraction=0", &index]);
        for (name, (own, all)) in [(INSERT, insert), (GROW, grow), (MAIN, main)] {
            let line = flat(&text, name);
            let with_unit =
                |number: &str| if number == "0" { "0".to_owned() } else { format!("{number}{unit}") };
            assert_eq!((&line[0], &line[3]), (&with_unit(own), &with_unit(all)), "{value} of {name}: {text}");
        }
    }
    let raw = read(&["-raw"]);
    assert!(raw.contains("inuse_objects/count inuse_space/bytes[dflt]"), "{raw}");
    assert!(read(&["-traces", "-sample_index=alloc_space"]).contains("1000B   lib+0x100"));
}

/// Frames of an allocator are left out, and those that only look like one stay, with all that they call.
#[test]
fn go_pprof_leaves_allocators_out() {
    let Some(pprof) = env::var_os("SMALLOC_TEST_PPROF") else {
        return skip("Go's pprof, which SMALLOC_TEST_PPROF would name");
    };
    let folder = Folder::new("pprof-allocators");
    let (start, new) = ("/a/__rust_begin_short_backtrace", "/a/operator new");
    let trace = format!(
        "v 10400 3\nm {:x} {start} 1000 0 1000\nm b /nowhere/in 5000 0 1000\nm {:x} {new} 9000 0 1000\n\
         t 1100 0\nt 5100 1\nt 9100 2\n+ 64 3 10\n",
        start.len(),
        new.len()
    );
    let path = converted(&folder, &trace, "pprof", &[]);
    let output = Command::new(pprof).args(["-top", &path]).output().expect("pprof starts");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    let rows: Vec<&str> =
        text.lines().skip_while(|line| !line.contains("flat%")).skip(1).map(str::trim).collect();
    assert!(rows[0].starts_with("100B") && rows[0].ends_with("in+0x100"), "{text}");
    assert!(rows[1].starts_with("0 ") && rows[1].ends_with("__rust_begin_short_backtrace+0x100"), "{text}");
    assert_eq!(rows.len(), 2, "{text}");
}

#[test]
fn inferno_draws_folded_stacks() {
    let folder = Folder::new("inferno");
    let text = std::fs::read_to_string(converted(&folder, STACKS, "folded", &[])).expect("it is there");
    let mut options = inferno::flamegraph::Options::default();
    options.count_name = "bytes".to_owned();
    let mut svg = Vec::new();
    inferno::flamegraph::from_lines(&mut options, text.lines(), &mut svg).expect("it reads every line");
    let svg = String::from_utf8(svg).expect("a text");
    for title in
        ["all (1,200 bytes, 100%)", "bin+0x200 (1,200 bytes, 100.00%)", "lib+0x100 (1,000 bytes, 83.33%)"]
    {
        assert!(svg.contains(title), "{title:?} is not in\n{svg}");
    }
}
