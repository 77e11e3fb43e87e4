//! Prefix codes: decoding tables for the parser, canonical codes for the writer.

use crate::error::{Error, Result};

const FAST_BITS: usize = 11;

/// A canonical prefix code of at most 320 symbols and 15 bits, ready for decoding.
pub struct Prefix {
    /// symbol * 16 + bits, for all codes of up to 11 bits; 0 for longer ones.
    fast: Vec<u16>,
    counts: [u16; 16],
    symbols: [u16; 320],
}

/// Which incomplete codes are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// Any.
    Any,
    /// None but a single code of one bit, or no code at all.
    OneOrAll,
    /// None.
    All,
}

impl Prefix {
    pub fn new() -> Prefix {
        Prefix { fast: vec![0; 1 << FAST_BITS], counts: [0; 16], symbols: [0; 320] }
    }

    /// Takes the code with these lengths.
    pub fn build(&mut self, lengths: &[u8], completeness: Completeness) -> Result<()> {
        self.counts = [0; 16];
        for length in lengths {
            self.counts[*length as usize] += 1;
        }
        self.counts[0] = 0;
        let (left, longest) = room_left(&self.counts)?;
        let complete = match completeness {
            Completeness::Any => true,
            Completeness::OneOrAll => left == 0 || longest <= 1,
            Completeness::All => left == 0,
        };
        if !complete {
            return Err(Error::Gzip("a prefix code is incomplete"));
        }
        let mut offset = [0u16; 17];
        for bits in 1..16 {
            offset[bits + 1] = offset[bits] + self.counts[bits];
        }
        let mut next = first_codes(&self.counts);
        self.fast.fill(0);
        for (symbol, length) in lengths.iter().enumerate() {
            let bits = *length as usize;
            if bits == 0 {
                continue;
            }
            self.symbols[offset[bits] as usize] = symbol as u16;
            offset[bits] += 1;
            if bits <= FAST_BITS {
                let mut at = (next[bits].reverse_bits() >> (32 - bits)) as usize;
                while at < 1 << FAST_BITS {
                    self.fast[at] = (symbol as u16) << 4 | bits as u16;
                    at += 1 << bits;
                }
            }
            next[bits] += 1;
        }
        Ok(())
    }

    /// The symbol at the start of `word` and its bits; 0 bits if none is there.
    #[inline(always)]
    pub fn decode(&self, word: u64) -> (usize, u32) {
        let entry = self.fast[word as usize & ((1 << FAST_BITS) - 1)];
        if entry != 0 {
            return ((entry >> 4) as usize, (entry & 15) as u32);
        }
        self.decode_long(word)
    }

    #[cold]
    #[inline(never)]
    fn decode_long(&self, word: u64) -> (usize, u32) {
        let (mut code, mut first, mut index) = (0u32, 0u32, 0u32);
        for bits in 1..16u32 {
            code |= (word >> (bits - 1)) as u32 & 1;
            let count = self.counts[bits as usize] as u32;
            if code < first + count {
                return (self.symbols[(index + code - first) as usize] as usize, bits);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        (0, 0)
    }
}

/// How many codes of 15 bits are unused, and the longest length there is.
fn room_left(counts: &[u16; 16]) -> Result<(i32, usize)> {
    let (mut left, mut longest) = (1i32, 0);
    for (bits, count) in counts.iter().enumerate().skip(1) {
        left = (left << 1) - *count as i32;
        if left < 0 {
            return Err(Error::Gzip("a prefix code has too many codes"));
        }
        if *count > 0 {
            longest = bits;
        }
    }
    Ok((left, longest))
}

fn first_codes(counts: &[u16; 16]) -> [u32; 17] {
    let mut first = [0u32; 17];
    for bits in 1..16 {
        first[bits + 1] = (first[bits] + counts[bits] as u32) << 1;
    }
    first
}

/// A code as it is written, its first bit lowest, and its bits; 0 bits if the symbol has none.
pub type Code = (u16, u8);

/// The codes of all symbols with these lengths.
pub fn codes(lengths: &[u8], out: &mut [Code]) -> Result<()> {
    let mut counts = [0u16; 16];
    for length in lengths {
        counts[*length as usize & 15] += 1;
    }
    counts[0] = 0;
    room_left(&counts).map_err(|_| Error::Recipe("a prefix code has too many codes"))?;
    let mut next = first_codes(&counts);
    for (length, code) in lengths.iter().zip(out) {
        let bits = *length as usize & 15;
        *code = (0, 0);
        if bits > 0 {
            *code = ((next[bits].reverse_bits() >> (32 - bits)) as u16, bits as u8);
            next[bits] += 1;
        }
    }
    Ok(())
}
