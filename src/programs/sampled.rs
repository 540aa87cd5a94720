//! Statistics as samples of a profile: a frame for each program, below its owner's.

use std::collections::HashMap;

use super::{Program, Statistics};
use crate::model::profile::{
    Function, FunctionId, Label, LabelValue, Line, Location, LocationId, Mapping, MappingId, Profile,
};

/// Names of the values.
pub const RUNS: &str = "bpf_runs";
/// Nanoseconds; of programs that call each other, as far as it is known: see [`super::chains`].
pub const TIME: &str = "bpf_time";

/// The frame at the root, and the mapping that all these frames are in.
const ROOT: &str = "[bpf programs]";
/// Most places that a program's label names.
const MOST_PLACES: usize = 8;

/// Adds every program that ran, if the profile has the values for it.
pub fn add_to(profile: &mut Profile, statistics: &Statistics) {
    let column = |name: &str| profile.sample_types.iter().position(|ty| ty.name == name);
    let (Some(runs), Some(time)) = (column(RUNS), column(TIME)) else { return };
    let ran: Vec<&Program> = statistics
        .programs
        .iter()
        .filter(|program| program.run_count > 0 || program.estimate.is_some_and(|it| it.run_time_ns > 0))
        .collect();
    if ran.is_empty() {
        return;
    }
    let mut frames = Frames::new(profile);
    for program in ran {
        let stack = [frames.frame(&name(program)), frames.frame(&owner(program)), frames.frame(ROOT)];
        let profile = &mut *frames.profile;
        let stack = profile.intern_stack(&stack);
        let labels = profile.intern_labels(&labels(program));
        let mut values = vec![0; profile.sample_types.len()];
        values[runs] = saturate(program.run_count);
        values[time] = saturate(program.estimate.map_or(program.run_time_ns, |it| it.run_time_ns));
        profile.add(stack, labels, &values);
    }
}

fn name(program: &Program) -> String {
    match program.estimate {
        None => program.name.clone(),
        Some(estimate) => format!("{} [estimated ±{:.0} %]", program.name, estimate.error_percent()),
    }
}

/// Who is to be asked about a program.
fn owner(program: &Program) -> String {
    let mut names: Vec<&str> = program.owners.iter().map(|owner| &*owner.comm).collect();
    names.sort_unstable();
    names.dedup();
    match &names[..] {
        [] if program.pins.is_empty() => "[kernel]".to_owned(),
        [] => "[pinned]".to_owned(),
        names => names.join(", "),
    }
}

fn labels(program: &Program) -> Vec<Label> {
    let text = |key: &str, value: &str| Label { key: key.into(), value: LabelValue::Str(value.into()) };
    let number = |key: &str, value: u64, unit: &str| Label {
        key: key.into(),
        value: LabelValue::Num(saturate(value), unit.into()),
    };
    let mut places = program.attach.iter().take(MOST_PLACES).cloned().collect::<Vec<_>>().join(", ");
    if program.attach.len() > MOST_PLACES {
        places += &format!(" and {} more", program.attach.len() - MOST_PLACES);
    }
    let mut labels = vec![number("bpf_id", program.id.into(), ""), text("bpf_type", &program.kind)];
    if !places.is_empty() {
        labels.push(text("bpf_attach", &places));
    }
    if let Some(estimate) = program.estimate {
        labels.push(number("bpf_time_by_kernel", program.run_time_ns, "nanoseconds"));
        labels.push(number("bpf_time_error", estimate.error_ns, "nanoseconds"));
    }
    labels
}

fn saturate(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Makes frames in a mapping of their own, which begins behind all others of user space.
struct Frames<'a> {
    profile: &'a mut Profile,
    mapping: MappingId,
    known: HashMap<String, LocationId>,
}

impl<'a> Frames<'a> {
    fn new(profile: &'a mut Profile) -> Self {
        const USER: u64 = 1 << 62;
        const ROOM: u64 = 1 << 20;
        let limits = profile.mappings.iter().map(|mapping| mapping.memory_limit);
        let start = limits.filter(|limit| *limit < USER).max().unwrap_or(0).next_multiple_of(ROOM);
        let mapping = MappingId::from(profile.mappings.len());
        profile.mappings.push(Mapping {
            path: ROOT.to_owned(),
            memory_start: start,
            memory_limit: start + ROOM,
            has_functions: true,
            ..Mapping::default()
        });
        Self { profile, mapping, known: HashMap::new() }
    }

    fn frame(&mut self, name: &str) -> LocationId {
        if let Some(&known) = self.known.get(name) {
            return known;
        }
        let function =
            Function { name: name.to_owned(), system_name: name.to_owned(), ..Function::default() };
        let function = FunctionId::from(self.profile.functions.intern(function));
        let address = self.profile.mapping(self.mapping).memory_start + self.known.len() as u64;
        let lines = vec![Line { function, line: 0 }];
        let id = LocationId::from(self.profile.locations.len());
        self.profile.locations.push(Location { mapping: Some(self.mapping), address, lines });
        self.known.insert(name.to_owned(), id);
        id
    }
}
