//! The general model: which token comes next, given the plain bytes, whatever encoder chose it.
//!
//! An encoder takes the longest match that it finds, mostly; one that looks ahead takes none where the next place has a longer one;
//! one with a hash table of single entries takes the place that its table holds. The model finds what such encoders would find, and codes how
//! the token differs.

use crate::error::{Error, Result};
use crate::matches::{common, Candidates, Chains};
use crate::range::{number, tree, Coder, Probability, EVEN, NUMBER};
use crate::segment::HISTORY;
use crate::token::Token;

const LONGEST: usize = 258;

/// Lengths in sixteen classes: 0 is none, then 3 to 11 singly, then wider and wider.
const CLASS: [u8; LONGEST + 1] = {
    let mut table = [0u8; LONGEST + 1];
    let mut length = 3;
    while length <= LONGEST {
        table[length] = match length {
            3..=11 => length as u8 - 2,
            12..=15 => 10,
            16..=23 => 11,
            24..=31 => 12,
            32..=63 => 13,
            64..=257 => 14,
            _ => 15,
        };
        length += 1;
    }
    table
};

struct Probabilities {
    is_copy: [[[[Probability; 3]; 4]; 16]; 16],
    is_last_start: [[[Probability; 2]; 8]; 8],
    not_this: [[[Probability; 16]; 8]; 8],
    in_chain: Probability,
    index: [Probability; NUMBER],
    is_whole: [[Probability; 4]; 16],
    length: [Probability; 256],
    long_form: Probability,
}

impl Probabilities {
    fn new() -> Box<Probabilities> {
        Box::new(Probabilities {
            is_copy: [[[[EVEN; 3]; 4]; 16]; 16],
            is_last_start: [[[EVEN; 2]; 8]; 8],
            not_this: [[[EVEN; 16]; 8]; 8],
            in_chain: EVEN,
            index: [EVEN; NUMBER],
            is_whole: [[EVEN; 4]; 16],
            length: [EVEN; 256],
            long_form: EVEN,
        })
    }
}

/// The state of the model; some 1 MB of tables.
pub struct Model {
    chains: Chains,
    /// For each hash, where a token began last that this model coded; as a place + 1.
    starts: Vec<u32>,
    probabilities: Box<Probabilities>,
    last_kinds: usize,
    last_hits: usize,
    here: Box<Candidates>,
    next: Box<Candidates>,
    shortest: usize,
}

impl Model {
    pub fn new() -> Model {
        Model {
            chains: Chains::new(),
            starts: vec![0; 1 << 16],
            probabilities: Probabilities::new(),
            last_kinds: 0,
            last_hits: 0,
            here: Box::new(Candidates::none()),
            next: Box::new(Candidates::none()),
            shortest: 3,
        }
    }

    /// Forgets everything; copies have at least `shortest` bytes, 3 or 4.
    pub fn reset(&mut self, shortest: usize) {
        self.chains.reset(shortest);
        self.starts.fill(0);
        self.probabilities = Probabilities::new();
        (self.last_kinds, self.last_hits) = (0, 0);
        self.shortest = shortest;
        self.forget_places();
    }

    /// The reach of copies has changed.
    pub fn forget_places(&mut self) {
        self.here.place = usize::MAX;
        self.next.place = usize::MAX;
    }

