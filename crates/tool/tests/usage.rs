//! Help, completions and the pages of the manual.

use std::process::{Command, Output};

fn smalloc(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_smalloc")).args(arguments).output().expect("the command starts")
}

#[track_caller]
fn assert_prints(arguments: &[&str], parts: &[&str]) {
    let output = smalloc(arguments);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for part in parts {
        assert!(stdout.contains(part), "{part:?} is not in\n{stdout}");
    }
}

#[test]
fn help_has_examples() {
    assert_prints(
        &["--help"],
        &[
            "Usage: smalloc <COMMAND>",
            "replay",
            "report",
            "diff",
            "pins",
            "convert",
            "top",
            "completions",
            "man",
            "Examples:",
        ],
    );
    let options =
        ["--list <LIST>", "--region <SIZE>", "--of <N>", "--at <N>", "--raster <FILE>", "--hops <FILE>"];
    assert_prints(&["replay", "--help"], &options);
    let pictures =
        ["--memory <FILE>", "--map <FILE>", "--holes <FILE>", "smalloc replay program.rec --list both"];
    assert_prints(&["replay", "-h"], &pictures);
    assert_prints(&["top", "--help"], &["--interval <SECONDS>", "--once", "--wait", "smalloc top --once"]);
    assert_prints(
        &["report", "--help"],
        &["--output <HTML>", "--list <LIST>", "--region <SIZE>", "--of <N>"],
    );
    assert_prints(&["diff", "--help"], &["--by <KIND>", "--rows <N>", "smalloc diff before.rec after.rec"]);
    assert_prints(
        &["pins", "--help"],
        &["--at <N>", "--by <KIND>", "--rows <N>", "smalloc pins program.rec"],
    );
    assert_prints(
        &["run", "--help"],
        &["--record <FILE>", "--live <FILE>", "--region <SIZE>", "--library <FILE>"],
    );
    assert_prints(
        &["convert", "--help"],
        &[
            "--to <FORMAT>",
            "perfetto",
            "dhat",
            "folded",
            "pprof",
            "firefox",
            "--output <OUT>",
            "--value <NUMBER>",
        ],
    );
    assert_prints(&["--version"], &[concat!("smalloc ", env!("CARGO_PKG_VERSION"))]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [&[][..], &["frob"], &["replay"], &["replay", "x", "y"], &["replay", "x", "--list", "z"]]
    {
        let output = smalloc(arguments);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--help"), "{arguments:?}");
    }
}

/// A picture is not written under the name of another format.
#[test]
fn the_name_of_a_picture_says_its_format() {
    for (option, name, right) in [("--map", "x.png", "x.svg"), ("--raster", "y.SVG", "y.png")] {
        let output = smalloc(&["replay", "/dev/null", option, name]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&format!("cannot write {name}: ")) && error.contains(right), "{error}");
    }
}

#[test]
fn shells_complete() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert_prints(&["completions", shell], &["smalloc", "replay", "raster", "interval"]);
    }
}

#[test]
fn the_manual_has_a_page_for_each_subcommand() {
    assert_prints(&["man"], &[".TH smalloc 1", "smalloc\\-replay(1)", "SMALLOC_LIVE"]);
    assert_prints(&["man", "replay"], &[".TH smalloc-replay 1", "\\-\\-raster", "smalloc replay \\-"]);
    assert_prints(&["man", "report"], &[".TH smalloc-report 1", "\\-\\-output"]);
    assert_prints(&["man", "diff"], &[".TH smalloc-diff 1", "\\-\\-rows"]);
    assert_prints(&["man", "run"], &[".TH smalloc-run 1", "SMALLOC_PRELOAD"]);
    assert_prints(&["man", "convert"], &[".TH smalloc-convert 1", "\\-\\-value"]);
    assert_prints(&["man", "top"], &[".TH smalloc-top 1", "\\-\\-interval"]);
    let output = smalloc(&["man", "frob"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stderr, b"smalloc man: \"frob\": there is no such subcommand\n");
}
