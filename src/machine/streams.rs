//! What standard output was when this process began.
//!
//! Where it is closed, the standard library opens `/dev/null` in its place before `main`, so that no other file gets its
//! number: what is written there is lost, and writing succeeds. So it is looked at before the library begins.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether this process was started without a standard output.
pub fn stdout_was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    // SAFETY: asks about a number, whether a descriptor has it or not.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}

// SAFETY: the C library calls functions of this list one after the other before `main`; this one needs nothing that is
// not there yet.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
