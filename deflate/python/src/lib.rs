//! The binding: bytes in, bytes out. All work is done without the interpreter's lock, and a panic becomes an exception.

#![forbid(unsafe_code)]

use std::panic::{catch_unwind, AssertUnwindSafe};

use deflate_recipe as recipe;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

pyo3::create_exception!(transfer_deflate, DeflateError, PyException, "The gzip stream or the record is not sound.");

/// Does the work without the interpreter's lock.
fn apart<T: Send>(py: Python<'_>, work: impl FnOnce() -> recipe::Result<T> + Send) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(DeflateError::new_err(error.to_string())),
        Err(_) => Err(DeflateError::new_err("the codec failed; this is a fault in it")),
    }
}

/// A stretch of a gzip stream, taken apart.
#[pyclass(frozen)]
struct Segment {
    segment: Box<recipe::Segment>,
    plan: recipe::Plan,
}

#[pymethods]
impl Segment {
    /// Its plain bytes.
    fn plain<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.segment.plain())
    }

    /// Its record, proven by decoding.
    fn record<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let made = apart(py, || Ok(recipe::encode(&self.segment, &self.plan)))?;
        Ok(PyBytes::new(py, &made.record))
    }

    /// The numbers of the encoders that it is coded with (bundles/FORMAT.md).
    fn encoders(&self) -> Vec<u8> {
        std::iter::once(&self.plan.first).chain(&self.plan.starts).map(|choice| choice.encoder).collect()
    }
}

/// A gzip stream on its way in. From the first segment on that is not sound, or over a limit, segments hold its bits as they are.
#[pyclass]
struct Parser {
    parser: recipe::Parser,
    chooser: recipe::Chooser,
}

#[pymethods]
impl Parser {
    /// `plain`, `members`: so many plain bytes and members may the stream have. `segment`: plain bytes of one segment, less for tests alone.
    #[new]
    #[pyo3(signature = (plain, members, segment = None))]
    fn new(plain: u64, members: u64, segment: Option<usize>) -> Parser {
        let usual = recipe::Limits::default();
        let limits = recipe::Limits { plain, members, segment: segment.unwrap_or(usual.segment) };
        Parser { parser: recipe::Parser::new(limits), chooser: recipe::Chooser::default() }
    }

    /// Why the stream is held as it is from some place on, if it is.
    #[getter]
    fn fault(&self) -> Option<String> {
        self.parser.fault().map(ToString::to_string)
    }

    /// The segments that these bytes complete; nothing at all means the end of the stream.
    fn feed(&mut self, py: Python<'_>, piece: &[u8]) -> PyResult<Vec<Segment>> {
        apart(py, || {
            if piece.is_empty() {
                self.parser.finish();
            } else {
                self.parser.feed(piece);
            }
            let mut segments = Vec::new();
            while let recipe::Step::Segment(segment) = self.parser.step() {
                let plan = self.chooser.choose(&segment);
                segments.push(Segment { segment, plan });
            }
            Ok(segments)
        })
    }
}

/// What a record covers, read from its first bytes: plain bytes, bits of the stream, plain bytes before its own that `decode` wants, and
/// how long the record is. None if more bytes are needed.
#[pyfunction]
fn head(record: &[u8]) -> PyResult<Option<(usize, u64, usize, usize)>> {
    match recipe::Head::read(record) {
        Ok(head) => Ok(head.map(|head| (head.plain, head.bits, head.history, head.length))),
        Err(error) => Err(DeflateError::new_err(error.to_string())),
    }
}

/// The bits of a record, from bit `start_bit` of the first byte on. `history` and `plain` are as long as the head says.
#[pyfunction]
fn decode<'py>(
    py: Python<'py>,
    record: &[u8],
    start_bit: u8,
    history: &[u8],
    plain: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let bits = apart(py, || recipe::decode(record, start_bit, &[history, plain].concat()))?;
    Ok(PyBytes::new(py, &bits))
}

/// Joins the bits of records into the bytes of the stream.
#[pyclass]
struct Assembler {
    assembler: recipe::Assembler,
}

#[pymethods]
impl Assembler {
    #[new]
    fn new() -> Assembler {
        Assembler { assembler: recipe::Assembler::new() }
    }

    /// At which bit of a byte the next record begins.
    #[getter]
    fn start_bit(&self) -> u8 {
        self.assembler.start_bit()
    }

    /// Takes the bits of the next record; gives the bytes that are whole now.
    fn join<'py>(&mut self, py: Python<'py>, record: &[u8], bits: u64) -> PyResult<Bound<'py, PyBytes>> {
        let bytes =
            self.assembler.join(record.to_vec(), bits).map_err(|error| DeflateError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// How many bytes there were; DeflateError if the last is not whole.
    fn finish(&self) -> PyResult<u64> {
        self.assembler.finish().map_err(|error| DeflateError::new_err(error.to_string()))
    }
}

/// Makes a gzip stream of plain bytes alone, as an encoder would that is known so well.
#[pyclass]
struct Remaker {
    remaker: Option<recipe::Remaker>,
}

#[pymethods]
impl Remaker {
    /// `encoder`: its number in bundles/FORMAT.md; DeflateError for one that is not known so well.
    #[new]
    fn new(encoder: u8) -> PyResult<Remaker> {
        match recipe::Remaker::new(encoder) {
            Ok(remaker) => Ok(Remaker { remaker: Some(remaker) }),
            Err(error) => Err(DeflateError::new_err(error.to_string())),
        }
    }

    /// Takes the next plain bytes; gives the bytes of the stream that are known now.
    fn feed<'py>(&mut self, py: Python<'py>, plain: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let remaker = self.remaker.as_mut().ok_or_else(|| DeflateError::new_err("the stream is finished"))?;
        let bytes = apart(py, || remaker.feed(plain))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// The rest of the stream.
    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let remaker = self.remaker.take().ok_or_else(|| DeflateError::new_err("the stream is finished"))?;
        let bytes = apart(py, || remaker.finish())?;
        Ok(PyBytes::new(py, &bytes))
    }
}

/// The codec of transfer for gzip layers (bundles/FORMAT.md, "Recipes of gzip layers").
#[pymodule]
fn transfer_deflate(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("DeflateError", module.py().get_type::<DeflateError>())?;
    module.add("FORMAT", 1)?;
    module.add_class::<Parser>()?;
    module.add_class::<Segment>()?;
    module.add_class::<Assembler>()?;
    module.add_class::<Remaker>()?;
    module.add_function(wrap_pyfunction!(head, module)?)?;
    module.add_function(wrap_pyfunction!(decode, module)?)
}
