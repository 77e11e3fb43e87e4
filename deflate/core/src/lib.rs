//! Takes gzip files apart into plain bytes and a recipe, and puts them together again, bit for bit.
//!
//! A gzip file is more than its plain bytes: the encoder chose matches, block borders and codes. A recipe holds these choices, and
//! only as far as they differ from what a known encoder would have chosen: some bytes for a whole layer if the encoder is known,
//! one to five per cent of the compressed bytes if not.
//!
//! The way out: [`Parser`] is fed the file and gives [`Segment`]s of some 4 MiB of plain bytes; a [`Chooser`] names the encoder
//! that each looks like; [`encode`] makes a record of it, proven by decoding. The way back: [`Head`] reads what a record covers,
//! [`decode`] makes its bits from its plain bytes, [`Assembler`] joins them. The stream is defined in bundles/FORMAT.md.
//!
//! No `unsafe`, no threads, no files, nothing but `std`: records are independent, so a caller runs them side by side as it likes.
//! Whatever the input, all functions end with a value or an [`Error`], in bounded time and memory.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod assemble;
mod bits;
mod choose;
mod code;
mod code_lengths;
mod crc;
mod error;
mod header;
mod matches;
mod model;
mod parser;
mod predict;
mod prefix;
mod range;
mod record;
mod remake;
mod segment;
mod tables;
mod token;

pub use assemble::Assembler;
pub use choose::{Chooser, Plan};
pub use error::{Error, Result};
pub use parser::{Limits, Parser, Step};
pub use predict::Choice;
pub use record::{decode, encode, Head, Made};
pub use remake::Remaker;
pub use segment::{Segment, HISTORY, MAX_PLAIN};

#[cfg(test)]
mod tests;
