//! Traces that are packed, once or twice. Their contents show the packing; the names of the files here do not.

use crate::{Folder, assert_prints, assert_refuses, command, record_threads, replay};
use smalloc::Linked;
use std::fmt::Write as _;
use std::fs;
use std::io::{Cursor, Write};
use std::process::Stdio;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const TRACE: &[u8] = b"1: malloc 0x10 100\n2: calloc 0x20 3 8\n1: free 0x10\n1: free 0x99\n";
const REPLAYED: &str = "Replayed 4 calls of a trace for memory_replay.";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).expect("it is packed");
    packed.finish().expect("it is packed")
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut packed = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    packed.write_all(bytes).expect("it is packed");
    packed.finish().expect("it is packed")
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut packed = lzma_rust2::XzWriter::new(Vec::new(), options).expect("the options are sound");
    packed.write_all(bytes).expect("it is packed");
    packed.finish().expect("it is packed")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// An archive of these files, not compressed.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in files {
        if name.ends_with('/') {
            archive.add_directory(*name, stored).expect("a folder is added");
        } else {
            archive.start_file(*name, stored).expect("a file is added");
            archive.write_all(bytes).expect("it is written");
        }
    }
    archive.finish().expect("the archive is written").into_inner()
}

fn zip_one(bytes: &[u8]) -> Vec<u8> {
    zip(&[("trace", bytes)])
}

type Pack = fn(&[u8]) -> Vec<u8>;
const PACKINGS: [(&str, Pack); 5] =
    [("gzip", gzip), ("bzip2", bzip2), ("xz", xz), ("zstd", zstd), ("zip", zip_one)];

#[test]
fn every_packing_is_read() {
    let folder = Folder::new("packed");
    for (name, pack) in PACKINGS {
        let file = folder.file(name, pack(TRACE));
        assert_prints(&[&file, "--list", "both"], &[REPLAYED]);
        assert_prints(&[&folder.file("twice", gzip(&pack(TRACE)))], &[REPLAYED]);
        assert_refuses(&[&folder.file("nothing", pack(b""))], "the file is empty");

        let mut child =
            command(&["-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the command starts");
        child.stdin.take().expect("piped").write_all(&pack(TRACE)).expect("it is read");
        let output = child.wait_with_output().expect("the command ends");
        assert!(String::from_utf8_lossy(&output.stdout).contains(REPLAYED), "{name}: {output:?}");
    }
    let endless = (0..6).fold(TRACE.to_vec(), |packed, _| gzip(&packed));
    assert_refuses(&[&folder.file("endless", endless)], "the file is packed more than 4 times over");
    // An archive made by the command `zip`.
    let android = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/android.zip");
    assert_prints(&[android], &["Replayed 6 calls of a trace for memory_replay.", "at the end: 256 B."]);
}

#[test]
fn recordings_are_unpacked() {
    let folder = Folder::new("recordings");
    let path = folder.path("recording");
    record_threads::<Linked>(&path);
    let bytes = fs::read(&path).expect("the recording is there");
    for (name, pack) in PACKINGS {
        let compared = match cfg!(feature = "hardened") {
            true => "Not compared with the recording",
            false => "The same as recorded",
        };
        assert_prints(&[&folder.file(name, pack(&bytes))], &[compared, "a recording of smalloc"]);
    }
}

/// A file may be packed in parts, one behind the other, and zstd has parts to be skipped.
#[test]
fn parts_are_read_one_after_the_other() {
    let folder = Folder::new("parts");
    for (name, pack) in PACKINGS.into_iter().filter(|(name, _)| *name != "zip") {
        let file = folder.file(name, [pack(TRACE), pack(TRACE)].concat());
        assert_prints(&[&file], &["Replayed 8 calls"]);
    }
    let skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd";
    let file = folder.file("skip", [skipped.as_slice(), &zstd(TRACE), skipped, &zstd(TRACE)].concat());
    assert_prints(&[&file], &["Replayed 8 calls"]);
}

#[test]
fn an_archive_with_one_file_is_that_file() {
    let folder = Folder::new("archive");
    let mac = zip(&[("traces/", b""), ("traces/a.txt", TRACE), ("__MACOSX/traces/._a.txt", b"Mac OS X")]);
    assert_prints(&[&folder.file("mac", mac)], &[REPLAYED]);
    let two = folder.file("two", zip(&[("a.txt", TRACE), ("folder/b\x1b[31m.txt", TRACE)]));
    let error =
        r#"there are 2 files in it: "a.txt", "folder/b\u{1b}[31m.txt" (read one: unzip -p ARCHIVE "a.txt" |"#;
    assert_refuses(&[&two], &format!("{two}: the file is a zip archive: {error}"));
    let names: Vec<String> = (0..100).map(|number| format!("trace-{number}.txt")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), TRACE)).collect();
    assert_refuses(&[&folder.file("many", zip(&many))], r#"there are 100 files in it: "trace-0.txt", "#);
    assert_refuses(&[&folder.file("none", zip(&[("folder/", b"")]))], "there is no file in it");

    let mut encrypted = zip_one(TRACE);
    let central = encrypted.windows(4).position(|bytes| bytes == b"PK\x01\x02").expect("a list of files");
    encrypted[6] |= 1;
    encrypted[central + 8] |= 1;
    assert_refuses(&[&folder.file("encrypted", encrypted)], "the file in it is encrypted");
}

/// The part that can be unpacked is replayed, and then the error is reported.
#[test]
fn damage_is_told_in_words() {
    let folder = Folder::new("damage");
    let mut trace = String::new();
    let mut random = 1_u64;
    for _ in 0..40_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        writeln!(trace, "1: malloc {:#x} {}", random >> 20, random >> 54).expect("a string takes everything");
    }
    for (name, pack) in PACKINGS {
        let whole = pack(trace.as_bytes());
        let file = folder.file(name, &whole[..whole.len() * 3 / 4]);
        let output = replay(&[&file]);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        if name == "zip" {
            // The list of its files is at its end.
            assert!(stderr.contains("the file is a zip archive: "), "{stderr}");
        } else {
            let words = format!("the file is packed by {name}, and damaged or cut off: ");
            assert!(stderr.contains(&words), "{name}: {stderr}");
            assert!(stdout.contains("The rest of it cannot be read"), "{name}: {stdout}");
        }
        assert!(!stderr.trim_end().contains(char::is_control), "{name}: {stderr:?}");
    }
    let mut stored = zip_one(TRACE);
    let at = stored.windows(TRACE.len()).position(|bytes| bytes == TRACE).expect("it is not packed");
    stored[at + 15] ^= 1;
    let sum = "the file is packed by zip, and damaged or cut off: its checksum is another one";
    assert_refuses(&[&folder.file("sum", stored)], sum);
}
