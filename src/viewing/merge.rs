//! Several profiles as one, as google/pprof merges them (`profile.Merge`).
//!
//! Values of equal stacks under equal labels are added up. Equal are functions by all that names them,
//! locations by their lines and their offset in the mapping, and mappings by their build id, or else
//! their path, their size rounded up to pages, and their file offset; so that a program that was loaded
//! elsewhere is the same one. The start is the earliest, durations are added up, the period is the
//! greatest, and comments are there once. Moments (`record --timeline`) count from that start. What all values of
//! a sample come to 0 is left out. Values of one name in different units of one kind are scaled to the finer unit,
//! and those that not all profiles have are left out.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use super::file::Pending;
use super::{moments, pprof, reading, scale};
use crate::cli::MergeArgs;
use crate::model::profile::{
    FunctionId, Label, LabelValue, LabelsId, Line, Location, LocationId, Mapping, MappingId, Profile,
    StackId, ValueType,
};
use crate::text::thousands;

/// Adds profiles up and writes the sum.
///
/// # Errors
/// If one of them cannot be read or measures something else than the first, or if the sum cannot be
/// written. An older file then stays as it is.
pub fn run(args: &MergeArgs) -> Result<()> {
    let mut file = Pending::create(&args.output)?;
    let mut merger = Merger::default();
    for input in &args.inputs {
        let mut profile = reading::read(input)?;
        merger.align(&mut profile);
        merger
            .add(&profile)
            .with_context(|| format!("failed to add {} to {}", input.display(), args.inputs[0].display()))?;
    }
    let merged = merger.finish();
    file.write_all(&pprof::encode(&merged))?;
    let name = file.name();
    file.commit()?;
    let (profiles, samples) = (thousands(args.inputs.len() as i64), thousands(merged.samples().len() as i64));
    say!("wrote {name} ({profiles} profiles, {samples} distinct stacks)");
    Ok(())
}

/// A mapping wherever it is loaded: size, file offset, build id or path.
type Place = (u64, u64, String);

/// A profile that others are added to, one after the other.
#[derive(Debug, Default)]
pub(super) struct Merger {
    merged: Option<Profile>,
    mappings: HashMap<Place, MappingId>,
    /// By lines, mapping, and the offset in it in place of the address.
    locations: HashMap<Location, LocationId>,
}

impl Merger {
    /// Makes the next profile measure what the others do, and says what is left out for that.
    pub(super) fn align(&mut self, next: &mut Profile) {
        let Some(merged) = &mut self.merged else { return };
        align(merged, next);
        // Moments count from where the earliest begins.
        let later_ns = next.time_ns.saturating_sub(merged.time_ns);
        if merged.time_ns > 0 && next.time_ns > 0 && later_ns != 0 {
            moments::delay(if later_ns > 0 { next } else { merged }, later_ns.saturating_abs());
        }
    }

    /// Adds a profile.
    ///
    /// # Errors
    /// If it measures something else than the first one.
    pub(super) fn add(&mut self, source: &Profile) -> Result<()> {
        let is_first = self.merged.is_none();
        let merged = self.merged.get_or_insert_with(|| {
            let mut merged = Profile::new(source.sample_types.clone());
            merged.period_type = source.period_type.clone();
            merged.drop_frames = source.drop_frames.clone();
            merged.keep_frames = source.keep_frames.clone();
            merged
        });
        compatible(merged, source)?;
        if is_first || source.time_ns < merged.time_ns || merged.time_ns == 0 {
            merged.time_ns = source.time_ns;
        }
        merged.duration_ns = merged.duration_ns.saturating_add(source.duration_ns);
        merged.period = merged.period.max(source.period);
        for comment in &source.comments {
            if !merged.comments.contains(comment) {
                merged.comments.push(comment.clone());
            }
        }
        if merged.default_sample_type.is_empty() {
            merged.default_sample_type.clone_from(&source.default_sample_type);
        }
        let mut copy = Copy {
            source,
            merged,
            mappings: &mut self.mappings,
            locations: &mut self.locations,
            known_mappings: vec![None; source.mappings.len()],
            known_locations: vec![None; source.locations.len()],
            known_stacks: HashMap::new(),
            known_labels: HashMap::new(),
        };
        if !source.mappings.is_empty() && copy.merged.mappings.is_empty() {
            // The main binary stays the first.
            copy.mapping(MappingId(0));
        }
        for sample in source.samples().iter().filter(|sample| sample.values.iter().any(|&value| value != 0)) {
            let (stack, labels) = (copy.stack(sample.stack), copy.labels(sample.labels));
            copy.merged.add(stack, labels, &sample.values);
        }
        Ok(())
    }

    /// Samples so far.
    pub(super) fn samples(&self) -> usize {
        self.merged.as_ref().map_or(0, |merged| merged.samples().len())
    }

    /// The sum of all that was added.
    pub(super) fn finish(self) -> Profile {
        let mut merged = self.merged.unwrap_or_default();
        for sample in merged.take_samples() {
            if sample.values.iter().any(|&value| value != 0) {
                merged.add(sample.stack, sample.labels, &sample.values);
            }
        }
        merged
    }
}

