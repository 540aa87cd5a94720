//! pprof files: `profile.proto`, gzipped, as `go tool pprof` and every profiling backend read it.
//!
//! [`encode`] turns our model into the bytes of such a file. [`parse`] takes those of any
//! program's file, which may be damaged or hostile, and either returns a profile in which every
//! reference is good or says in one message what is wrong with it. What is legal is what google/pprof's
//! `profile.Parse` with `CheckValid` accepts. Files of other kinds are told apart before, by
//! [`super::reading`].
//!
//! The format: <https://github.com/google/pprof/blob/main/proto/profile.proto>.

mod read;
mod wire;
mod write;

pub use read::parse;
pub(super) use wire::{begins, fields};
pub use write::encode;

#[cfg(test)]
mod tests;
