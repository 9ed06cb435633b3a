//! Files as real tracers, editors and shells write them.

use crate::{Folder, assert_prints, assert_refuses, replay};
use smalloc_terminal::Bytes;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;

#[track_caller]
fn assert_replays(name: &str, trace: impl AsRef<[u8]>, parts: &[&str]) {
    let folder = Folder::new(name);
    let file = folder.file("trace", trace);
    assert_prints(&[&file, "--list", "both"], parts);
}

// ---- Android -----------------------------------------------------------------------------------------------------

/// With times, and with the bytes of a freed block that were in memory.
const NEW_ANDROID: &str = "\
20181: malloc 0x7c41 24 98123456789 98123456999
20181: calloc 0x7c42 3 40 98123457789 98123457999
20182: memalign 0x7c43 64 256 98123458789 98123458999
20182: realloc 0x7c44 0x7c41 4096 24 98123459789 98123459999
20181: free 0x7c42 12 98123460789 98123460999
20181: free 0x7c44 -1 98123461789 98123461999
20182: thread_done 0x0 98123462789
";

#[test]
fn android_of_today() {
    let parts = ["Replayed 6 calls of a trace for memory_replay.", "at the end: 256 B.", "1 ends of threads"];
    assert_replays("new-android", NEW_ANDROID, &parts);
}

/// A request may be refused for its alignment, which can then be any number.
#[test]
fn android_refuses_odd_alignments() {
    let mut trace = String::from("1: malloc 0x10 100\n");
    for align in ["0", "3", "9223372036854775809", "18446744073709551615", "-1"] {
        writeln!(trace, "1: memalign 0x0 {align} 64 5 6").expect("a string takes everything");
    }
    trace += "1: free 0x10\n";
    assert_replays(
        "odd",
        trace,
        &["Replayed 7 calls", "5 requests that the program was refused.", "allocs 1,"],
    );
}

/// An editor or a shell of Windows leaves marks of the encoding, and other line ends.
#[test]
fn marks_of_the_encoding_are_no_text() {
    let folder = Folder::new("marks");
    let wide = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
        let letters = NEW_ANDROID.encode_utf16().flat_map(bytes);
        mark.into_iter().chain(letters).collect::<Vec<u8>>()
    };
    let dos = NEW_ANDROID.replace('\n', "\r\n");
    for (name, trace) in [
        ("utf-8", [b"\xef\xbb\xbf", NEW_ANDROID.as_bytes()].concat()),
        ("dos", [b"\xef\xbb\xbf", dos.as_bytes()].concat()),
        ("little", wide([0xff, 0xfe], u16::to_le_bytes)),
        ("big", wide([0xfe, 0xff], u16::to_be_bytes)),
    ] {
        assert_prints(&[&folder.file(name, trace)], &["Replayed 6 calls", "at the end: 256 B."]);
    }
    let mtrace = "\u{feff}= Start\n@ ./a:[0x1] + 0x10 0x64\n";
    assert_prints(&[&folder.file("mtrace", mtrace)], &["Replayed 1 calls of a trace of mtrace."]);
    let heaptrack = "\u{feff}v 10400 3\n+ 64 1 10\n";
    assert_prints(&[&folder.file("heaptrack", heaptrack)], &["Replayed 1 calls of a trace of heaptrack."]);
}

// ---- heaptrack ---------------------------------------------------------------------------------------------------

/// The command line has line breaks, one of its lines looks like a call, and blocks have call stacks.
#[test]
fn heaptrack_of_a_script() {
    let trace = "v 10400 3\nx 9 /bin/bash\nX /bin/bash -c a=1\nt=2\n- 1\n\nI am one\nI 1000 5e2990\nm 1 -\n\
                 m 1b /tmp/a library\nof two lines 7fdc657ce000 0 1522\nt 7f49 0\nt 7f48 1\n+ 11c00 2 55c215551540\n\
                 c 1a\nR 5\nt 7f47 1\n+ 10 3 55c215600000\n- 55c215551540\n";
    assert_replays("script", trace, &["Replayed 3 calls of a trace of heaptrack.", "at the end: 16 B."]);
    let folder = Folder::new("cut-script");
    let cut = folder.file("trace", "v 10400 3\nX bash -c a=1\nt=2\n- 1\n");
    assert_refuses(&[&cut], "line 3: \"t=2\": not a line of heaptrack");
}

