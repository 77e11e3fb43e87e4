//! Why a file cannot be taken apart, or a record not be put together.

/// What ends a function early. The texts are for people: they name the thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The gzip file breaks a rule of RFC 1951 or RFC 1952.
    Gzip(&'static str),
    /// The record breaks a rule of its format, or its plain bytes are others than those it was made with.
    Recipe(&'static str),
    /// The file is sound, but larger than the caller allows.
    Limit(&'static str),
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Gzip(what) => write!(f, "the gzip stream is not sound: {what}"),
            Error::Recipe(what) => write!(f, "the recipe is not sound: {what}"),
            Error::Limit(what) => write!(f, "the gzip stream is over a limit: {what}"),
        }
    }
}

impl std::error::Error for Error {}
