#!/bin/sh
# fxprof-processed-profile gives an allocation sample of another thread a stack of the wrong table.
#
# Guess: a sample that is added for a thread shows the stack that was made for that thread.
# Seen (fxprof-processed-profile 0.8.1): all samples go to the first thread of the process, with the stack's number as it
# is in the table of the thread that it was made for. The sample has another stack, or a number beyond the table.
#
# For whoever writes allocations for the Firefox Profiler: make every stack for the first thread, and add there.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "samples"
version = "0.1.0"
edition = "2024"
[dependencies]
fxprof-processed-profile = "=0.8.1"
serde_json = "1"
TOML
cat >src/main.rs <<'RUST'
use fxprof_processed_profile::*;

fn main() {
    let start = Timestamp::from_millis_since_reference(0.0);
    let epoch = ReferenceTimestamp::from_millis_since_unix_epoch(0.0);
    let mut profile = Profile::new("samples", epoch, SamplingInterval::from_millis(1));
    let process = profile.add_process("process", 1, start);
    let [first, second] = [1, 2].map(|thread| profile.add_thread(process, thread, start, thread == 1));
    let mut stack = |thread, name| {
        let frame = Frame::Label(profile.intern_string(name));
        let category_pair = CategoryHandle::OTHER.into();
        let frame = FrameInfo { frame, category_pair, flags: FrameFlags::empty() };
        profile.intern_stack_frames(thread, [frame].into_iter())
    };
    stack(first, "of the first thread");
    let own = stack(second, "of the second thread");
    profile.add_allocation_sample(second, start, own, 16, 100);

    let json = serde_json::to_value(&profile).unwrap();
    let thread = &json["threads"][0];
    let at = |column: &serde_json::Value, row: &serde_json::Value| column[row.as_u64().unwrap() as usize].clone();
    let stack = &thread["nativeAllocations"]["stack"][0];
    let frame = at(&thread["stackTable"]["frame"], stack);
    let function = at(&thread["frameTable"]["func"], &frame);
    let name = at(&thread["funcTable"]["name"], &function);
    let strings = thread.get("stringArray").unwrap_or(&json["shared"]["stringArray"]);
    println!("added with the stack of the second thread, has the stack {}", at(strings, &name));
}
RUST
cargo run --quiet | tee seen
cat >expected <<'TEXT'
added with the stack of the second thread, has the stack "of the first thread"
TEXT
diff expected seen
