#!/bin/sh
# A version script of one's own does not narrow what a Rust `cdylib` exports.
#
# Guess: `-C link-arg=-Wl,--version-script=...` hides all that the script does not name.
# Seen (rustc 1.95.0, LLD, x86-64 Linux): rustc passes a script of its own that names every `#[no_mangle]` function. With its
# default linker LLD the library exports the union of both scripts: the function that the own script makes local is
# still there.
#
# For whoever ships a C library written in Rust: build a static library, and link the shared one by
# `cc -shared -Wl,--version-script=... -Wl,-u,NAME`.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat >two.rs <<'RUST'
#[unsafe(no_mangle)]
pub extern "C" fn wanted() -> i32 {
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn unwanted() -> i32 {
    2
}
RUST
echo 'SM_0 { global: wanted; local: *; };' >script
rustc --version
rustc --edition 2024 --crate-type cdylib -C link-arg=-Wl,--version-script="$dir/script" two.rs
rustc --edition 2024 --crate-type staticlib -C panic=abort -o libtwo.a two.rs
cc -shared -o libfromstatic.so -Wl,-u,wanted -Wl,--gc-sections -Wl,--version-script=script libtwo.a -lgcc_s -lc
exports() {
    nm -D --defined-only "$1" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | sort | tr '\n' ' '
}
echo "cdylib with the script: $(exports libtwo.so)" | tee seen
echo "static library, linked with the script: $(exports libfromstatic.so)" | tee -a seen
cat >expected <<'TEXT'
cdylib with the script: unwanted wanted 
static library, linked with the script: wanted 
TEXT
diff expected seen
