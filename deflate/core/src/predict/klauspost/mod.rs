//! klauspost/compress. Level 5, versions 1.15.10 to 1.19.1, is what pgzip writes, and so skopeo, podman, buildah, umoci and apko; levels 1
//! and 6, from 1.18.5 on, are what Go's compress/flate writes from Go 1.27 on, level 6 being the default.
//!
//! Which token comes out depends on every write into the tables, in its order, so the searches here do the same steps as the
//! originals, github.com/klauspost/compress/flate, level1.go, level5.go and level6.go: Copyright (c) 2012 The Go Authors, Copyright (c) 2019
//! Klaus Post. All rights reserved. BSD 3-Clause, see deflate/python/NOTICE.

mod level1;
mod level5;
mod level6;

use super::{Budget, Emulator, Part, Sink};
use crate::bits::load32;
use crate::matches::common;
use crate::token::Token;

const BLOCK: usize = 65535;
const TABLE: usize = 32768;
const REACH: usize = 32768;
/// The dictionary that pgzip gives a block: the last bytes of the block before.
const DICTIONARY: usize = 16384;
/// A block shorter than this is not searched.
const SHORTEST_BLOCK: usize = 128;
/// Near its end a block is not searched.
const MARGIN: usize = 11;
const LONGEST: usize = 258;

#[inline(always)]
fn hash4(word: u64) -> usize {
    ((word as u32).wrapping_mul(2_654_435_761) >> 17) as usize
}

#[inline(always)]
fn hash7(word: u64) -> usize {
    ((word << 8).wrapping_mul(58_295_818_150_454_627) >> 49) as usize
}

/// One place for each hash of four bytes, the last two for each of seven. Places + 1.
struct Tables<'a> {
    short: &'a mut [u32],
    long: &'a mut [(u32, u32)],
}

impl Tables<'_> {
    #[inline(always)]
    fn put_short(&mut self, word: u64, place: usize) {
        self.short[hash4(word)] = place as u32 + 1;
    }

    #[inline(always)]
    fn put_long(&mut self, word: u64, place: usize) {
        let slot = &mut self.long[hash7(word)];
        *slot = (place as u32 + 1, slot.0);
    }
}

impl Tables<'_> {
    /// The tokens of `data[from..to]`; all literals if there is no match, or too little is saved.
    fn block(&mut self, level: u8, data: &[u8], lowest: usize, from: usize, to: usize, tokens: &mut Vec<Token>) {
        tokens.clear();
        let size = to - from;
        let search = Search { data: &data[..to], lowest, last: to.saturating_sub(MARGIN) };
        let mut out = Out { tokens, literals_from: from };
        if size >= SHORTEST_BLOCK {
            match level {
                1 => self.level1(&search, from, &mut out),
                6 => self.level6(&search, from, &mut out),
                _ => self.level5(&search, from, &mut out),
            }
        }
        let has_copies = out.literals_from > from;
        out.literals_to(to);
        if !has_copies || tokens.len() > size - (size >> 4) {
            tokens.clear();
            tokens.resize(size, Token::LITERAL);
        }
    }
}

/// A block's tokens, up to `literals_from`.
struct Out<'a> {
    tokens: &'a mut Vec<Token>,
    literals_from: usize,
}

impl Out<'_> {
    fn literals_to(&mut self, place: usize) {
        self.tokens.resize(self.tokens.len() + place - self.literals_from, Token::LITERAL);
        self.literals_from = place;
    }

    /// Literals up to a match, and the match, as copies of at most 258 bytes of which none is too short.
    fn push(&mut self, found: &Match) {
        self.literals_to(found.place);
        let distance = found.place - found.other;
        let mut left = found.length;
        while left > 0 {
            let part = match left {
                0..=LONGEST => left,
                259..=261 => LONGEST - 3,
                _ => LONGEST,
            };
            self.tokens.push(Token::copy(part, distance));
            left -= part;
        }
        self.literals_from = found.place + found.length;
    }
}

