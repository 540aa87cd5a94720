//! The model: what happened, who ran, where code lies, and what was measured of it.
pub mod event;
pub mod objects;
pub mod process;
pub mod profile;
