//! klauspost/compress level 5, versions 1.15.10 to 1.19.1: what pgzip writes, and so skopeo, podman, buildah, umoci and apko.
//!
//! Which token comes out depends on every write into the tables, in its order, so the search here does the same steps as the
//! original, github.com/klauspost/compress/flate, level5.go: Copyright (c) 2012 The Go Authors, Copyright (c) 2019 Klaus Post. All rights
//! reserved. BSD 3-Clause, see deflate/python/NOTICE.

use super::{Budget, Emulator, Part, Sink};
use crate::bits::{load32, load64};
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
/// A match shorter than this is tried to be bettered by looking at its end.
const SHORT: usize = 30;

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

impl Emulator {
    pub(super) fn klauspost(&mut self, part: Part, unit: u32, budget: &mut Budget, sink: &mut Sink) {
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
                    tables.block(data, dictionary, dictionary, from, &mut tokens);
                }
                sink.at = from;
                let to = (start + BLOCK - in_block).min(end);
                if to > from {
                    tables.block(data, dictionary, from, to, &mut tokens);
                    tokens.iter().for_each(|token| sink.push(*token));
                }
                from = to;
            } else {
                dictionary = if unit == u64::MAX { at } else { at.saturating_sub(DICTIONARY).max(lowest) };
                from = at;
                if dictionary < from {
                    tables.block(data, dictionary, dictionary, from, &mut tokens);
                }
                sink.at = from;
            }
            while from < end {
                let to = (from + BLOCK).min(end);
                tables.block(data, dictionary, from, to, &mut tokens);
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

impl Tables<'_> {
    /// The tokens of `data[from..to]`; all literals if there is no match, or too little is saved.
    fn block(&mut self, data: &[u8], lowest: usize, from: usize, to: usize, tokens: &mut Vec<Token>) {
        tokens.clear();
        let size = to - from;
        let search = Search { data: &data[..to], lowest, last: to.saturating_sub(MARGIN) };
        let mut literals_from = from;
        if size >= SHORTEST_BLOCK {
            let mut place = from;
            let mut word = load64(data, from);
            while let Some((mut found, next)) = self.find(&search, place, literals_from, word) {
                search.measure(self, &mut found);
                search.extend_back(&mut found, literals_from);
                tokens.resize(tokens.len() + found.place - literals_from, Token::LITERAL);
                push_copies(tokens, found.length, found.place - found.other);
                let end = found.place + found.length;
                literals_from = end;
                place = if next >= end { next + 1 } else { end };
                if place >= search.last {
                    break;
                }
                self.index(data, place - found.length, place);
                let around = load64(data, place - 1);
                self.put_short(around, place - 1);
                self.put_long(around, place - 1);
                word = around >> 8;
            }
        }
        let has_copies = literals_from > from;
        tokens.resize(tokens.len() + to - literals_from, Token::LITERAL);
        if !has_copies || tokens.len() > size - (size >> 4) {
            tokens.clear();
            tokens.resize(size, Token::LITERAL);
        }
    }

    /// The next match from `place` on, and the place that would have been looked at after it. Steps grow the longer none is found.
    #[inline(always)]
    fn find(&mut self, search: &Search, place: usize, literals_from: usize, word: u64) -> Option<(Match, usize)> {
        let data = search.data;
        let mut word = word;
        let mut next = place;
        loop {
            let place = next;
            next = place + 1 + ((place - literals_from) >> 6);
            if next > search.last {
                return None;
            }
            let short_entry = self.short[hash4(word)];
            let (long_entry, older_entry) = self.long[hash7(word)];
            let next_word = load64(data, next);
            self.put_short(word, place);
            self.put_long(word, place);
            if search.is_near(place, long_entry) {
                if let Some(other) = search.agrees(place, long_entry, word) {
                    self.put_short(next_word, next);
                    self.put_long(next_word, next);
                    let mut found = Match { place, other, length: 0 };
                    if let Some(older) = search.agrees(place, older_entry, word) {
                        found.length = search.length(other, place);
                        found.better(search, place, older);
                    }
                    return Some((found, next));
                }
                if let Some(other) = search.agrees(place, older_entry, word) {
                    self.put_short(next_word, next);
                    self.put_long(next_word, next);
                    return Some((Match { place, other, length: 0 }, next));
                }
            }
            if let Some(other) = search.agrees(place, short_entry, word) {
                // A match of four bytes: the next place may have a longer one.
                let (long_entry, older_entry) = self.long[hash7(next_word)];
                self.put_short(next_word, next);
                self.put_long(next_word, next);
                let mut found = Match { place, other, length: search.length(other, place) };
                if search.is_near(next, long_entry) {
                    for entry in [long_entry, older_entry] {
                        if let Some(other) = search.agrees(next, entry, next_word) {
                            if found.better(search, next, other) {
                                break;
                            }
                        }
                    }
                }
                return Some((found, next));
            }
            word = next_word;
        }
    }

    /// Puts places of a match into the tables: some of the first, then every third.
    #[inline(always)]
    fn index(&mut self, data: &[u8], from: usize, end: usize) {
        let mut place = from + 1;
        if place + 1 >= end {
            return;
        }
        let word = load64(data, place);
        self.put_short(word, place);
        self.put_long(word, place);
        self.put_long(word >> 8, place + 1);
        self.put_short(word >> 16, place + 2);
        place += 4;
        while place + 1 < end {
            let word = load64(data, place);
            self.put_long(word, place);
            self.put_short(word >> 8, place + 1);
            place += 3;
        }
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

    /// How long a match is, of which four bytes agree; at most 258.
    #[inline(always)]
    fn length(&self, other: usize, place: usize) -> usize {
        4 + common(self.data, other + 4, place + 4, (self.data.len() - place - 4).min(LONGEST - 4))
    }

    /// The whole length of a match; then, if it is short, whether one from farther back reaches beyond its end.
    #[inline(always)]
    fn measure(&self, tables: &Tables, found: &mut Match) {
        let data = self.data;
        let Match { place, other, length } = *found;
        if length == 0 {
            found.length = 4 + common(data, other + 4, place + 4, data.len() - place - 4);
        } else if length == LONGEST {
            found.length += common(data, other + length, place + length, data.len() - place - length);
        }
        let length = found.length;
        if length >= SHORT || place + length >= self.last {
            return;
        }
        let entry = tables.long[hash7(load64(data, place + length))].0 as usize;
        let (skip, later) = (2, place + 2);
        if entry > 0 && entry - 1 + skip >= self.lowest + length {
            let other = entry - 1 + skip - length;
            if later > other && later - other < REACH {
                let better = common(data, other, later, data.len() - later);
                if better > length {
                    *found = Match { place: later, other, length: better };
                }
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

/// A match of any length as copies of at most 258 bytes, of which none is too short.
fn push_copies(tokens: &mut Vec<Token>, length: usize, distance: usize) {
    let mut left = length;
    while left > 0 {
        let part = match left {
            0..=LONGEST => left,
            259..=261 => LONGEST - 3,
            _ => LONGEST,
        };
        tokens.push(Token::copy(part, distance));
        left -= part;
    }
}