impl Emulator {
    pub(super) fn klauspost(&mut self, part: Part, level: u8, unit: u32, budget: &mut Budget, sink: &mut Sink) {
        let Part { data, lowest, start, offset } = part;
        let unit = if unit == 0 { u64::MAX } else { unit as u64 };
        let mut tokens = std::mem::take(&mut self.block);
        let mut at = start;
        let mut inside = if unit == u64::MAX { offset } else { offset % unit };
        loop {
            let end = (at as u64).saturating_add(unit - inside).min(data.len() as u64) as usize;
            if at > start || lowest < start {
                if !budget.spend(8192) {
                    break;
                }
                self.head[..TABLE].fill(0);
                self.pairs.fill((0, 0));
            }
            let mut tables = Tables { short: &mut self.head[..TABLE], long: &mut self.pairs };
            let dictionary;
            let mut from;
            if inside > 0 {
                // In the middle of a unit: what is known before is a block that ends where this one began, if that is known too.
                dictionary = lowest;
                let in_block = (inside % BLOCK as u64) as usize;
                from = start - in_block.min(start - lowest);
                if dictionary < from {
                    tables.block(level, data, dictionary, dictionary, from, &mut tokens);
                }
                sink.at = from;
                let to = (start + BLOCK - in_block).min(end);
                if to > from {
                    tables.block(level, data, dictionary, from, to, &mut tokens);
                    tokens.iter().for_each(|token| sink.push(*token));
                }
                from = to;
            } else {
                dictionary = if unit == u64::MAX { at } else { at.saturating_sub(DICTIONARY).max(lowest) };
                from = at;
                if dictionary < from {
                    tables.block(level, data, dictionary, dictionary, from, &mut tokens);
                }
                sink.at = from;
            }
            while from < end {
                let to = (from + BLOCK).min(end);
                tables.block(level, data, dictionary, from, to, &mut tokens);
                if !budget.spend((to - from) as u64) {
                    self.block = tokens;
                    return;
                }
                tokens.iter().for_each(|token| sink.push(*token));
                from = to;
            }
            (at, inside) = (end, 0);
            if at >= data.len() {
                break;
            }
        }
        self.block = tokens;
    }
}

/// A match at `place`, with `other` before it; a length of 0 was not measured yet.
struct Match {
    place: usize,
    other: usize,
    length: usize,
}

impl Match {
    /// Becomes the match at `place` with `other`, if that is longer.
    #[inline(always)]
    fn better(&mut self, search: &Search, place: usize, other: usize) -> bool {
        let length = search.length(other, place);
        let is_longer = length > self.length;
        if is_longer {
            *self = Match { place, other, length };
        }
        is_longer
    }
}

#[derive(Clone, Copy)]
struct Search<'a> {
    /// Ends with the block.
    data: &'a [u8],
    lowest: usize,
    /// The last place that is searched.
    last: usize,
}

impl Search<'_> {
    #[inline(always)]
    fn is_near(&self, place: usize, entry: u32) -> bool {
        entry as usize > self.lowest && (place + 1).wrapping_sub(entry as usize) < REACH
    }

    /// The place of an entry, if it is near and its four bytes are those of `word`.
    #[inline(always)]
    fn agrees(&self, place: usize, entry: u32, word: u64) -> Option<usize> {
        if self.is_near(place, entry) && load32(self.data, entry as usize - 1) == word as u32 {
            Some(entry as usize - 1)
        } else {
            None
        }
    }

    /// The match that the long table has at `place`: the newer entry, or the older one if it is longer, or the only one that agrees.
    #[inline(always)]
    fn long_match(&self, place: usize, entries: (u32, u32), word: u64) -> Option<Match> {
        let (newer, older) = entries;
        if !self.is_near(place, newer) {
            return None;
        }
        let older = self.agrees(place, older, word);
        let Some(other) = self.agrees(place, newer, word) else {
            return older.map(|other| Match { place, other, length: 0 });
        };
        let mut found = Match { place, other, length: 0 };
        if let Some(older) = older {
            found.length = self.length(other, place);
            found.better(self, place, older);
        }
        Some(found)
    }

    /// How long a match is, of which four bytes agree; at most 258.
    #[inline(always)]
    fn length(&self, other: usize, place: usize) -> usize {
        4 + common(self.data, other + 4, place + 4, (self.data.len() - place - 4).min(LONGEST - 4))
    }

    /// The whole length of a match of which up to 258 bytes are known.
    #[inline(always)]
    fn complete(&self, found: &mut Match) {
        let Match { place, other, length } = *found;
        let known = match length {
            0 => 4,
            LONGEST => LONGEST,
            _ => return,
        };
        let most = self.data.len() - place - known;
        found.length = known + common(self.data, other + known, place + known, most);
    }

    /// Becomes the match that has `entry` where this one ends, and reaches farther, if there is one. Its first two bytes may differ.
    #[inline(always)]
    fn better_at_end(&self, found: &mut Match, entry: u32, later: usize) {
        let entry = entry as usize;
        if entry == 0 || entry + 1 < self.lowest + found.length {
            return;
        }
        let other = entry + 1 - found.length;
        if later > other && later - other < REACH {
            let length = common(self.data, other, later, self.data.len() - later);
            if length > found.length {
                *found = Match { place: later, other, length };
            }
        }
    }

    #[inline(always)]
    fn extend_back(&self, found: &mut Match, literals_from: usize) {
        while found.other > self.lowest
            && found.place > literals_from
            && self.data[found.other - 1] == self.data[found.place - 1]
        {
            found.place -= 1;
            found.other -= 1;
            found.length += 1;
        }
    }
}
