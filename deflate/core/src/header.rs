//! The header of a dynamic block, exactly as it is written.

use crate::bits::{BitWriter, Input};
use crate::error::{Error, Result};
use crate::prefix::{codes, Completeness, Prefix};
use crate::tables::CODE_LENGTH_ORDER;

/// Where the lengths of distance codes begin in [`DynamicHeader::lengths`].
pub const DISTANCES: usize = 288;

/// A run of code lengths as it is written: symbol 0 to 18 of the code-length code, and its extra bits.
pub type Operation = (u8, u8);

/// The codes of a dynamic block, and how they are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DynamicHeader {
    /// How many lengths of literals and length codes are written: 257 to 286.
    pub literal_count: usize,
    /// How many lengths of distance codes are written: 1 to 30.
    pub distance_count: usize,
    /// How many lengths of the code-length code are written: 4 to 19.
    pub code_length_count: usize,
    /// The lengths of the code-length code, by symbol.
    pub code_lengths: [u8; 19],
    /// How the lengths are written.
    pub operations: Vec<Operation>,
    /// Lengths of literals and length codes, from 288 on those of distance codes.
    pub lengths: [u8; 320],
}

impl DynamicHeader {
    /// Reads one; the block's first three bits are read already.
    pub fn read(input: &mut Input, prefix: &mut Prefix) -> Result<DynamicHeader> {
        let literal_count = input.take(5)? as usize + 257;
        let distance_count = input.take(5)? as usize + 1;
        let code_length_count = input.take(4)? as usize + 4;
        if literal_count > 286 || distance_count > 30 {
            return Err(Error::Gzip("a block has too many codes"));
        }
        let mut code_lengths = [0u8; 19];
        for symbol in &CODE_LENGTH_ORDER[..code_length_count] {
            code_lengths[*symbol] = input.take(3)? as u8;
        }
        prefix.build(&code_lengths, Completeness::All)?;
        let mut run = Run::new(literal_count, distance_count);
        while !run.is_full() {
            let ahead = input.left().min(7);
            let word = input.take(ahead as u32)? as u64;
            let (symbol, bits) = prefix.decode(word);
            if bits == 0 || bits as usize > ahead {
                return Err(Error::Gzip("a block's codes end early"));
            }
            input.bit -= ahead - bits as usize;
            let extra = input.take(extra_bits(symbol as u8))? as u8;
            run.push((symbol as u8, extra)).map_err(Error::Gzip)?;
        }
        let (operations, lengths) = run.finish();
        Ok(DynamicHeader { literal_count, distance_count, code_length_count, code_lengths, operations, lengths })
    }

    /// Writes it, after the block's first three bits.
    pub fn write(&self, out: &mut BitWriter) -> Result<()> {
        out.put(self.literal_count as u64 - 257, 5);
        out.put(self.distance_count as u64 - 1, 5);
        out.put(self.code_length_count as u64 - 4, 4);
        for symbol in &CODE_LENGTH_ORDER[..self.code_length_count] {
            out.put(self.code_lengths[*symbol] as u64, 3);
        }
        let mut table = [(0, 0); 19];
        codes(&self.code_lengths, &mut table)?;
        for (symbol, extra) in &self.operations {
            let (code, bits) = table[*symbol as usize];
            if bits == 0 {
                return Err(Error::Recipe("a code length has no code"));
            }
            out.put(code as u64 | (*extra as u64) << bits, bits as u32 + extra_bits(*symbol));
        }
        Ok(())
    }
}

/// How many extra bits a symbol of the code-length code has.
pub fn extra_bits(symbol: u8) -> u32 {
    match symbol {
        16 => 2,
        17 => 3,
        18 => 7,
        _ => 0,
    }
}

/// Code lengths as operations fill them in.
pub struct Run {
    literal_count: usize,
    total: usize,
    flat: [u8; 320],
    filled: usize,
    operations: Vec<Operation>,
}

impl Run {
    pub fn new(literal_count: usize, distance_count: usize) -> Run {
        let total = literal_count + distance_count;
        Run { literal_count, total, flat: [0; 320], filled: 0, operations: Vec::with_capacity(160) }
    }

    pub fn is_full(&self) -> bool {
        self.filled == self.total
    }

    pub fn push(&mut self, operation: Operation) -> std::result::Result<(), &'static str> {
        let (symbol, extra) = operation;
        let (length, count) = match symbol {
            16 if self.filled == 0 => return Err("a block's codes begin with a repetition"),
            16 => (self.flat[self.filled - 1], 3 + extra as usize),
            17 => (0, 3 + extra as usize),
            18 => (0, 11 + extra as usize),
            _ => (symbol, 1),
        };
        if self.filled + count > self.total {
            return Err("a block's codes go on beyond their number");
        }
        self.flat[self.filled..self.filled + count].fill(length);
        self.filled += count;
        self.operations.push(operation);
        Ok(())
    }

    pub fn finish(self) -> (Vec<Operation>, [u8; 320]) {
        let mut lengths = [0; 320];
        lengths[..self.literal_count].copy_from_slice(&self.flat[..self.literal_count]);
        let distances = self.total - self.literal_count;
        lengths[DISTANCES..DISTANCES + distances].copy_from_slice(&self.flat[self.literal_count..self.total]);
        (self.operations, lengths)
    }
}
