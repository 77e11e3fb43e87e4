//! The coding of dynamic headers: as one of three families would write them, or what differs from that.

use crate::code_lengths::{code_length_code, lengths, operations, predict, Counts, Style};
use crate::error::{Error, Result};
use crate::header::{extra_bits, DynamicHeader, Run, DISTANCES};
use crate::range::{tree, Coder, Probability, EVEN};
use crate::tables::CODE_LENGTH_ORDER;

const EXPLICIT: u32 = 3;
const GO: u32 = 0;
const OPEN: u32 = 1;
const ZLIB: u32 = 2;
const OWN_RUNS: u32 = 2;

pub struct HeaderCoder {
    family: [[Probability; 4]; 4],
    length: [[Probability; 16]; 32],
    runs: [Probability; 4],
    operation: [Probability; 32],
    same_code: Probability,
    last: usize,
}

impl HeaderCoder {
    pub fn new() -> HeaderCoder {
        HeaderCoder {
            family: [[EVEN; 4]; 4],
            length: [[EVEN; 16]; 32],
            runs: [EVEN; 4],
            operation: [EVEN; 32],
            same_code: EVEN,
            last: 0,
        }
    }

    /// The header of a block with these counts; `early` are those of its first 65535 plain bytes, if it has more.
    pub fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        wanted: Option<&DynamicHeader>,
        counts: &Counts,
        early: Option<&Counts>,
    ) -> Result<DynamicHeader> {
        let make = |family: u32| match family {
            GO => predict(Style::Go, counts),
            OPEN => predict(Style::Open, early.unwrap_or(counts)),
            _ => predict(Style::Zlib, counts),
        };
        let family = wanted.map_or(EXPLICIT, |wanted| {
            let order = match self.last as u32 {
                OPEN => [OPEN, GO, ZLIB],
                ZLIB => [ZLIB, GO, OPEN],
                _ => [GO, OPEN, ZLIB],
            };
            let writes_all = wanted.literal_count == 286 && wanted.distance_count == 30;
            let mut likely = order.into_iter().filter(|family| *family != OPEN || writes_all);
            likely.find(|family| make(*family) == *wanted).unwrap_or(EXPLICIT)
        });
        let family = tree(coder, &mut self.family[self.last], family, 2);
        self.last = family as usize;
        if family == EXPLICIT {
            return self.explicit(coder, wanted, counts);
        }
        Ok(make(family))
    }

    fn explicit<C: Coder>(
        &mut self,
        coder: &mut C,
        wanted: Option<&DynamicHeader>,
        counts: &Counts,
    ) -> Result<DynamicHeader> {
        let (expected, ..) = lengths(Style::Go, counts);
        let literal_count = coder.plain(wanted.map_or(0, |wanted| wanted.literal_count as u32 - 257), 5) as usize + 257;
        let distance_count = coder.plain(wanted.map_or(0, |wanted| wanted.distance_count as u32 - 1), 5) as usize + 1;
        if literal_count > 286 || distance_count > 30 {
            return Err(Error::Recipe("a block has too many codes"));
        }
        let runs = wanted.map_or(OWN_RUNS, |wanted| {
            let made = |style| operations(style, &wanted.lengths, literal_count, distance_count) == wanted.operations;
            if made(Style::Go) {
                0
            } else if made(Style::Zlib) {
                1
            } else {
                OWN_RUNS
            }
        });
        let runs = tree(coder, &mut self.runs, runs, 2);
        let style = if runs == 1 { Style::Zlib } else { Style::Go };
        let (operations, lengths) = if runs < OWN_RUNS {
            let mut lengths = [0u8; 320];
            let all = (0..literal_count).chain(DISTANCES..DISTANCES + distance_count);
            for symbol in all {
                let context = expected[symbol] as usize + if symbol >= DISTANCES { 16 } else { 0 };
                let length = wanted.map_or(0, |wanted| wanted.lengths[symbol] as u32);
                lengths[symbol] = tree(coder, &mut self.length[context], length, 4) as u8;
            }
            (operations(style, &lengths, literal_count, distance_count), lengths)
        } else {
            let mut run = Run::new(literal_count, distance_count);
            let mut at = 0;
            while !run.is_full() {
                let (symbol, extra) = wanted.map_or((0, 0), |wanted| wanted.operations[at]);
                let symbol = tree(coder, &mut self.operation, symbol as u32, 5) as u8;
                if symbol > 18 {
                    return Err(Error::Recipe("a code length has a symbol that does not exist"));
                }
                let extra = coder.plain(extra as u32, extra_bits(symbol)) as u8;
                run.push((symbol, extra)).map_err(Error::Recipe)?;
                at += 1;
            }
            run.finish()
        };
        let (mut code_lengths, mut code_length_count) = code_length_code(style, &operations);
        let same = wanted
            .is_some_and(|wanted| wanted.code_lengths == code_lengths && wanted.code_length_count == code_length_count);
        if !coder.bit(&mut self.same_code, same) {
            code_lengths = [0; 19];
            code_length_count =
                coder.plain(wanted.map_or(0, |wanted| wanted.code_length_count as u32 - 4), 4) as usize + 4;
            if code_length_count > 19 {
                return Err(Error::Recipe("a block has too many code lengths"));
            }
            for symbol in &CODE_LENGTH_ORDER[..code_length_count] {
                let length = wanted.map_or(0, |wanted| wanted.code_lengths[*symbol] as u32);
                code_lengths[*symbol] = coder.plain(length, 3) as u8;
            }
        }
        Ok(DynamicHeader { literal_count, distance_count, code_length_count, code_lengths, operations, lengths })
    }
}
