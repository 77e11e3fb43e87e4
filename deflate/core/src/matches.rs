//! Where plain bytes came before: common lengths, and hash chains over the plain bytes.

use crate::bits::{load32, load64};
use crate::segment::HISTORY;

/// How many bytes from `a` and from `b` on are alike, at most `most`; `a` < `b`, and `b + most` bytes are there.
#[inline(always)]
pub fn common(data: &[u8], a: usize, b: usize, most: usize) -> usize {
    let x = &data[a..a + most];
    let y = &data[b..b + most];
    let mut length = 0;
    while length + 8 <= most {
        let differ = load64(x, length) ^ load64(y, length);
        if differ != 0 {
            return length + (differ.trailing_zeros() >> 3) as usize;
        }
        length += 8;
    }
    while length < most && x[length] == y[length] {
        length += 1;
    }
    length
}

const HASH_BITS: u32 = 16;
const RING: usize = 65535;
/// How many places are looked at for the longest match.
const DEPTH: usize = 64;
/// How many places are looked at for one that is not the longest.
const DEEP: usize = 256;
const LONGEST: usize = 258;

/// Matches at a place, each longer and farther than the one before.
#[derive(Clone, Copy)]
pub struct Candidates {
    pub place: usize,
    pub count: usize,
    lengths: [u16; DEPTH],
    less: [u16; DEPTH],
}

impl Candidates {
    pub fn none() -> Candidates {
        Candidates { place: usize::MAX, count: 0, lengths: [0; DEPTH], less: [0; DEPTH] }
    }

    #[inline(always)]
    pub fn longest(&self) -> usize {
        if self.count > 0 {
            self.lengths[self.count - 1] as usize
        } else {
            0
        }
    }

    /// The distance of the `rank`-th longest, 0 being the longest.
    #[inline(always)]
    pub fn distance(&self, rank: usize) -> usize {
        self.less[self.count - 1 - rank] as usize + 1
    }
}

/// For each hash of 3 or 4 bytes, the places that have it, the last first. Entries are a place + 1; 0 is none.
pub struct Chains {
    head: Vec<u32>,
    before: Vec<u32>,
    inserted: usize,
    shortest: usize,
}

impl Chains {
    pub fn new() -> Chains {
        Chains { head: vec![0; 1 << HASH_BITS], before: vec![0; RING + 1], inserted: 0, shortest: 3 }
    }

    pub fn reset(&mut self, shortest: usize) {
        self.head.fill(0);
        self.inserted = 0;
        self.shortest = shortest;
    }

    /// Of the bytes from `place` on that a match begins with; four bytes are there.
    #[inline(always)]
    pub fn hash(&self, data: &[u8], place: usize) -> usize {
        let word = load32(data, place);
        let word = if self.shortest == 3 { word << 8 } else { word };
        (word.wrapping_mul(2_654_435_761) >> (32 - HASH_BITS)) as usize
    }

    /// Puts in all places up to `place`. What lies too far back to be reached is left out.
    #[inline(always)]
    pub fn insert_to(&mut self, data: &[u8], place: usize) {
        if place > self.inserted + 40_000 {
            self.inserted = place - 33_000;
        }
        let end = (place + 1).min(data.len().saturating_sub(3));
        while self.inserted < end {
            let hash = self.hash(data, self.inserted);
            self.before[self.inserted & RING] = self.head[hash];
            self.inserted += 1;
            self.head[hash] = self.inserted as u32;
        }
    }

    #[inline(always)]
    fn first(&self, data: &[u8], place: usize) -> usize {
        let mut entry = self.head[self.hash(data, place)] as usize;
        while entry > place {
            entry = self.before[(entry - 1) & RING] as usize;
        }
        entry
    }

    /// Fills in the matches at `place` of which each is longer than all nearer ones, down to `lowest`.
    #[inline]
    pub fn find(&self, data: &[u8], place: usize, lowest: usize, found: &mut Candidates) {
        found.place = place;
        found.count = 0;
        let most = (data.len() - place).min(LONGEST);
        if most < 4 {
            return;
        }
        let mut entry = self.first(data, place);
        let lowest = lowest.max(place.saturating_sub(HISTORY));
        let mut best = self.shortest - 1;
        // A longer match agrees in the four bytes that end at its index `best`; if three make a match, in its first three.
        let (mut at, mut mask) = if best < 3 { (0, 0x00ff_ffff) } else { (best - 3, u32::MAX) };
        let mut wanted = load32(data, place + at) & mask;
        for _ in 0..DEPTH {
            if entry <= lowest {
                break;
            }
            let other = entry - 1;
            if load32(data, other + at) & mask == wanted {
                let length = common(data, other, place, most);
                if length > best {
                    best = length;
                    found.lengths[found.count] = length as u16;
                    found.less[found.count] = (place - other - 1) as u16;
                    found.count += 1;
                    if length == most {
                        break;
                    }
                    (at, mask) = (best - 3, u32::MAX);
                    wanted = load32(data, place + at);
                }
            }
            let next = self.before[other & RING] as usize;
            if next >= entry {
                break;
            }
            entry = next;
        }
        // No more than one candidate a step: `count` never exceeds DEPTH.
    }

    /// Goes through the places that agree in as many bytes as a match begins with, until `wanted(index, distance)`.
    pub fn walk(
        &self,
        data: &[u8],
        place: usize,
        lowest: usize,
        wanted: impl Fn(usize, usize) -> bool,
    ) -> Option<(usize, usize)> {
        if place + 4 > data.len() {
            return None;
        }
        let mut entry = self.first(data, place);
        let lowest = lowest.max(place.saturating_sub(HISTORY));
        let mut index = 0;
        for _ in 0..DEEP {
            if entry <= lowest {
                break;
            }
            let other = entry - 1;
            if data[other..other + self.shortest] == data[place..place + self.shortest] {
                if wanted(index, place - other) {
                    return Some((index, place - other));
                }
                index += 1;
            }
            let next = self.before[other & RING] as usize;
            if next >= entry {
                break;
            }
            entry = next;
        }
        None
    }
}
