//! The terminal that standard output may be. The only user of terminal_size.

/// Its columns and rows, if it is one.
pub fn size() -> Option<(usize, usize)> {
    let (width, height) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some((usize::from(width.0), usize::from(height.0)))
}
