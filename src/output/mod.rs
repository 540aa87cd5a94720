//! Writers and readers of files: pprof, folded stacks, flamegraphs.

mod colors;
pub mod file;
pub mod flamegraph;
pub mod folded;
pub mod frames;
pub mod names;
pub mod pprof;

use anyhow::{Result, bail};

use crate::cli::ViewArgs;
use crate::profile::Profile;

/// The profile that the options name, and the index of the value to show.
fn open(view: &ViewArgs) -> Result<(Profile, usize)> {
    let profile = pprof::read(&view.input)?;
    let names: Vec<_> = profile.sample_types.iter().map(|ty| ty.name.as_str()).collect();
    let name = view.input.display();
    let index = match view.sample_index.as_deref() {
        // Stacks weighted by samples are what flamegraphs are known for, whatever the default of
        // the file, which is made for tables.
        None => profile.sample_type(Some("samples")).or_else(|| profile.sample_type(None)),
        Some(wanted) => match profile.sample_type(Some(wanted)) {
            None => bail!(
                "failed to find the value '{wanted}' in {name}: it has {}; name one of them with \
                 --sample-index",
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ),
            found => found,
        },
    };
    let Some(index) = index.filter(|_| !profile.samples().is_empty()) else {
        bail!(
            "failed to find samples in {name}: the profile is empty; record longer, or while the \
             program uses CPU"
        );
    };
    if profile.samples().iter().all(|sample| sample.values[index] == 0) {
        bail!(
            "failed to find samples in {name}: every value of '{}' is 0; name one of {} with \
             --sample-index",
            names[index],
            names.join(", ")
        );
    }
    Ok((profile, index))
}
