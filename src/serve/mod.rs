//! `profiler serve`: recordings for whoever asks, over HTTP.
//!
//! Two processes. The `front` holds the connections and reads what strangers send; it has no rights, sees no
//! profile but those it hands on, and asks for one by a message of a few numbers. The [`back`] records: one
//! recorder for all, of which every request is a [window](crate::recording::tallies). It starts with the first
//! request and ends a minute after the last, so that a machine which nobody looks at pays nothing.

pub mod address;
pub mod back;
mod front;
mod http;
mod link;
pub mod metrics;
mod push;

pub use back::run;
