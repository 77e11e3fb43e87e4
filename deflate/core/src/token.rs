//! One literal or one copy.

/// A literal, whose byte is the plain byte at its place, or a copy of 3 to 258 bytes from 1 to 32768 bytes before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token(u32);

const LONG_FORM: u32 = 1 << 31;

impl Token {
    /// A single byte as it is.
    pub const LITERAL: Token = Token(1 << 16);

    /// A copy of `length` bytes (3 to 258) from `distance` bytes before (1 to 32768).
    #[inline(always)]
    pub fn copy(length: usize, distance: usize) -> Token {
        Token((length as u32) << 16 | (distance as u32 - 1))
    }

    /// The same copy of 258 bytes, written with the code of 227 to 257 and 31 in its extra bits.
    pub fn in_long_form(self) -> Token {
        Token(self.0 | LONG_FORM)
    }

    /// Whether this is a literal.
    #[inline(always)]
    pub fn is_literal(self) -> bool {
        self == Token::LITERAL
    }

    /// How many plain bytes the token makes: 1, or 3 to 258.
    #[inline(always)]
    pub fn span(self) -> usize {
        (self.0 >> 16 & 0x1ff) as usize
    }

    /// 1 to 32768; meaningless for a literal.
    #[inline(always)]
    pub fn distance(self) -> usize {
        (self.0 & 0x7fff) as usize + 1
    }

    /// Whether a length of 258 is written as 227 + 31.
    #[inline(always)]
    pub fn is_long_form(self) -> bool {
        self.0 & LONG_FORM != 0
    }
}

/// How many plain bytes some tokens make.
pub fn span(tokens: &[Token]) -> usize {
    tokens.iter().map(|token| token.span()).sum()
}
