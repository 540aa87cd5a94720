//! What the operating system says of us and to us.
pub mod signals;
pub mod usage;
