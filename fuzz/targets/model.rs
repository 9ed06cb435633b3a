//! The model test with programs that libFuzzer finds: see `tests/common/run.rs`.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::run::{Program, run};
use libfuzzer_sys::fuzz_target;
use smalloc::{Indexed, Linked};

fuzz_target!(|bytes: &[u8]| {
    let program = Program::decode(bytes);
    run::<Linked>(&program);
    run::<Indexed>(&program);
});
