//! Recording: from the machine to a profile without names.
pub mod capture;
pub mod plan;
pub mod progress;
pub mod record;
pub mod summary;
pub mod tally;
pub mod timeline;
pub mod unwinding;
