//! Hash chains as Go and zlib have them: a head for each hash, and for each of the last 32768 places the one before with its hash.

use super::RING;

const MASK: usize = RING - 1;

pub struct Chain<'a> {
    pub head: &'a mut [u32],
    pub before: &'a mut [u32],
    /// Places from here on have too few bytes behind them to be put in.
    pub end: usize,
}

impl Chain<'_> {
    /// Puts a place in; the entry (place + 1) that was the last before it, or 0.
    #[inline(always)]
    pub fn insert(&mut self, place: usize, hash: usize) -> usize {
        let last = self.head[hash];
        self.before[place & MASK] = last;
        self.head[hash] = place as u32 + 1;
        last as usize
    }

    /// Puts a stretch of places in.
    #[inline(always)]
    pub fn insert_all(&mut self, from: usize, to: usize, hash: impl Fn(usize) -> usize) {
        for place in from..to.min(self.end) {
            self.insert(place, hash(place));
        }
    }

    /// The entry before a place.
    #[inline(always)]
    pub fn before(&self, place: usize) -> usize {
        self.before[place & MASK] as usize
    }
}
