//! pprof files: `profile.proto`, gzipped, as `go tool pprof` and every profiling backend read it.
//!
//! [`encode`] turns our model into the bytes of such a file. [`read()`] takes any program's file,
//! which may be damaged or hostile, and either returns a profile in which every reference is good
//! or says in one message what is wrong with it. What is legal is what google/pprof's
//! `profile.Parse` with `CheckValid` accepts; the text formats that were there before
//! `profile.proto` are refused by name.
//!
//! The format: <https://github.com/google/pprof/blob/main/proto/profile.proto>.

mod load;
mod read;
mod wire;
mod write;

pub use read::{parse, read};
pub use write::encode;

#[cfg(test)]
mod tests;
