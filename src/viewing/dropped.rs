//! Functions that a profile itself says are to be left out with all that they call, as those of an allocator
//! in a profile of allocations: `drop_frames` and `keep_frames` of pprof, which are regular expressions.
//!
//! The rules are google/pprof's (`profile.Prune`): the expression must match a function's whole name without
//! its parameters; the match nearest to the root counts; and what comes before the first frame that does
//! not match is not looked at, so that something is left of every stack. Where one of the two is no regular
//! expression nothing is left out, and that is told.

use std::path::Path;

use crate::expression::{Regex, compile_whole};
use crate::model::profile::{LocationId, Profile};
use crate::text::printable;

/// What is no parameter.
const ANONYMOUS: &str = "(anonymous namespace)";
/// Characters of an expression that are told.
const MOST_SHOWN: usize = 200;

/// What is done with a location where a stack is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// It goes, with all towards the leaf.
    Whole,
    /// It stays, with the lines below the one that matches.
    Below,
}

/// Leaves out what the profile wants to have left out.
pub(super) fn leave_out(profile: &mut Profile, input: &Path) {
    if profile.drop_frames.is_empty() {
        return;
    }
    let whole = |field: &str, pattern: &str| -> Option<Regex> {
        let compiled = compile_whole(pattern);
        if let Err(reason) = &compiled {
            let shown: String = pattern.chars().take(MOST_SHOWN).collect();
            say!(
                "profiler: {}: its {field} '{}' is no regular expression ({reason}): no frame is left out by it",
                input.display(),
                printable(&shown).replace('\n', " ")
            );
        }
        compiled.ok()
    };
    let Some(drop) = whole("drop_frames", &profile.drop_frames) else { return };
    let keep = match &*profile.keep_frames {
        "" => None,
        pattern => match whole("keep_frames", pattern) {
            // What would be dropped may be what should be kept.
            None => return,
            keep => keep,
        },
    };
    let is_dropped: Vec<bool> = profile
        .functions
        .iter()
        .map(|function| {
            let name = without_parameters(&function.name);
            !name.is_empty() && drop.is_match(name) && !keep.as_ref().is_some_and(|keep| keep.is_match(name))
        })
        .collect();
    let mut cuts: Vec<Option<Cut>> = Vec::with_capacity(profile.locations.len());
    for location in &mut profile.locations {
        let matching = location.lines.iter().rposition(|line| is_dropped[line.function.index()]);
        cuts.push(matching.map(|at| {
            if at + 1 == location.lines.len() {
                return Cut::Whole;
            }
            location.lines.drain(..=at);
            Cut::Below
        }));
    }
    let mut locations = Vec::new();
    for sample in profile.take_samples() {
        locations.clear();
        locations.extend(profile.stack(sample.stack));
        let stack = cut(&locations, &cuts);
        let stack = match stack {
            Some(stack) => profile.intern_stack(&stack),
            None => sample.stack,
        };
        profile.add(stack, sample.labels, &sample.values);
    }
}

/// What is left of a stack; none if that is all of it.
fn cut(leaf_first: &[LocationId], cuts: &[Option<Cut>]) -> Option<Vec<LocationId>> {
    let mut found_other = false;
    for (at, location) in leaf_first.iter().enumerate().rev() {
        match cuts[location.index()] {
            None => found_other = true,
            Some(_) if !found_other => {}
            Some(Cut::Whole) => return Some(leaf_first[at + 1..].to_vec()),
            Some(Cut::Below) => return Some(leaf_first[at..].to_vec()),
        }
    }
    None
}

/// A name up to its first bracket that is not a part of the name itself.
fn without_parameters(name: &str) -> &str {
    let name = name.strip_prefix('.').unwrap_or(name);
    let mut from = 0;
    while let Some(found) = name[from..].find('(') {
        let at = from + found;
        from = if name[at..].starts_with(ANONYMOUS) {
            at + ANONYMOUS.len()
        } else if name[..at].ends_with("operator") && name[at..].starts_with("()") {
            at + 2
        } else {
            return &name[..at];
        };
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::profile::{Function, FunctionId, Line, Location, Sample, ValueType};

    /// Stacks as text, root first, with a slash between what is inlined and what it is inlined into.
    fn left(drop: &str, keep: &str, stacks: &[&str]) -> Vec<String> {
        let mut profile = Profile::new(vec![ValueType::new("samples", "count")]);
        (profile.drop_frames, profile.keep_frames) = (drop.to_owned(), keep.to_owned());
        let labels = profile.intern_labels(&[]);
        for stack in stacks {
            let mut locations = Vec::new();
            for frames in stack.split(';') {
                let lines = frames.rsplit('/').map(|name| {
                    let function = Function { name: name.to_owned(), ..Function::default() };
                    Line { function: FunctionId::from(profile.functions.intern(function)), line: 0 }
                });
                let location = Location { lines: lines.collect(), ..Location::default() };
                profile.locations.push(location);
                locations.insert(0, LocationId::from(profile.locations.len() - 1));
            }
            let stack = profile.intern_stack(&locations);
            profile.add(stack, labels, &[1]);
        }
        leave_out(&mut profile, Path::new("made"));
        let text = |at: LocationId| {
            let lines = profile.location(at).lines.iter().rev();
            lines.map(|line| profile.function(line.function).name.as_str()).collect::<Vec<_>>().join("/")
        };
        let stack = |sample: &Sample| {
            let mut stack: Vec<_> = profile.stack(sample.stack).map(text).collect();
            stack.reverse();
            stack.join(";")
        };
        profile.samples().iter().map(stack).collect()
    }

    #[test]
    fn stacks_end_before_what_is_dropped() {
        let found = left(
            "malloc|tcmalloc::.*",
            "tcmalloc::keep",
            &[
                "main;work;malloc;brk",
                "main;a/malloc/x;brk",
                "malloc;main;malloc(int);brk",
                "malloc;brk",
                "main;tcmalloc::keep;leaf",
                "main;mallocs",
                "main;tcmalloc::New<int>::operator()(int);x;malloc",
                "main",
            ],
        );
        // The function that is inlined and dropped takes with it what is inlined into it.
        let expected = [
            "main;work",
            "main;a",
            "malloc;main",
            "malloc;brk",
            "main;tcmalloc::keep;leaf",
            "main;mallocs",
            "main",
        ];
        // The last two are one kind of stack, in two places.
        assert_eq!(found[..6], expected[..6]);
        assert_eq!(found[6..], ["main", "main"]);
    }

    #[test]
    fn an_expression_that_is_none_drops_nothing() {
        for (drop, keep) in [("malloc(", ""), ("a[", ""), ("(?=a)", ""), ("malloc", "(")] {
            assert_eq!(left(drop, keep, &["main;malloc"]), ["main;malloc"], "{drop} {keep}");
        }
        assert_eq!(left(r"\Qmalloc\E", "", &["main;malloc"]), ["main"]);
        assert_eq!(left("malloc|[[]x", "", &["main;[x", "main;malloc;brk"]), ["main", "main"]);
    }

    #[test]
    fn parameters_are_no_part_of_a_name() {
        for (name, bare) in [
            ("f(int)", "f"),
            ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
            ("A::operator()(int)", "A::operator()"),
            (".f", "f"),
            ("f", "f"),
        ] {
            assert_eq!(without_parameters(name), bare);
        }
    }
}
