//! Level 6: as level 5, with a look at the distance before, at both entries of the long table, and more places put in.

use super::{hash4, hash7, Match, Out, Search, Tables, LONGEST};
use crate::bits::{load32, load64};
use crate::matches::common;

impl Tables<'_> {
    pub(super) fn level6(&mut self, search: &Search, from: usize, out: &mut Out) {
        let data = search.data;
        let (mut place, mut distance) = (from, 1);
        while let Some((mut found, next)) = self.find6(search, place, out.literals_from, distance) {
            search.complete(&mut found);
            let (end, later) = (found.place + found.length, found.place + 2);
            if end < search.last {
                let (newer, older) = self.long[hash7(load64(data, end))];
                // The older one is looked at only if the newer one is not too far back.
                if newer > 0 && later + found.length < newer as usize + 1 + super::REACH {
                    search.better_at_end(&mut found, newer, later);
                    search.better_at_end(&mut found, older, later);
                }
            }
            search.extend_back(&mut found, out.literals_from);
            out.push(&found);
            distance = found.place - found.other;
            place = if next >= out.literals_from { next + 1 } else { out.literals_from };
            if place >= search.last {
                for place in (next + 1..data.len().saturating_sub(8)).step_by(2) {
                    let word = load64(data, place);
                    self.put_short(word, place);
                    self.put_long(word, place);
                }
                break;
            }
            for place in (next + 1..place - 1).step_by(2) {
                let word = load64(data, place);
                self.put_short(word, place);
                self.put_long(word, place);
                self.put_long(word >> 8, place + 1);
            }
        }
    }

    /// The next match from `place` on, and the place that would have been looked at after it. Steps grow the longer none is found.
    #[inline(always)]
    fn find6(
        &mut self,
        search: &Search,
        place: usize,
        literals_from: usize,
        distance: usize,
    ) -> Option<(Match, usize)> {
        let data = search.data;
        let mut word = load64(data, place);
        let mut next = place;
        loop {
            let place = next;
            next = place + 1 + ((place - literals_from) >> 7);
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
                let (long_entry, older_entry) = self.long[hash7(next_word)];
                self.put_short(next_word, next);
                self.put_long(next_word, next);
                let mut found = Match { place, other, length: search.length(other, place) };
                // At the next place, the distance of the match before may go on.
                let again = place + 1 - distance;
                if load32(data, again) == (word >> 8) as u32 {
                    let most = (data.len() - place - 5).min(LONGEST - 4);
                    let length = 4 + common(data, again + 4, place + 5, most);
                    if length > found.length {
                        return Some((Match { place: place + 1, other: again, length }, next));
                    }
                }
                if search.is_near(next, long_entry) {
                    for entry in [long_entry, older_entry] {
                        if let Some(other) = search.agrees(next, entry, next_word) {
                            found.better(search, next, other);
                        }
                    }
                }
                return Some((found, next));
            }
            word = next_word;
        }
    }
}
