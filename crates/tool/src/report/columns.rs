//! The lives of all blocks as columns of numbers that pack well and unpack fast.
//!
//! Each column has one number for each life, in the order of births, as LEB128: seven bits a byte, the lowest first.
//! A column is compressed as zlib does, which browsers undo, and written in Base64.

use std::io::Write;
use std::thread;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::replay::{ALIVE, Life, Lives, Residue};

/// The most bytes of all columns in Base64.
const MOST: usize = 29 << 20;
/// The effort of the compressor.
const LEVEL: u32 = 2;

/// The names of the columns.
const NAMES: [&str; 8] = ["births", "calls", "offsets", "sizes", "hops", "threads", "stacks", WEIGHTS];
/// The column that is left out if each number is 1.
const WEIGHTS: &str = "weights";

/// A column in Base64, and its name.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) base64: String,
}

/// Packs all lives. If they take too much room, the smallest are dropped first.
pub(super) fn columns(lives: &mut Lives) -> Result<Vec<Column>> {
    loop {
        let packed = pack(&lives.all)?;
        let bytes: usize = packed.iter().map(|column| column.base64.len()).sum();
        let before = lives.all.len();
        if bytes > MOST {
            lives.keep((before as f64 * 0.95 * MOST as f64 / bytes as f64) as usize);
        }
        if lives.all.len() == before {
            return Ok(packed);
        }
    }
}

/// The grid of dropped lives, as 32-bit floating-point numbers.
pub(super) fn residue(residue: &Residue) -> Result<Column> {
    let bytes: Vec<u8> = residue.cells.iter().flat_map(|cell| cell.to_le_bytes()).collect();
    Ok(Column { name: "residue", base64: compress(&bytes)? })
}

fn pack(lives: &[Life]) -> Result<Vec<Column>> {
    let column = |name: &'static str| -> Result<Column> {
        let mut bytes = Vec::with_capacity(lives.len() * 2);
        let (mut birth, mut end) = (0, 0);
        for life in lives {
            let number = match name {
                "births" => u64::from(life.birth - birth),
                // 0 is a block that is in use at the end.
                "calls" if life.death == ALIVE => 0,
                "calls" => u64::from(life.death - life.birth) + 1,
                // From the end of the block before.
                "offsets" => zigzag(i64::from(life.offset) - end),
                "sizes" => life.size,
                "hops" => u64::from(life.hops),
                "threads" => u64::from(life.thread),
                WEIGHTS => u64::from(life.weight),
                _ => u64::from(life.stack),
            };
            leb128(&mut bytes, number);
            (birth, end) = (life.birth, life.extent().end as i64);
        }
        Ok(Column { name, base64: compress(&bytes)? })
    };
    thread::scope(|scope| {
        let has_weights = lives.iter().any(|life| life.weight != 1);
        let names = NAMES.into_iter().filter(|&name| name != WEIGHTS || has_weights);
        let threads: Vec<_> = names.map(|name| scope.spawn(move || column(name))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a column does not panic")).collect()
    })
}

/// Small numbers of either sign as small numbers.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn leb128(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn compress(bytes: &[u8]) -> Result<String> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(LEVEL));
    encoder.write_all(bytes)?;
    Ok(STANDARD.encode(encoder.finish()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_seven_bits_a_byte() {
        let mut bytes = Vec::new();
        [0, 127, 128, u64::MAX].into_iter().for_each(|number| leb128(&mut bytes, number));
        assert_eq!(bytes[..4], [0, 127, 0x80, 1]);
        assert_eq!(bytes.len(), 4 + 10);
        assert_eq!([0, -1, 1, -2, i64::MIN].map(zigzag), [0, 1, 2, 3, u64::MAX]);
    }
}
