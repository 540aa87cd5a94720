//! A loaded object, and the descriptors that it holds.
//!
//! libbpf gives each map of an object a descriptor, of an empty memfd, when it opens the object; the map takes
//! its place when it is made. Those of maps that are not made stay: two dozen where stacks are walked by
//! frame pointers. Where descriptors are few, they are closed as soon as everything is loaded. From then on
//! libbpf cannot close the object, as it would close these numbers too, whosever they are by then. What it
//! has really open is closed here instead, and its memory is never given back.

use std::fs;
use std::iter::successors;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use libbpf_rs::skel::Skel;
use libbpf_rs::{AsRawLibbpf, libbpf_sys};

/// A skeleton whose programs are loaded.
pub(super) struct Loaded<S: Skel<'static>> {
    skeleton: ManuallyDrop<S>,
    lacks_placeholders: bool,
}

impl<S: Skel<'static>> Loaded<S> {
    pub fn new(skeleton: S) -> Self {
        Self { skeleton: ManuallyDrop::new(skeleton), lacks_placeholders: false }
    }

    /// Closes the descriptors of maps that were not made, but for `others`, which are another object's.
    pub fn close_placeholders(&mut self, others: &[RawFd]) {
        self.lacks_placeholders = true;
        for fd in placeholders().into_iter().filter(|fd| !others.contains(fd)) {
            // SAFETY: it is libbpf's, open now, and this object's: `others` have been there before it. From
            // now on libbpf is not asked to close it, and it uses none of maps that it has not made.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }

    /// Closes what libbpf has open.
    fn close(&self) {
        let object = self.skeleton.object().as_libbpf_object().as_ptr();
        let next_map = |map: *mut _| NonNull::new(unsafe { libbpf_sys::bpf_object__next_map(object, map) });
        let next_program =
            |program: *mut _| NonNull::new(unsafe { libbpf_sys::bpf_object__next_program(object, program) });
        let maps = successors(next_map(std::ptr::null_mut()), |map| next_map(map.as_ptr()));
        let programs =
            successors(next_program(std::ptr::null_mut()), |program| next_program(program.as_ptr()));
        // SAFETY: the object lives as long as the process, and maps and programs with it.
        let fds = maps
            .map(|map| unsafe { libbpf_sys::bpf_map__fd(map.as_ptr()) })
            .chain(programs.map(|program| unsafe { libbpf_sys::bpf_program__fd(program.as_ptr()) }))
            .chain([unsafe { libbpf_sys::bpf_object__btf_fd(object) }]);
        for fd in fds.filter(|&fd| fd >= 0) {
            // SAFETY: libbpf has it open (of what it has not made it tells a negative number), and will
            // neither use nor close it: this is the object's end.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

impl<S: Skel<'static>> Drop for Loaded<S> {
    fn drop(&mut self) {
        if self.lacks_placeholders {
            return self.close();
        }
        // SAFETY: it is dropped once, and used by nobody afterwards.
        unsafe { ManuallyDrop::drop(&mut self.skeleton) };
    }
}

impl<S: Skel<'static>> Deref for Loaded<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.skeleton
    }
}

impl<S: Skel<'static>> DerefMut for Loaded<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.skeleton
    }
}

/// Descriptors that hold a map's place.
pub(super) fn placeholders() -> Vec<RawFd> {
    let own = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let holds_a_place =
        |path: &std::path::Path| path.to_string_lossy().starts_with("/memfd:libbpf-placeholder-fd");
    let places = own.filter(|entry| fs::read_link(entry.path()).is_ok_and(|path| holds_a_place(&path)));
    places.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
