//! Go's compress/flate up to 1.26, level 1 (Snappy's way): one place for each hash, blocks of 65535 bytes.
//! Learnt from the behaviour of its source (BSD); what is here was written anew.

use super::{Budget, Emulator, Part, Sink};
use crate::bits::{load32, load64};
use crate::matches::common;
use crate::token::Token;

const BLOCK: usize = 65535;
const LONGEST: usize = 258;
const REACH: usize = 32768;
/// Near its end a block is not searched.
const MARGIN: usize = 15;
/// A block shorter than this is not searched at all.
const SHORTEST_BLOCK: usize = 128;

#[inline(always)]
fn hash(word: u32) -> usize {
    (word.wrapping_mul(0x1e35_a7bd) >> 18) as usize
}

impl Emulator {
    pub(super) fn go_fastest(&mut self, part: Part, budget: &mut Budget, sink: &mut Sink) {
        let Part { data, start, offset, .. } = part;
        let mut lowest = part.lowest;
        // How far `start` lies in its block; what is known before it is seen as a block.
        let inside = (offset % BLOCK as u64) as usize;
        let mut from = if inside > 0 && start >= lowest + inside { start - inside } else { lowest };
        let mut to = if inside == 0 && lowest < start { start } else { start + BLOCK - inside };
        sink.at = from;
        let mut tokens = std::mem::take(&mut self.block);
        while from < data.len() {
            to = to.min(data.len());
            tokens.clear();
            if to - from < SHORTEST_BLOCK {
                tokens.resize(to - from, Token::LITERAL);
                lowest = to;
            } else {
                fastest_block(&mut self.head[..16384], &data[..to], lowest, from, &mut tokens);
            }
            if !budget.spend((to - from) as u64) {
                break;
            }
            tokens.iter().for_each(|token| sink.push(*token));
            from = to;
            to += BLOCK;
        }
        self.block = tokens;
    }
}

/// The tokens of `data[from..]`, a block; all literals if that does not save a sixteenth of them.
fn fastest_block(table: &mut [u32], data: &[u8], lowest: usize, from: usize, tokens: &mut Vec<Token>) {
    let end = data.len();
    let last = end - MARGIN;
    let is_match = |entry: usize, place: usize, word: u32| {
        entry > lowest && place + 1 - entry <= REACH && load32(data, entry - 1) == word
    };
    let mut literals_from = from;
    let mut word = load32(data, from);
    let mut next_hash = hash(word);
    let mut search_from = from;
    'block: loop {
        // Look for a match, in steps that grow the longer none is found.
        let mut skip = 32;
        let mut next = search_from;
        let mut place;
        let mut entry;
        loop {
            place = next;
            let step = skip >> 5;
            next = place + step;
            skip += step;
            if next > last {
                break 'block;
            }
            entry = table[next_hash] as usize;
            table[next_hash] = place as u32 + 1;
            let next_word = load32(data, next);
            next_hash = hash(next_word);
            if is_match(entry, place, word) {
                break;
            }
            word = next_word;
        }
        tokens.resize(tokens.len() + place - literals_from, Token::LITERAL);
        // Take it, and those that follow it at once.
        loop {
            let other = entry - 1;
            let most = (end - place).min(LONGEST);
            let length = 4 + common(data, other + 4, place + 4, most - 4);
            tokens.push(Token::copy(length, place - other));
            place += length;
            literals_from = place;
            if place >= last {
                break 'block;
            }
            let around = load64(data, place - 1);
            table[hash(around as u32)] = place as u32;
            let here = (around >> 8) as u32;
            let slot = &mut table[hash(here)];
            entry = *slot as usize;
            *slot = place as u32 + 1;
            if !is_match(entry, place, here) {
                word = (around >> 16) as u32;
                next_hash = hash(word);
                search_from = place + 1;
                break;
            }
        }
    }
    tokens.resize(tokens.len() + end - literals_from, Token::LITERAL);
    let size = end - from;
    if tokens.len() > size - (size >> 4) {
        tokens.clear();
        tokens.resize(size, Token::LITERAL);
    }
}
