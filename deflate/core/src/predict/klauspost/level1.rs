//! Level 1: one table, of five bytes, and every second place.

use super::{Match, Out, Search, Tables, REACH};
use crate::bits::{load32, load64};
use crate::matches::common;

#[inline(always)]
fn hash5(word: u64) -> usize {
    ((word << 24).wrapping_mul(889_523_592_379) >> 49) as usize
}

impl Tables<'_> {
    #[inline(always)]
    fn swap(&mut self, hash: usize, place: usize) -> u32 {
        std::mem::replace(&mut self.short[hash], place as u32 + 1)
    }

    pub(super) fn level1(&mut self, search: &Search, from: usize, out: &mut Out) {
        let data = search.data;
        let (mut place, mut word) = (from, load64(data, from));
        loop {
            let Some((mut at, mut other, next)) = self.find1(search, place, out.literals_from, word) else { return };
            loop {
                let length = 4 + common(data, other + 4, at + 4, data.len() - at - 4);
                let mut found = Match { place: at, other, length };
                search.extend_back(&mut found, out.literals_from);
                out.push(&found);
                at = if next >= out.literals_from { next + 1 } else { out.literals_from };
                if at >= search.last {
                    if at + found.length + 8 < data.len() {
                        self.swap(hash5(load64(data, at)), at);
                    }
                    return;
                }
                let around = load64(data, at - 2);
                self.swap(hash5(around), at - 2);
                let here = around >> 16;
                let entry = self.swap(hash5(here), at) as usize;
                let is_near = entry > search.lowest && (at + 1).wrapping_sub(entry) <= REACH;
                if !is_near || load32(data, entry - 1) != here as u32 {
                    (place, word) = (at + 1, here >> 8);
                    break;
                }
                other = entry - 1;
            }
        }
    }

    /// The next match from `place` on: where, with which place, and the place that would have been looked at after it.
    #[inline(always)]
    fn find1(
        &mut self,
        search: &Search,
        place: usize,
        literals_from: usize,
        word: u64,
    ) -> Option<(usize, usize, usize)> {
        let data = search.data;
        let (mut place, mut word) = (place, word);
        loop {
            let hash = hash5(word);
            let entry = self.short[hash];
            let mut next = place + 2 + ((place - literals_from) >> 5);
            if next > search.last {
                return None;
            }
            let now = load64(data, next);
            self.short[hash] = place as u32 + 1;
            let hash = hash5(now);
            if let Some(other) = search.agrees(place, entry, word) {
                self.short[hash] = next as u32 + 1;
                return Some((place, other, next));
            }
            word = now;
            place = next;
            next += 1;
            let entry = self.swap(hash, place);
            if let Some(other) = search.agrees(place, entry, word) {
                self.short[hash] = next as u32 + 1;
                return Some((place, other, next));
            }
            word = now >> 8;
            place = next;
        }
    }
}