/// heaptrack writes neither the free of `realloc(p, 0)` nor the calls of `memalign` and `pvalloc`, but their frees.
#[test]
fn heaptrack_leaves_calls_out() {
    let trace =
        "v 10400 3\nX ./a\nI 1000 5e298d\nt 7f 0\n+ 64 1 10\nt 8f 0\n+ 64 2 10\n- 10\n- 20\n- 30\nc 1\n";
    let remark = "Not in the trace: heaptrack records no memalign, no pvalloc, and no free by realloc(p, 0).";
    let parts = [
        "Replayed 5 calls",
        "at the end: 0 B.",
        "2 frees of blocks that were never seen.",
        "1 blocks whose free was not written",
        remark,
    ];
    assert_replays("left-out", trace, &parts);
}

// ---- frees that are written late ---------------------------------------------------------------------------------

/// The address is allocated again before its free is written, which then frees nothing.
#[test]
fn late_frees_free_nothing() {
    let late = "1 frees that were written late, after their address was allocated again.";
    for (name, trace, live) in [
        (
            "mtrace",
            "= Start\n@ ./p:[0x1] + 0x1000 0x64\n@ ./p:[0x1] + 0x1000 0xc8\n@ ./p:[0x1] - 0x1000\n\
             @ ./p:[0x1] + 0x2000 0x10\n= End\n",
            "216 B",
        ),
        // One thread moves its block, another gets the old place and is written first.
        (
            "mtrace-realloc",
            "= Start\n@ ./p:[0x1] + 0x1000 0x64\n@ ./p:[0x1] + 0x1000 0xc8\n@ ./p:[0x1] < 0x1000\n\
             @ ./p:[0x1] > 0x3000 0x80\n= End\n",
            "328 B",
        ),
        // The new place of a moved block is one whose free is still to be written.
        (
            "mtrace-onto",
            "= Start\n@ ./p:[0x1] + 0x1000 0x64\n@ ./p:[0x1] + 0x2000 0xc8\n@ ./p:[0x1] < 0x1000\n\
             @ ./p:[0x1] > 0x2000 0x80\n@ ./p:[0x1] - 0x2000\n= End\n",
            "128 B",
        ),
        (
            "heaptrack",
            "v 10400 3\nX a\nI 1000 5\n+ 64 1 1000\n+ c8 2 1000\n- 1000\nt 7f 2\n+ 80 3 3000\n",
            "328 B",
        ),
        ("android", "1: malloc 0x10 100\n2: malloc 0x10 200\n1: free 0x10\n2: malloc 0x20 16\n", "216 B"),
    ] {
        assert_replays(name, trace, &[&format!("at the end: {live}."), late]);
    }
    // Later frees of the address count again.
    let trace = "1: malloc 0x10 100\n2: malloc 0x10 200\n1: free 0x10\n2: free 0x10\n1: malloc 0x10 32\n";
    assert_replays("again", trace, &["at the end: 32 B.", late]);
    let trace = "1: malloc 0x10 100\n2: malloc 0x10 200\n";
    assert_replays("unwritten", trace, &["at the end: 200 B.", "1 blocks whose free was not written"]);
}

/// Four threads share few addresses, and each free is written up to six calls late.
#[test]
fn live_bytes_come_out_right_however_late_frees_are() {
    let mut random = 1_u64;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let (mut trace, mut late) = (String::from("= Start\n"), VecDeque::new());
    let mut live: HashMap<u64, u64> = HashMap::new();
    for _ in 0..5000 {
        let (address, size) = (16 * (1 + draw(20)), 1 + draw(1000));
        match live.remove(&address) {
            Some(_) => late.push_back(format!("@ ./p:[0x1] - {address:#x}\n")),
            None => {
                live.insert(address, size);
                writeln!(trace, "@ ./p:[0x1] + {address:#x} {size:#x}").expect("a string takes everything");
            }
        }
        while late.len() > 6 || draw(3) == 0 && !late.is_empty() {
            // Threads overtake each other.
            let one = draw(late.len() as u64) as usize;
            trace += &late.remove(one).expect("it is one of them");
        }
    }
    late.into_iter().for_each(|line| trace += &line);
    trace += "= End\n";
    let bytes = Bytes(live.values().sum::<u64>() as usize);
    let folder = Folder::new("random");
    let file = folder.file("trace", trace);
    assert_prints(&[&file], &[&format!("at the end: {bytes}."), " frees that were written late"]);
    let report = String::from_utf8_lossy(&replay(&[&file]).stdout).into_owned();
    assert!(!report.contains("not written") && !report.contains("never seen"), "{report}");
}

