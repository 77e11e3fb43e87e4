//! The coding of a block: how far it goes, its tokens, then its header, which is predicted from them.

use super::Code;
use crate::code_lengths::Counts;
use crate::error::{Error, Result};
use crate::range::{number, tree, Coder};
use crate::segment::{Block, Event, Kind};
use crate::tables::{distance_code, length_code, END_OF_BLOCK, LONG_FORM_CODE};
use crate::token::{span, Token};

impl<C: Coder> Code<'_, C> {
    pub(super) fn padding(&mut self, padding: u8) -> u8 {
        if self.coder.bit(&mut self.probabilities.no_padding, padding == 0) {
            return 0;
        }
        self.coder.plain(padding as u32, 7) as u8
    }

    pub(super) fn block(&mut self, wanted: Option<&Event>) -> Result<Block> {
        let wanted = if let Some(Event::Block(block)) = wanted { Some(block) } else { None };
        let probabilities = &mut *self.probabilities;
        let may_continue = self.is_first && self.place.in_member;
        let continued =
            may_continue && self.coder.bit(&mut probabilities.continued, wanted.is_some_and(|block| block.continued));
        let last = self.coder.bit(&mut probabilities.last, wanted.is_some_and(|block| block.last));
        let kind = wanted.map_or(0, |block| match block.kind {
            Kind::Stored { .. } => 0,
            Kind::Fixed => 1,
            Kind::Dynamic(_) => 2,
        });
        let kind = tree(&mut self.coder, &mut probabilities.kind[self.last.kind], kind, 2);
        self.last.kind = kind as usize;
        match kind {
            0 if !continued => self.stored(wanted, last),
            1 | 2 => self.compressed(wanted, continued, last, kind == 2),
            _ => Err(Error::Recipe("a block has a type that does not exist")),
        }
    }

    fn stored(&mut self, wanted: Option<&Block>, last: bool) -> Result<Block> {
        let (length, padding) = match wanted {
            Some(Block { kind: Kind::Stored { length, padding }, .. }) => (*length, *padding),
            _ => (0, 0),
        };
        let padding = self.padding(padding);
        let probabilities = &mut *self.probabilities;
        let mut found = 0;
        if !self.coder.bit(&mut probabilities.is_empty, length == 0) {
            if !self.coder.bit(&mut probabilities.same_length, length == self.last.stored) {
                self.last.stored = self.coder.plain(length as u32, 16) as u16;
            }
            found = self.last.stored;
        }
        if found as usize > self.data.len() - self.at {
            return Err(Error::Recipe("a stored block is longer than the plain bytes"));
        }
        self.at += found as usize;
        self.tables.tokens.clear();
        Ok(Block { continued: false, last, kind: Kind::Stored { length: found, padding }, tokens: 0, ends: true })
    }

    /// The tokens come before the header: the header is predicted from them.
    fn compressed(&mut self, wanted: Option<&Block>, continued: bool, last: bool, is_dynamic: bool) -> Result<Block> {
        let ends = self.coder.bit(&mut self.probabilities.ends, wanted.map_or(true, |block| block.ends));
        let extent = self.extent(wanted)?;
        let begin = self.at;
        let mut counts = Counts::new();
        counts.literals[END_OF_BLOCK] = 1;
        let mut early = None;
        let tokens = self.tokens(extent, &mut counts, &mut early)?;
        self.last.tokens = tokens;
        self.last.plain = self.at - begin;
        if !is_dynamic {
            return Ok(Block { continued, last, kind: Kind::Fixed, tokens, ends });
        }
        let wanted = match wanted {
            Some(Block { kind: Kind::Dynamic(header), .. }) => Some(&**header),
            _ => None,
        };
        let header = self.headers.code(&mut self.coder, wanted, &counts, early.as_deref())?;
        Ok(Block { continued, last, kind: Kind::Dynamic(Box::new(header)), tokens, ends })
    }

    /// How far a block goes: as many tokens as the one before, as many plain bytes, or a number of tokens.
    fn extent(&mut self, wanted: Option<&Block>) -> Result<Extent> {
        let mut tokens = 0;
        let mut kind = 0;
        if let (Some(block), Some(source)) = (wanted, &self.source) {
            tokens = block.tokens;
            let plain = span(&source.segment.tokens[source.token..source.token + tokens]);
            kind = if tokens == self.last.tokens { 0 } else { 2 - (plain == self.last.plain) as u32 };
        }
        let kind = tree(&mut self.coder, &mut self.probabilities.extent[self.last.extent], kind, 2);
        self.last.extent = kind as usize;
        match kind {
            0 => Ok(Extent::Tokens(self.last.tokens)),
            1 if self.last.plain <= self.data.len() - self.at => Ok(Extent::Plain(self.at + self.last.plain)),
            2 => Ok(Extent::Tokens(number(&mut self.coder, &mut self.probabilities.tokens, tokens as u32)? as usize)),
            _ => Err(Error::Recipe("a block goes on beyond the plain bytes")),
        }
    }

    /// Codes a block's tokens, counts its symbols, and those of its first 65535 bytes in `early` if it has more.
    fn tokens(&mut self, extent: Extent, counts: &mut Counts, early: &mut Option<Box<Counts>>) -> Result<usize> {
        const EARLY: usize = 65535;
        let begin = self.at;
        let end = self.data.len();
        let mut count = 0;
        self.tables.tokens.clear();
        while !extent.is_reached(count, self.at) {
            if self.at >= end {
                return Err(Error::Recipe("a block goes on beyond the plain bytes"));
            }
            if self.at - begin >= EARLY && early.is_none() {
                *early = Some(Box::new(counts.clone()));
            }
            let token = self.token()?;
            if token.span() > end - self.at {
                return Err(Error::Recipe("a copy goes on beyond the plain bytes"));
            }
            if token.is_literal() {
                counts.literals[self.data[self.at] as usize] += 1;
            } else {
                let code = if token.is_long_form() { LONG_FORM_CODE } else { length_code(token.span()) };
                counts.literals[END_OF_BLOCK + 1 + code] += 1;
                counts.distances[distance_code(token.distance())] += 1;
            }
            self.at += token.span();
            count += 1;
            if !C::ENCODES {
                self.tables.tokens.push(token);
            }
        }
        if matches!(extent, Extent::Plain(plain) if plain != self.at) {
            return Err(Error::Recipe("a block ends inside a copy"));
        }
        Ok(count)
    }

    /// The next token: the predicted one as long as the run of hits goes on, else what the general model says.
    #[inline(always)]
    fn token(&mut self) -> Result<Token> {
        let wanted = match &mut self.source {
            Some(source) => {
                source.token += 1;
                source.segment.tokens[source.token - 1]
            }
            None => Token::LITERAL,
        };
        let tables = &mut *self.tables;
        if let Some(predicted) = tables.prediction.at(self.at) {
            if tables.prediction.needs_run {
                let run = if C::ENCODES { tables.prediction.next_run() } else { 0 };
                tables.prediction.left = number(&mut self.coder, &mut self.probabilities.run, run)?;
                tables.prediction.needs_run = false;
            }
            if tables.prediction.left > 0 {
                tables.prediction.left -= 1;
                return Ok(predicted);
            }
            tables.prediction.needs_run = true;
        }
        self.missed += 1;
        let token = tables.model.token(&mut self.coder, self.data, self.at, self.lowest, wanted)?;
        self.coder.check()?;
        Ok(token)
    }
}

enum Extent {
    Tokens(usize),
    /// Up to this place.
    Plain(usize),
}

impl Extent {
    #[inline(always)]
    fn is_reached(&self, tokens: usize, at: usize) -> bool {
        match self {
            Extent::Tokens(count) => tokens >= *count,
            Extent::Plain(end) => at >= *end,
        }
    }
}
