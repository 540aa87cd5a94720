//! What naming comes to for one address.

/// A function at an address; several where some are inlined, innermost first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// Its name, for people.
    pub name: String,
    /// Its name as the compiler or runtime wrote it.
    pub system_name: String,
    /// Its source file; empty if that is not known.
    pub filename: String,
    /// The line; 0 if that is not known.
    pub line: i64,
}

impl Frame {
    /// A function of which the name alone is known, which is the one in its symbol.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), system_name: name.to_owned(), ..Self::default() }
    }
}

/// The functions at an address, or why there are none.
pub type Names = Result<Vec<Frame>, &'static str>;
