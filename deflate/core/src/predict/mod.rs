//! Emulated encoders: the tokens that a known encoder makes of given plain bytes.
//!
//! An emulator sees plain bytes only, never what was coded: where it is wrong, bits are lost and nothing else. Each is frozen under its
//! number: a change of what one predicts is a new number.

mod chain;
mod go;
mod go_fastest;
mod klauspost;
mod zlib;

use crate::token::Token;

/// An encoder: 0 none; 0x10 + level Go compress/flate up to 1.26; 0x20 + level zlib and GNU gzip; 0x30 + level zlib in independent
/// blocks with a dictionary, as pigz has them; 0x41, 0x45, 0x46 klauspost/compress levels 1, 5 (from 1.15.10 on) and 6 (Go from 1.27 on).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Choice {
    /// The encoder's number.
    pub encoder: u8,
    /// How many plain bytes an independent block has (pigz, pgzip); 0 if there are none.
    pub unit: u32,
}

/// A block smaller than this is not taken: clearing tables would be most of the work.
const SMALLEST_UNIT: u32 = 1024;
pub(crate) const LARGEST_UNIT: u32 = 1 << 30;

impl Choice {
    /// No emulation: the general model codes every token.
    pub const GENERAL: Choice = Choice { encoder: 0, unit: 0 };

    /// Whether this version can emulate it.
    pub fn is_known(self) -> bool {
        let unit = self.unit == 0 || (SMALLEST_UNIT..=LARGEST_UNIT).contains(&self.unit);
        let has_unit = matches!(self.encoder, 0x31..=0x39 | 0x41 | 0x45 | 0x46);
        let encoder = matches!(self.encoder, 0 | 0x11..=0x19 | 0x21..=0x29 | 0x31..=0x39 | 0x41 | 0x45 | 0x46);
        encoder && unit && (has_unit || self.unit == 0)
    }
}

/// The steps that emulation may take for one record: alike on both sides, so that a record decodes as it was made.
/// Real layers at the highest levels take a tenth of it; what is made to take long stops here, and the general model goes on.
pub(crate) const STEPS: u64 = 1 << 30;

/// Counts down.
pub(crate) struct Budget(u64);

impl Budget {
    pub fn new() -> Budget {
        Budget(STEPS)
    }

    /// False if there were not enough left: the emulator ends where it is.
    #[inline(always)]
    pub fn spend(&mut self, steps: u64) -> bool {
        let enough = self.0 >= steps;
        self.0 = if enough { self.0 - steps } else { 0 };
        enough
    }
}

/// The part of one member that a segment holds.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    /// Ends with the part.
    pub data: &'a [u8],
    /// Where the member's bytes, or what is known of them, begin.
    pub lowest: usize,
    /// Where the part begins.
    pub start: usize,
    /// How many bytes of the member are before `start`.
    pub offset: u64,
}

/// Takes tokens from `start` on; what an emulator makes of the bytes before only warms it up.
pub(crate) struct Sink<'a> {
    out: &'a mut Vec<Token>,
    /// Where the next token begins.
    pub at: usize,
    /// What begins before this is dropped.
    pub start: usize,
}

impl Sink<'_> {
    #[inline(always)]
    pub fn push(&mut self, token: Token) {
        let end = self.at + token.span();
        if self.at >= self.start {
            self.out.push(token);
        } else if end > self.start {
            self.literals(end - self.start);
        }
        self.at = end;
    }

    fn literals(&mut self, count: usize) {
        self.out.resize(self.out.len() + count, Token::LITERAL);
    }
}

/// The window of zlib and of Go: 64 KiB, of which the lower half is dropped as soon as less than 262 bytes are left above.
struct Window {
    /// Where it begins, in terms of the part's data; below 0 if that is before it.
    base: i64,
}

const HALF: i64 = 32768;
const SLIDE_AT: i64 = 2 * HALF - 262;

impl Window {
    /// The encoder is at `place`, which is `offset` bytes after the window's first beginning.
    fn new(place: usize, offset: i64) -> Window {
        let slides = if offset > SLIDE_AT { (offset - SLIDE_AT - 1) / HALF + 1 } else { 0 };
        Window { base: slides * HALF - offset + place as i64 }
    }