    /// The token at `place`, of which copies reach down to `lowest`.
    #[inline]
    pub fn token<C: Coder>(
        &mut self,
        coder: &mut C,
        data: &[u8],
        place: usize,
        lowest: usize,
        token: Token,
    ) -> Result<Token> {
        self.chains.insert_to(data, place + 1);
        if self.here.place != place {
            std::mem::swap(&mut self.here, &mut self.next);
            if self.here.place != place {
                self.chains.find(data, place, lowest, &mut self.here);
            }
        }
        let longest = self.here.longest();
        let mut longest_next = 0;
        if longest > 0 && longest < 64 && place + 1 < data.len() {
            self.chains.find(data, place + 1, lowest, &mut self.next);
            longest_next = self.next.longest();
        }
        let most = (data.len() - place).min(LONGEST);
        let (last, last_length) = self.last_start(data, place, lowest, most);
        let distance = if self.here.count > 0 { self.here.distance(0) } else { 0 };
        let against_next = match longest_next {
            0 => 0,
            next if next < longest => 1,
            next if next == longest => 2,
            _ => 3,
        };
        let reach = if distance > 4096 { 2 } else { (distance > 256) as usize };
        let class = CLASS[longest] as usize;
        let flag = &mut self.probabilities.is_copy[class][self.last_kinds & 15][against_next][reach];
        let is_copy = coder.bit(flag, !token.is_literal());
        self.last_kinds = self.last_kinds << 1 | is_copy as usize;
        if !is_copy {
            return Ok(Token::LITERAL);
        }
        let (distance, confidence) = self.distance(coder, data, place, lowest, (last, last_length), token)?;
        let whole = if last == distance { last_length } else { common(data, place - distance, place, most) };
        if whole < 3 {
            return Err(Error::Recipe("a copy does not agree with the plain bytes"));
        }
        let probabilities = &mut *self.probabilities;
        let is_whole = &mut probabilities.is_whole[CLASS[whole] as usize][confidence];
        let length = if coder.bit(is_whole, token.span() == whole) {
            whole
        } else {
            tree(coder, &mut probabilities.length, (token.span() as u32).wrapping_sub(3) & 255, 8) as usize + 3
        };
        if length > whole {
            return Err(Error::Recipe("a copy is longer than the plain bytes agree"));
        }
        let made = Token::copy(length, distance);
        if length == LONGEST && coder.bit(&mut probabilities.long_form, token.is_long_form()) {
            return Ok(made.in_long_form());
        }
        Ok(made)
    }

    /// The distance to the last start of a token with the same hash, and how much agrees there; 0 if that is too little.
    #[inline(always)]
    fn last_start(&mut self, data: &[u8], place: usize, lowest: usize, most: usize) -> (usize, usize) {
        if place + 4 > data.len() {
            return (0, 0);
        }
        let entry = &mut self.starts[self.chains.hash(data, place)];
        let start = std::mem::replace(entry, place as u32 + 1) as usize;
        if start <= lowest || place + 1 - start > HISTORY {
            return (0, 0);
        }
        let length = common(data, start - 1, place, most);
        if length >= self.shortest {
            (place + 1 - start, length)
        } else {
            (0, 0)
        }
    }

    /// The distance of a copy, and a class of how it was found.
    #[inline(always)]
    fn distance<C: Coder>(
        &mut self,
        coder: &mut C,
        data: &[u8],
        place: usize,
        lowest: usize,
        last: (usize, usize),
        token: Token,
    ) -> Result<(usize, usize)> {
        let probabilities = &mut *self.probabilities;
        let (last, last_length) = last;
        let count = self.here.count;
        let wanted = if C::ENCODES { token.distance() } else { 0 };
        if last > 0 {
            let is_other = !(count > 0 && last == self.here.distance(0)) as usize;
            let class = (CLASS[last_length] as usize).min(7);
            let hit = coder.bit(&mut probabilities.is_last_start[class][self.last_hits & 7][is_other], wanted == last);
            self.last_hits = self.last_hits << 1 | hit as usize;
            if hit {
                return Ok((last, 3));
            }
        }
        let ranks = count.min(15);
        let class = CLASS[self.here.longest()] as usize;
        for rank in 0..ranks {
            let distance = self.here.distance(rank);
            let not_this = &mut probabilities.not_this[count.min(7)][rank.min(7)][class];
            if !coder.bit(not_this, wanted != distance) {
                return Ok((distance, rank.min(2)));
            }
        }
        let known =
            if C::ENCODES { self.chains.walk(data, place, lowest, |_, distance| distance == wanted) } else { None };
        let distance = if coder.bit(&mut probabilities.in_chain, known.is_some()) {
            let index = number(coder, &mut probabilities.index, known.map_or(0, |(index, _)| index as u32))? as usize;
            let known = if C::ENCODES { known } else { self.chains.walk(data, place, lowest, |at, _| at == index) };
            known.ok_or(Error::Recipe("a chain has no such place"))?.1
        } else {
            coder.plain((wanted as u32).wrapping_sub(1) & 0x7fff, 15) as usize + 1
        };
        if distance > place - lowest {
            return Err(Error::Recipe("a copy reaches back beyond the start"));
        }
        Ok((distance, 3))
    }
}
