//! Shared by the programs that show a heap on a terminal: [sizes](parse_size) as arguments, [numbers](Bytes) as text,
//! a heap's [report](Report) and [map](map_text), and the [files](PictureFile) that pictures are written to.
//!
//! The tool in `crates/tool` and the examples of `smalloc-global` use it.

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod arguments;
mod numbers;
mod picture_file;
mod report;

pub use arguments::{List, parse_size};
pub use numbers::{Bytes, Count};
pub use picture_file::PictureFile;
pub use report::{HopChart, Report, map_text};
