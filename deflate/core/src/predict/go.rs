//! Go's compress/flate up to 1.26, levels 2 to 9. Learnt from the behaviour of its source (BSD); what is here was written anew.

use super::chain::Chain;
use super::{Budget, Emulator, Part, Sink, Window, HALF, LEVELS};
use crate::bits::load32;
use crate::matches::common;
use crate::token::Token;

const SHORTEST: usize = 4;
const LONGEST: usize = 258;
/// A match of four bytes is taken only from this close.
const NEAR: usize = 4096;

#[inline(always)]
fn hash(data: &[u8], place: usize) -> usize {
    (load32(data, place).swap_bytes().wrapping_mul(0x1e35_a7bd) >> 15) as usize
}

/// The lowest place that a match at `place` may begin at.
#[inline(always)]
fn reach(part: &Part, window: &Window, place: usize) -> usize {
    (place.saturating_sub(HALF as usize) as i64).max(window.base).max(part.lowest as i64) as usize
}

impl Emulator {
    fn go_chain(&mut self, part: &Part) -> Chain<'_> {
        Chain { head: &mut self.head, before: &mut self.before, end: part.data.len().saturating_sub(SHORTEST - 1) }
    }

    /// Levels 4 to 9: a match is given out when the next place has no longer one.
    pub(super) fn go_lazy(&mut self, part: Part, level: usize, budget: &mut Budget, sink: &mut Sink) {
        let Part { data, lowest, start, offset } = part;
        let level = LEVELS[level];
        let hash = |place: usize| hash(data, place);
        let mut place = start.saturating_sub(self.warm_up).max(lowest);
        let mut chain = self.go_chain(&part);
        chain.insert_all(place.saturating_sub(HALF as usize).max(lowest), place, hash);
        sink.at = place;
        let mut window = Window::new(place, offset as i64 - (start - place) as i64);
        let (mut length, mut distance, mut pending) = (SHORTEST - 1, 0, false);
        while place < data.len() {
            let ahead = data.len() - place;
            window.slide_to(place);
            let first = if place < chain.end { chain.insert(place, hash(place)) } else { 0 };
            let (length_before, distance_before) = (length, distance);
            (length, distance) = (SHORTEST - 1, 0);
            let lowest = reach(&part, &window, place);
            if first > lowest && ahead > length_before && length_before < level.lazy {
                let most = ahead.min(LONGEST);
                let nice = level.nice.min(most);
                let mut wanted = load32(data, place);
                let (mut entry, mut steps) = (first, 0);
                for _ in 0..level.chain {
                    steps += 1;
                    let other = entry - 1;
                    if load32(data, other + length - 3) == wanted {
                        let found = common(data, other, place, most);
                        steps += found as u64 / 32;
                        if found > length && (found > SHORTEST || place - other <= NEAR) {
                            (length, distance) = (found, place - other);
                            if found >= nice {
                                break;
                            }
                            wanted = load32(data, place + found - 3);
                        }
                    }
                    if other == lowest {
                        break;
                    }
                    entry = chain.before(other);
                    if entry <= lowest {
                        break;
                    }
                }
                if !budget.spend(steps) {
                    return;
                }
            }
            if length_before >= SHORTEST && length <= length_before {
                sink.push(Token::copy(length_before, distance_before));
                let next = place + length_before - 1;
                chain.insert_all(place + 1, next, hash);
                place = next;
                (pending, length) = (false, SHORTEST - 1);
            } else {
                if pending {
                    sink.push(Token::LITERAL);
                }
                place += 1;
                pending = true;
            }
        }
        if pending {
            sink.push(Token::LITERAL);
        }
    }

    /// Levels 2 and 3: the longest match is taken at once.
    pub(super) fn go_greedy(&mut self, part: Part, level: usize, budget: &mut Budget, sink: &mut Sink) {
        let Part { data, lowest, start, offset } = part;
        let (nice, depth, insert_up_to) = if level == 2 { (16, 8, 5) } else { (32, 32, 6) };
        let hash = |place: usize| hash(data, place);
        let mut chain = self.go_chain(&part);
        let mut place = lowest;
        sink.at = place;
        let mut window = Window::new(place, offset as i64 - (start - place) as i64);
        while place < data.len() {
            let ahead = data.len() - place;
            window.slide_to(place);
            let first = if place < chain.end { chain.insert(place, hash(place)) } else { 0 };
            let lowest = reach(&part, &window, place);
            let (mut length, mut distance) = (SHORTEST - 1, 0);
            if first > lowest && ahead >= SHORTEST {
                let most = ahead.min(LONGEST);
                let nice = most.min(nice);
                let (mut entry, mut steps) = (first, 0);
                for _ in 0..depth {
                    steps += 1;
                    let other = entry - 1;
                    if data[other + length] == data[place + length] {
                        let found = common(data, other, place, most);
                        steps += found as u64 / 32;
                        if found > length && (found > SHORTEST || place - other <= NEAR) {
                            (length, distance) = (found, place - other);
                            if found >= nice {
                                break;
                            }
                        }
                    }
                    if other == lowest {
                        break;
                    }
                    entry = chain.before(other);
                    if entry <= lowest {
                        break;
                    }
                }
                if !budget.spend(steps) {
                    return;
                }
            }
            if length < SHORTEST {
                sink.push(Token::LITERAL);
                place += 1;
                continue;
            }
            sink.push(Token::copy(length, distance));
            if length <= insert_up_to {
                chain.insert_all(place + 1, place + length, hash);
            }
            place += length;
        }
    }
}
