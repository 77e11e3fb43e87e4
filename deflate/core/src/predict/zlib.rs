//! zlib and GNU gzip, levels 1 to 9, of which the tokens are alike; and the same in independent blocks with a dictionary (pigz).
//! Written from the published algorithm.

use super::chain::Chain;
use super::{Budget, Emulator, Part, Sink, Window, HALF, LEVELS, RING, WARM_UP};
use crate::bits::load32;
use crate::matches::common;
use crate::token::Token;

const SHORTEST: usize = 3;
const LONGEST: usize = 258;
/// A match of three bytes is taken only from this close.
const NEAR: usize = 4096;
/// How far back a match may begin.
const REACH: i64 = HALF - 262;
/// pigz's default.
const PIGZ_BLOCK: u64 = 131_072;

#[inline(always)]
fn hash(data: &[u8], place: usize) -> usize {
    ((data[place] as usize) << 10 ^ (data[place + 1] as usize) << 5 ^ data[place + 2] as usize) & (RING - 1)
}

/// Where the window of the encoder stands.
#[derive(Clone, Copy)]
struct Begin {
    /// Whether nothing before `start` but the dictionary was seen.
    is_fresh: bool,
    /// How far `start` is behind the window's first beginning.
    offset: u64,
}

impl Emulator {
    /// One stream.
    pub(super) fn zlib(&mut self, part: Part, level: usize, budget: &mut Budget, sink: &mut Sink) {
        self.zlib_block(part, Begin { is_fresh: false, offset: part.offset }, level, budget, sink);
    }

    /// Blocks of `unit` bytes, of which each knows the 32 KiB before it.
    pub(super) fn zlib_in_blocks(&mut self, part: Part, level: usize, unit: u32, budget: &mut Budget, sink: &mut Sink) {
        let unit = if unit == 0 { PIGZ_BLOCK } else { unit as u64 };
        let mut at = part.start;
        let mut inside = part.offset % unit;
        let mut lowest = part.lowest;
        while at < part.data.len() {
            if !budget.spend(512) {
                return;
            }
            self.head[..RING].fill(0);
            let end = (at as u64 + unit - inside).min(part.data.len() as u64) as usize;
            let block = Part { data: &part.data[..end], lowest, start: at, offset: inside };
            let begin = match inside {
                0 => Begin { is_fresh: true, offset: (at - lowest) as u64 },
                _ => Begin { is_fresh: false, offset: inside + HALF as u64 },
            };
            (sink.at, sink.start) = (at, at);
            if !self.zlib_block(block, begin, level, budget, sink) {
                return;
            }
            at = end;
            inside = 0;
            lowest = at.saturating_sub(HALF as usize).max(part.lowest);
        }
    }

    /// False if the budget ended.
    fn zlib_block(&mut self, part: Part, begin: Begin, level: usize, budget: &mut Budget, sink: &mut Sink) -> bool {
        let Part { data, lowest, start, .. } = part;
        let is_lazy = level >= 4;
        let level = LEVELS[level];
        let hash = |place: usize| hash(data, place);
        let mut chain = Chain {
            head: &mut self.head[..RING],
            before: &mut self.before,
            end: data.len().saturating_sub(SHORTEST - 1),
        };
        let mut place = match (begin.is_fresh, is_lazy) {
            (true, _) => start,
            (false, true) => start.saturating_sub(WARM_UP).max(lowest),
            (false, false) => lowest,
        };
        chain.insert_all(place.saturating_sub(HALF as usize).max(lowest), place, hash);
        sink.at = place;
        let mut window = Window::new(place, begin.offset as i64 - (start - place) as i64);
        let (mut length, mut found_at, mut pending) = (SHORTEST - 1, 0, false);
        while place < data.len() {
            let ahead = data.len() - place;
            window.slide_to(place);
            let first = if place < chain.end { chain.insert(place, hash(place)) } else { 0 };
            let (length_before, found_before) = (length, found_at);
            length = SHORTEST - 1;
            // The first byte of the window is never a match's beginning: its entry is what ends a chain.
            let floor = window.base.max(lowest as i64 - 1);
            let far = place as i64 - REACH;
            if first > 0 && first as i64 - 1 > floor.max(far - 1) && (!is_lazy || length_before < level.lazy) {
                let mut best = if is_lazy { length_before } else { SHORTEST - 1 };
                let mut left = if best >= level.good { level.chain >> 2 } else { level.chain };
                let most = ahead.min(LONGEST);
                let nice = level.nice.min(ahead);
                let (mut entry, mut steps) = (first, 0);
                while best < most {
                    steps += 1;
                    let other = entry - 1;
                    let may_be_longer = if best > 2 {
                        load32(data, other + best - 3) == load32(data, place + best - 3)
                    } else {
                        data[other + best] == data[place + best]
                    };
                    if may_be_longer {
                        let found = common(data, other, place, most);
                        steps += found as u64 / 32;
                        if found > best {
                            (best, found_at) = (found, other);
                            if found >= nice || found >= most {
                                break;
                            }
                        }
                    }
                    let next = chain.before(other);
                    left -= 1;
                    if next == 0 || next > other || next as i64 - 1 <= floor.max(far) || left == 0 {
                        break;
                    }
                    entry = next;
                }
                if !budget.spend(steps) {
                    return false;
                }
                length = best.min(ahead);
                if is_lazy && length == SHORTEST && place - found_at > NEAR {
                    length = SHORTEST - 1;
                }
            }
            if is_lazy {
                if length_before >= SHORTEST && length <= length_before {
                    sink.push(Token::copy(length_before, place - 1 - found_before));
                    let next = place + length_before - 1;
                    chain.insert_all(place + 1, next, hash);
                    place = next;
                    (pending, length) = (false, SHORTEST - 1);
                } else {
                    if pending {
                        sink.push(Token::LITERAL);
                    }
                    pending = true;
                    place += 1;
                }
            } else if length >= SHORTEST {
                sink.push(Token::copy(length, place - found_at));
                let next = place + length;
                if length <= level.lazy && data.len() - next >= SHORTEST {
                    chain.insert_all(place + 1, next, hash);
                }
                place = next;
            } else {
                sink.push(Token::LITERAL);
                place += 1;
            }
        }
        if pending {
            sink.push(Token::LITERAL);
        }
        true
    }
}
