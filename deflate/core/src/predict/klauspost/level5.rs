//! Level 5: two tables, a look at the next place, and one at the match's end.

use super::{hash4, hash7, Match, Out, Search, Tables};
use crate::bits::load64;

/// A match shorter than this is tried to be bettered by looking at its end.
const SHORT: usize = 30;

impl Tables<'_> {
    pub(super) fn level5(&mut self, search: &Search, from: usize, out: &mut Out) {
        let data = search.data;
        let (mut place, mut word) = (from, load64(data, from));
        while let Some((mut found, next)) = self.find5(search, place, out.literals_from, word) {
            search.complete(&mut found);
            let (end, later) = (found.place + found.length, found.place + 2);
            if found.length < SHORT && end < search.last {
                let entry = self.long[hash7(load64(data, end))].0;
                search.better_at_end(&mut found, entry, later);
            }
            search.extend_back(&mut found, out.literals_from);
            out.push(&found);
            place = if next >= out.literals_from { next + 1 } else { out.literals_from };
            if place >= search.last {
                break;
            }
            self.index5(data, place - found.length, place);
            let around = load64(data, place - 1);
            self.put_short(around, place - 1);
            self.put_long(around, place - 1);
            word = around >> 8;
        }
    }

    /// The next match from `place` on, and the place that would have been looked at after it. Steps grow the longer none is found.
    #[inline(always)]
    fn find5(&mut self, search: &Search, place: usize, literals_from: usize, word: u64) -> Option<(Match, usize)> {
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
            if let Some(found) = search.long_match(place, (long_entry, older_entry), word) {
                self.put_short(next_word, next);
                self.put_long(next_word, next);
                return Some((found, next));
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
    fn index5(&mut self, data: &[u8], from: usize, end: usize) {
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