// ---- mtrace after a fork -----------------------------------------------------------------------------------------

/// Two processes write in pieces of lines, each ending in the middle of one.
#[test]
fn pieces_of_lines_are_passed_over() {
    let trace = "= Start\n@ ./a:[0x1] + 0x1000 0x64\n@ ./a:[0x1] - 0x10@ ./a:[0x1] + 0x2000 0x10\n\
                 9a04013000 0x5201\n@ ./a:[0x1] < 0x2000\n@ ./a:[0x1] < 0x1000\n@ ./a:[0x1] > 0x4000 0x20\n\
                 @ ./a:[0x1] > 0x5000 0x40\n= End\n= End\n";
    let parts =
        ["Replayed 4 calls of a trace of mtrace.", "1 pieces of lines: two processes wrote to this file"];
    assert_replays("pieces", trace, &parts);
    let folder = Folder::new("no-piece");
    let prose = folder.file("prose", "= Start\nOnce upon a time\n@ ./a:[0x1] + 0x1000 0x64\n");
    assert_refuses(&[&prose], "line 2: \"Once upon a time\": not a line of mtrace");
    let cut = folder.file("cut", "= Start\n@ ./a:[0x1] + 0x1000 0x64\n@ ./a:[0x1] + 0x20");
    assert_refuses(&[&cut], "line 3: \"@ ./a:[0x1] + 0x20\": not a line of mtrace");
}

// ---- what is refused ---------------------------------------------------------------------------------------------

/// Contents of a file that is not text are escaped before they reach the terminal.
#[test]
fn refusals_are_printable() {
    let folder = Folder::new("garbage");
    let mut garbage: Vec<u8> = (0..=255).cycle().take(4000).collect();
    garbage.insert(0, 0xc3);
    let escapes =
        b"1: malloc 0x10 9\n\x1b[2J\x1b]0;title\x07\xff\xfe \xc2\x9b31m\x08 and more, until it is cut\n"
            .to_vec();
    for (name, contents, error) in [
        ("garbage", garbage.clone(), "the file is not text, and in no format that can be read"),
        (
            "latin",
            b"Gr\xfc\xdfe aus dem Wald\n".to_vec(),
            r#"line 1: "Gr\xfc\xdfe aus dem Wald" is in no format"#,
        ),
        ("escapes", escapes, "line 2 is not text, and not a line of memory_replay"),
        ("amid", [b"= Start\n", garbage.as_slice()].concat(), "line 2 is not text, and not a line of mtrace"),
        ("heaptrack", [b"v 10400 3\n", garbage.as_slice()].concat(), "line 2 is not text, and"),
        ("title", b"1: malloc 0x10 9\n\x1b[2J\x1b]0;title\n".to_vec(), r#"line 2: "\u{1b}[2J\u{1b}]0;title"#),
        ("program", b"\x7fELF\x02\x01\x01\0\0\0".to_vec(), "the file is a program or a library"),
        ("lz4", b"\x04\x22\x4d\x18\x64\x40\xa7\0\0\0".to_vec(), "the file is packed by lz4"),
        ("7z", b"7z\xbc\xaf\x27\x1c\0\x04\0\0".to_vec(), "the file is a 7-Zip archive"),
        ("control\n\x1b[31mname", b"prose\n".to_vec(), "line 1: \"prose\" is in no format"),
    ] {
        let file = folder.file(name, contents);
        assert_refuses(&[&file], error);
        let stderr = replay(&[&file]).stderr;
        let text = String::from_utf8(stderr).expect("a message is text");
        assert!(!text.trim_end().contains(char::is_control) && text.len() < 400, "{text:?}");
    }
}
