//! Stacks with frames of scripts, without the interpreter's own functions among them: between two functions
//! of a script stand the C functions that run the one and call the other, which say nothing of the script.
//! The file has them, and so have folded stacks; `flamegraph --native` shows them.

use std::collections::HashSet;

use super::names::{FrameKind, mapping_kind};
use crate::model::profile::{LocationId, MappingId, Profile};

/// Leaves the functions of interpreters out of stacks with frames of scripts. An interpreter is what the
/// caller of a script's function lies in, if it is no script's itself.
pub(super) fn hide_interpreters(profile: &mut Profile) {
    let kinds: Vec<FrameKind> = profile.mappings.iter().map(|it| mapping_kind(&it.path)).collect();
    if !kinds.iter().any(|kind| kind.is_script()) {
        return;
    }
    let mapping = |profile: &Profile, at: LocationId| profile.location(at).mapping;
    let is_script = |profile: &Profile, at: LocationId| {
        mapping(profile, at).is_some_and(|mapping| kinds[mapping.index()].is_script())
    };
    let mut interpreters: HashSet<MappingId> = HashSet::new();
    for sample in profile.samples() {
        let stack = || profile.stack(sample.stack);
        for (callee, caller) in stack().zip(stack().skip(1)) {
            if let Some(caller) = mapping(profile, caller)
                && is_script(profile, callee)
                && kinds[caller.index()] == FrameKind::User
            {
                interpreters.insert(caller);
            }
        }
    }
    for sample in profile.take_samples() {
        let stack = || profile.stack(sample.stack);
        let has_script = stack().any(|at| is_script(profile, at));
        let stays = |at: &LocationId| {
            !has_script || mapping(profile, *at).is_none_or(|mapping| !interpreters.contains(&mapping))
        };
        let shown: Vec<LocationId> = stack().filter(stays).collect();
        let stack = profile.intern_stack(&shown);
        profile.add(stack, sample.labels, &sample.values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::profile::{Location, Mapping, ValueType};

    #[test]
    fn an_interpreter_is_hidden_among_scripts_and_nowhere_else() {
        let mut profile = Profile::new(vec![ValueType::new("samples", "count")]);
        let paths = ["/usr/bin/python3", "[python]", "/usr/lib/libc.so.6"];
        profile.mappings = paths.map(|path| Mapping { path: path.to_owned(), ..Mapping::default() }).into();
        let location = |mapping| Location { mapping: Some(MappingId(mapping)), ..Location::default() };
        profile.locations = [0, 1, 2].map(location).into();
        let labels = profile.intern_labels(&[]);
        let [native, script, libc] = [0, 1, 2].map(LocationId);
        for stack in [&[libc, native, script, native, script, native, libc][..], &[native, libc]] {
            let stack = profile.intern_stack(stack);
            profile.add(stack, labels, &[1]);
        }
        hide_interpreters(&mut profile);
        let stacks: Vec<Vec<LocationId>> =
            profile.samples().iter().map(|sample| profile.stack(sample.stack).collect()).collect();
        assert_eq!(stacks, [vec![libc, script, script, libc], vec![native, libc]]);
    }
}
