//! Of a profile, the stacks that hold a function, or do not: what calls it and what it calls.

use anyhow::{Context, Result, ensure};

use super::names::address_name;
use crate::expression::{self, Regex};
use crate::model::profile::{Location, Profile};

/// Keeps the samples with a frame whose name matches `focus` and none whose name matches `ignore`.
/// Inlined functions are frames too.
///
/// # Errors
/// If one of them is no regular expression, or if nothing is left.
pub(super) fn keep(profile: &mut Profile, focus: Option<&str>, ignore: Option<&str>) -> Result<()> {
    let matching = |option: &str, pattern: Option<&str>| -> Result<Option<Vec<bool>>> {
        let Some(pattern) = pattern else { return Ok(None) };
        let regex = expression::compile(pattern)
            .with_context(|| format!("failed to understand {option} '{pattern}'"))?;
        Ok(Some(profile.locations.iter().map(|location| is_match(profile, location, &regex)).collect()))
    };
    let (focused, ignored) = (matching("--focus", focus)?, matching("--ignore", ignore)?);
    for sample in profile.take_samples() {
        let any = |matched: &Vec<bool>| profile.stack(sample.stack).any(|at| matched[at.index()]);
        if focused.as_ref().is_none_or(any) && !ignored.as_ref().is_some_and(any) {
            profile.add(sample.stack, sample.labels, &sample.values);
        }
    }
    let options = [("--focus", focus), ("--ignore", ignore)];
    let options = options.iter().filter_map(|(option, pattern)| Some(format!("{option} '{}'", (*pattern)?)));
    ensure!(
        !profile.samples().is_empty(),
        "no stack is left by {}: `profiler folded` without it prints the names that there are",
        options.collect::<Vec<_>>().join(" and ")
    );
    Ok(())
}

fn is_match(profile: &Profile, location: &Location, pattern: &Regex) -> bool {
    if location.lines.is_empty() {
        let mapping = location.mapping.map(|at| profile.mapping(at));
        return pattern.is_match(&address_name(location, mapping));
    }
    location.lines.iter().any(|line| pattern.is_match(&profile.function(line.function).name))
}