/// Makes two profiles measure the same in the same units, as far as both do, and says what is left out for that.
pub(super) fn align(a: &mut Profile, b: &mut Profile) {
    if let Some((unit, [of_a, of_b])) = scale::common_unit(&a.period_type.unit, &b.period_type.unit)
        && a.period_type.name == b.period_type.name
    {
        let unit = unit.to_owned();
        for (profile, factor) in [(&mut *a, of_a), (&mut *b, of_b)] {
            profile.period = profile.period.saturating_mul(factor);
            profile.period_type.unit.clone_from(&unit);
        }
    }
    if a.sample_types == b.sample_types {
        return;
    }
    let (mut types, mut of_a, mut of_b) = (Vec::new(), Vec::new(), Vec::new());
    for (at, ty) in a.sample_types.iter().enumerate() {
        let found = b.sample_types.iter().enumerate().find_map(|(other, it)| {
            Some((other, scale::common_unit(&ty.unit, &it.unit)?)).filter(|_| it.name == ty.name)
        });
        let Some((other, (unit, factors))) = found else { continue };
        types.push(ValueType::new(&ty.name, unit));
        of_a.push((at, factors[0]));
        of_b.push((other, factors[1]));
    }
    // Then they have nothing in common, of which there is an error to be told.
    if types.is_empty() {
        return;
    }
    let all = a.sample_types.iter().chain(&b.sample_types);
    let mut left_out: Vec<&str> =
        all.map(|ty| &*ty.name).filter(|name| types.iter().all(|ty| ty.name != *name)).collect();
    left_out.sort_unstable();
    left_out.dedup();
    if !left_out.is_empty() {
        say!("profiler: not all of the profiles have {}, which is left out", left_out.join(", "));
    }
    for (profile, columns) in [(a, of_a), (b, of_b)] {
        let samples = profile.take_samples();
        profile.sample_types.clone_from(&types);
        for sample in samples {
            let values: Vec<i64> =
                columns.iter().map(|(at, factor)| sample.values[*at].saturating_mul(*factor)).collect();
            profile.add(sample.stack, sample.labels, &values);
        }
    }
}

/// Fails where two profiles measure different things.
pub(super) fn compatible(a: &Profile, b: &Profile) -> Result<()> {
    let show = |types: &[ValueType]| {
        types.iter().map(|ty| format!("{}/{}", ty.name, ty.unit)).collect::<Vec<_>>().join(", ")
    };
    let (ours, theirs) = (&a.sample_types, &b.sample_types);
    ensure!(
        ours == theirs,
        "the one measures {} and the other {}: name profiles of the same kind",
        show(ours),
        show(theirs)
    );
    if a.period_type != b.period_type {
        let one = |ty: &ValueType| show(std::slice::from_ref(ty));
        bail!(
            "the period of the one is in {} and that of the other in {}: name profiles of the same kind",
            one(&a.period_type),
            one(&b.period_type)
        );
    }
    Ok(())
}

/// One profile on its way into another. What was copied is known by its old position.
struct Copy<'a> {
    source: &'a Profile,
    merged: &'a mut Profile,
    mappings: &'a mut HashMap<Place, MappingId>,
    locations: &'a mut HashMap<Location, LocationId>,
    known_mappings: Vec<Option<MappingId>>,
    known_locations: Vec<Option<LocationId>>,
    known_stacks: HashMap<StackId, StackId>,
    known_labels: HashMap<LabelsId, LabelsId>,
}

impl Copy<'_> {
    fn stack(&mut self, id: StackId) -> StackId {
        if let Some(&known) = self.known_stacks.get(&id) {
            return known;
        }
        let source = self.source;
        let stack: Vec<_> = source.stack(id).map(|at| self.location(at)).collect();
        let copied = self.merged.intern_stack(&stack);
        self.known_stacks.insert(id, copied);
        copied
    }

    /// Labels in the order of their keys: which came first means nothing.
    fn labels(&mut self, id: LabelsId) -> LabelsId {
        if let Some(&known) = self.known_labels.get(&id) {
            return known;
        }
        let mut labels = self.source.labels(id).to_vec();
        let is_number = |label: &Label| matches!(label.value, LabelValue::Num(..));
        labels.sort_by(|a, b| (&a.key, is_number(a)).cmp(&(&b.key, is_number(b))));
        let copied = self.merged.intern_labels(&labels);
        self.known_labels.insert(id, copied);
        copied
    }

    fn location(&mut self, id: LocationId) -> LocationId {
        if let Some(known) = self.known_locations[id.index()] {
            return known;
        }
        let source = self.source.location(id);
        let mapping = source.mapping.map(|at| self.mapping(at));
        let from = source.mapping.map_or(0, |at| self.source.mapping(at).memory_start);
        let offset = source.address.wrapping_sub(from);
        let lines =
            source.lines.iter().map(|line| Line { function: self.function(line.function), line: line.line });
        let key = Location { mapping, address: offset, lines: lines.collect() };
        let merged = &mut self.merged;
        let copied = *self.locations.entry(key).or_insert_with_key(|key| {
            let start = mapping.map_or(0, |at| merged.mapping(at).memory_start);
            merged.locations.push(Location { address: start.wrapping_add(offset), ..key.clone() });
            LocationId::from(merged.locations.len() - 1)
        });
        self.known_locations[id.index()] = Some(copied);
        copied
    }

    fn function(&mut self, id: FunctionId) -> FunctionId {
        let function = self.source.function(id).clone();
        self.merged.functions.intern(function).into()
    }

    fn mapping(&mut self, id: MappingId) -> MappingId {
        if let Some(known) = self.known_mappings[id.index()] {
            return known;
        }
        let source = self.source.mapping(id);
        let merged = &mut self.merged;
        let copied = *self.mappings.entry(place(source)).or_insert_with(|| {
            merged.mappings.push(source.clone());
            MappingId::from(merged.mappings.len() - 1)
        });
        self.known_mappings[id.index()] = Some(copied);
        copied
    }
}

fn place(mapping: &Mapping) -> Place {
    let size = mapping.memory_limit.wrapping_sub(mapping.memory_start);
    let pages = size.wrapping_add(0xfff) & !0xfff;
    let name = if mapping.build_id.is_empty() { &mapping.path } else { &mapping.build_id };
    (pages, mapping.file_offset, name.clone())
}