    #[inline(always)]
    fn slide_to(&mut self, place: usize) {
        if place as i64 - self.base > SLIDE_AT {
            self.base += HALF;
        }
    }
}

/// Where the window of an encoder begins that is at this byte of its input.
pub(crate) fn slid(place: u64) -> u64 {
    Window::new(place as usize, place as i64).base.max(0) as u64
}

/// How a level of Go, zlib or GNU gzip searches.
#[derive(Clone, Copy)]
struct Level {
    /// From this length of the match before on, zlib looks at a quarter of the chain only.
    good: usize,
    /// From this length on, the next place is not tried; for greedy levels, longer matches are not put into the chains.
    lazy: usize,
    /// From this length on, no longer match is looked for.
    nice: usize,
    /// How many places are looked at.
    chain: usize,
}

const fn level(good: usize, lazy: usize, nice: usize, chain: usize) -> Level {
    Level { good, lazy, nice, chain }
}

/// By level, 1 to 9; zlib's published table, which Go took over from level 4 on.
const LEVELS: [Level; 10] = [
    level(0, 0, 0, 0),
    level(4, 4, 8, 4),
    level(4, 5, 16, 8),
    level(4, 6, 32, 32),
    level(4, 4, 16, 16),
    level(8, 16, 32, 32),
    level(8, 16, 128, 128),
    level(8, 32, 128, 256),
    level(32, 128, 258, 1024),
    level(32, 258, 258, 4096),
];

/// Lazy encoders are in step again after this many bytes, wherever they begin.
const WARM_UP: usize = 1200;
const RING: usize = 32768;

/// All emulators, with the tables that they share; some 900 kB.
pub(crate) struct Emulator {
    /// Places + 1; 0 is none.
    head: Vec<u32>,
    before: Vec<u32>,
    pairs: Vec<(u32, u32)>,
    is_clear: bool,
    highest: usize,
    block: Vec<Token>,
    warm_up: usize,
}

impl Emulator {
    pub fn new() -> Emulator {
        Emulator {
            head: vec![0; 1 << 17],
            before: vec![0; RING],
            pairs: vec![(0, 0); 32768],
            is_clear: true,
            highest: 0,
            block: Vec::with_capacity(65536),
            warm_up: WARM_UP,
        }
    }

    /// For Go's lazy levels: parts begin where the encoder ended a block, so that it has nothing pending and needs no warming up.
    pub fn at_blocks() -> Emulator {
        Emulator { warm_up: 0, ..Emulator::new() }
    }

    /// Nothing of what was seen before is used again.
    pub fn reset(&mut self) {
        self.is_clear = false;
    }

    /// Appends the tokens for the part, as far as the budget goes. Within a segment, places grow from part to part; where a record
    /// says otherwise, the tables are cleared, so that none of their places lies ahead.
    pub fn run(&mut self, choice: Choice, part: Part, budget: &mut Budget, out: &mut Vec<Token>) {
        if choice.encoder == 0 {
            return;
        }
        if !self.is_clear || part.lowest < self.highest {
            if !budget.spend(8192) {
                return;
            }
            self.head.fill(0);
            self.pairs.fill((0, 0));
            self.is_clear = true;
        }
        self.highest = part.data.len();
        let mut sink = Sink { out, at: part.start, start: part.start };
        let level = (choice.encoder & 15) as usize;
        match choice.encoder {
            0x11 => self.go_fastest(part, budget, &mut sink),
            0x12 | 0x13 => self.go_greedy(part, level, budget, &mut sink),
            0x14..=0x19 => self.go_lazy(part, level, budget, &mut sink),
            0x21..=0x29 => self.zlib(part, level, budget, &mut sink),
            0x31..=0x39 => self.zlib_in_blocks(part, level, choice.unit, budget, &mut sink),
            _ => self.klauspost(part, level as u8, choice.unit, budget, &mut sink),
        }
    }
}
