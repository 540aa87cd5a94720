//! What the operating system tells about itself and about us, and nothing that is about profiles.

pub mod cgroups;
pub mod containers;
pub mod kallsyms;
pub mod mounts;
pub mod rights;
pub mod signals;
pub mod tracefs;
pub mod usage;
