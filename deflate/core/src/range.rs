//! A binary range coder with the carry scheme of LZMA. Probabilities have 15 bits and learn at two rates.

use crate::error::{Error, Result};

const TOP: u32 = 1 << 24;
const SLACK: usize = 64;

/// How likely a bit is 1, as two estimates of 16 bits: one that learns fast, one slowly.
#[derive(Clone, Copy)]
pub struct Probability {
    fast: u16,
    slow: u16,
}

/// As likely as not.
pub const EVEN: Probability = Probability { fast: 32768, slow: 32768 };

impl Probability {
    #[inline(always)]
    fn of_one(self) -> u32 {
        ((self.fast as u32 + self.slow as u32) >> 2).clamp(16, 32752)
    }

    #[inline(always)]
    fn learn(&mut self, bit: bool) {
        if bit {
            self.fast += (65535 - self.fast) >> 4;
            self.slow += (65535 - self.slow) >> 7;
        } else {
            self.fast -= self.fast >> 4;
            self.slow -= self.slow >> 7;
        }
    }
}

/// One of the two directions: an encoder writes what it is given and returns it, a decoder ignores that and returns what it reads.
/// Code that is written for a `Coder` is the definition of both.
pub trait Coder {
    /// Whether this is the encoder.
    const ENCODES: bool;
    /// A bit as likely as `probability` says, which learns it.
    fn bit(&mut self, probability: &mut Probability, bit: bool) -> bool;
    /// The lowest `count` bits of `value`, each as likely as not, the highest first; at most 16.
    fn plain(&mut self, value: u32, count: u32) -> u32;
    /// An error if a decoder has read beyond its input.
    fn check(&self) -> Result<()>;
}

/// Writes.
pub struct Encoder {
    low: u64,
    range: u32,
    last: u8,
    waiting: u64,
    out: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Encoder {
        Encoder { low: 0, range: u32::MAX, last: 0, waiting: 1, out: Vec::new() }
    }

    #[cold]
    #[inline(never)]
    fn shift(&mut self) {
        if self.low < 0xff00_0000 || self.low > 0xffff_ffff {
            let carry = (self.low >> 32) as u8;
            self.out.push(self.last.wrapping_add(carry));
            for _ in 1..self.waiting {
                self.out.push(0xffu8.wrapping_add(carry));
            }
            self.waiting = 0;
            self.last = (self.low >> 24) as u8;
        }
        self.waiting += 1;
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    #[inline(always)]
    fn normalise(&mut self) {
        while self.range < TOP {
            self.range <<= 8;
            self.shift();
        }
    }

    /// All bytes, without the first, which is always 0, and without zeros at the end, which a decoder reads there anyway.
    pub fn finish(mut self) -> Vec<u8> {
        for _ in 0..5 {
            self.shift();
        }
        let mut out = self.out.split_off(1);
        while out.last() == Some(&0) {
            out.pop();
        }
        out
    }
}

impl Coder for Encoder {
    const ENCODES: bool = true;

    #[inline(always)]
    fn bit(&mut self, probability: &mut Probability, bit: bool) -> bool {
        let bound = (self.range >> 15) * probability.of_one();
        if bit {
            self.range = bound;
        } else {
            self.low += bound as u64;
            self.range -= bound;
        }
        probability.learn(bit);
        self.normalise();
        bit
    }

    fn plain(&mut self, value: u32, count: u32) -> u32 {
        for place in (0..count).rev() {
            self.range >>= 1;
            if value >> place & 1 == 1 {
                self.low += self.range as u64;
            }
            self.normalise();
        }
        value
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Reads; zeros follow its input.
pub struct Decoder<'a> {
    input: &'a [u8],
    at: usize,
    range: u32,
    code: u32,
}

impl<'a> Decoder<'a> {
    pub fn new(input: &'a [u8]) -> Decoder<'a> {
        let mut decoder = Decoder { input, at: 0, range: u32::MAX, code: 0 };
        for _ in 0..4 {
            decoder.shift();
        }
        decoder
    }

    #[inline(always)]
    fn shift(&mut self) {
        let byte = if self.at < self.input.len() { self.input[self.at] } else { 0 };
        self.at += 1;
        self.code = self.code << 8 | byte as u32;
    }

    #[inline(always)]
    fn normalise(&mut self) {
        while self.range < TOP {
            self.range <<= 8;
            self.shift();
        }
    }
}

impl Coder for Decoder<'_> {
    const ENCODES: bool = false;

    #[inline(always)]
    fn bit(&mut self, probability: &mut Probability, _: bool) -> bool {
        let bound = (self.range >> 15) * probability.of_one();
        let bit = self.code < bound;
        if bit {
            self.range = bound;
        } else {
            self.code -= bound;
            self.range -= bound;
        }
        probability.learn(bit);
        self.normalise();
        bit
    }

    fn plain(&mut self, _: u32, count: u32) -> u32 {
        let mut value = 0;
        for _ in 0..count {
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            value = value << 1 | bit as u32;
            self.normalise();
        }
        value
    }

    #[inline(always)]
    fn check(&self) -> Result<()> {
        if self.at > self.input.len() + SLACK {
            return Err(Error::Recipe("a record ends early"));
        }
        Ok(())
    }
}

/// `count` bits, the highest first, each with a probability of its own for every beginning; the table has 2^count entries.
#[inline]
pub fn tree<C: Coder>(coder: &mut C, table: &mut [Probability], value: u32, count: u32) -> u32 {
    let mut node = 1usize;
    for place in (0..count).rev() {
        let bit = coder.bit(&mut table[node], value >> place & 1 == 1);
        node = node << 1 | bit as usize;
    }
    node as u32 - (1 << count)
}

/// How many probabilities a number takes.
pub const NUMBER: usize = 32;

/// A number below 2^32 - 1 as an Exp-Golomb code, of which the exponent learns.
pub fn number<C: Coder>(coder: &mut C, table: &mut [Probability; NUMBER], value: u32) -> Result<u32> {
    let more = value as u64 + 1;
    let wanted = 63 - more.leading_zeros();
    let mut exponent = 0;
    while coder.bit(&mut table[exponent as usize], exponent < wanted) {
        exponent += 1;
        if exponent as usize >= NUMBER {
            return Err(Error::Recipe("a number is too large"));
        }
    }
    let rest = (more & ((1 << exponent) - 1)) as u32;
    let high = if exponent > 16 { coder.plain(rest >> 16, exponent - 16) } else { 0 };
    let low = coder.plain(rest & 0xffff, exponent.min(16));
    let more = 1u64 << exponent | (high as u64) << 16 | low as u64;
    Ok((more - 1) as u32)
}
