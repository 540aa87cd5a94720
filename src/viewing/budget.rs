//! A bound on the memory that a file may take once it is read, whatever it claims.

use std::fmt;

use anyhow::Result;

/// What to do about a damaged file.
pub(super) const DAMAGED: &str = "the file is damaged: make or copy it again";
/// What to do about a file that is too large.
pub(super) const TOO_BIG: &str = "if it is a profile at all, record a shorter one";
/// Most bytes that a profile takes in memory, as estimated by [`Budget`].
pub(super) const MAX_MEMORY: usize = 2 << 30;

/// Memory that may still be used, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: usize,
    limit: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { left: limit, limit }
    }

    /// To be called with the size of what is stored, its share of hash tables and allocators
    /// included.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Advice(format!("it takes more than {} MiB of memory: {TOO_BIG}", self.limit >> 20))
        })?;
        Ok(())
    }
}

/// An error that already says what to do.
#[derive(Debug)]
pub(super) struct Advice(pub(super) String);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Advice {}
