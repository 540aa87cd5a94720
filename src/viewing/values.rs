//! Which of a profile's values is shown.

use anyhow::{Context, Result, bail};

use crate::cli::{SelectArgs, Shown};
use crate::model::profile::Profile;

/// The value that the options name, or else one that has something to show.
///
/// # Errors
/// If there is no such value, or nothing has one.
pub(super) fn choose(profile: &Profile, select: &SelectArgs) -> Result<usize> {
    let names: Vec<_> = profile.sample_types.iter().map(|ty| ty.name.as_str()).collect();
    let all = names.join(", ");
    let input = select.input.display();
    let has_data = |index: usize| profile.samples().iter().any(|sample| sample.values[index] != 0);
    let index = match select.chosen.shown.map(Shown::name).or(select.chosen.sample_index.as_deref()) {
        Some(wanted) => Some(named(profile, wanted).with_context(|| {
            format!(
                "failed to find the value '{wanted}' in {input}: it has {}; name one of them with \
                 --sample-index, or record with --off-cpu or without --no-bpf-stats",
                if names.is_empty() { "none" } else { &all }
            )
        })?),
        // Stacks weighted by samples are what flamegraphs are known for, whatever the default of
        // the file, which is made for tables.
        None => profile.sample_type(Some("samples")).or_else(|| profile.sample_type(None)),
    };
    let Some(index) = index.filter(|_| !profile.samples().is_empty()) else {
        bail!(
            "failed to find samples in {input}: the profile is empty; record longer, or while the \
             program uses CPU"
        );
    };
    if has_data(index) {
        return Ok(index);
    }
    let is_asked_for = select.chosen.shown.is_some() || select.chosen.sample_index.is_some();
    let Some(other) = other(profile, index, has_data).filter(|_| !is_asked_for) else {
        bail!(
            "failed to find samples in {input}: every value of '{}' is 0; name one of {all} with \
             --sample-index",
            names[index],
        );
    };
    say!(
        "profiler: every value of '{}' is 0 in {input}, so '{}' is shown; --sample-index takes any of {all}",
        names[index],
        names[other]
    );
    Ok(other)
}

/// What `go tool pprof -sample_index` takes: a position, a name, or that name with `inuse_` before it.
fn named(profile: &Profile, wanted: &str) -> Option<usize> {
    if let Ok(number) = wanted.parse::<usize>() {
        return (number < profile.sample_types.len()).then_some(number);
    }
    let by_name = |name: &str| profile.sample_type(Some(name));
    by_name(wanted).or_else(|| by_name(wanted.strip_prefix("inuse_")?))
}

/// A value with data in place of one without: the last in the same unit, or the last.
fn other(profile: &Profile, index: usize, has_data: impl Fn(usize) -> bool) -> Option<usize> {
    let types = &profile.sample_types;
    let with_data: Vec<_> = (0..types.len()).filter(|&at| has_data(at)).collect();
    let same_unit = with_data.iter().rfind(|&&at| types[at].unit == types[index].unit);
    same_unit.or(with_data.last()).copied()
}
