//! The tokens that an emulator predicts, and how long they hold.

use crate::token::Token;

/// Predicted tokens from some place on. Hits are coded as runs, over all places where a predicted token begins.
#[derive(Default)]
pub struct Prediction {
    pub tokens: Vec<Token>,
    next: usize,
    place: usize,
    /// For an encoder: how many hits there are before each miss, the next at the end.
    runs: Vec<u32>,
    /// Whether the next run's length is to be coded.
    pub needs_run: bool,
    /// How many hits are left of the run.
    pub left: u32,
}

impl Prediction {
    /// None, and the next will begin at `place`.
    pub fn clear(&mut self, place: usize) {
        self.tokens.clear();
        self.runs.clear();
        (self.next, self.place, self.left, self.needs_run) = (0, place, 0, true);
    }

    /// The predicted token that begins at `place`, which never goes back.
    #[inline(always)]
    pub fn at(&mut self, place: usize) -> Option<Token> {
        while self.place < place && self.next < self.tokens.len() {
            self.place += self.tokens[self.next].span();
            self.next += 1;
        }
        if self.place == place {
            self.tokens.get(self.next).copied()
        } else {
            None
        }
    }

    /// Finds the runs for these blocks: stored bytes, then tokens.
    pub fn find_runs<'a>(&mut self, blocks: impl Iterator<Item = (usize, &'a [Token])>) {
        let start = self.place;
        let mut place = start;
        let (mut run, mut is_open) = (0, false);
        for (stored, tokens) in blocks {
            place += stored;
            for token in tokens {
                if let Some(predicted) = self.at(place) {
                    is_open = predicted == *token;
                    if is_open {
                        run += 1;
                    } else {
                        self.runs.push(run);
                        run = 0;
                    }
                }
                place += token.span();
            }
        }
        if is_open {
            self.runs.push(run);
        }
        self.runs.reverse();
        (self.next, self.place) = (0, start);
    }

    pub fn next_run(&mut self) -> u32 {
        self.runs.pop().unwrap_or(0)
    }
}
