//! A profile made of named frames, as files have them that are not pprof.

use std::collections::HashMap;

use anyhow::Result;

use super::super::budget::{Budget, MAX_MEMORY};
use crate::model::profile::{
    Function, FunctionId, Label, LabelsId, Line, Location, LocationId, Mapping, MappingId, Profile, StackId,
    ValueType,
};

/// A function and where in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frame<'a> {
    pub(super) name: &'a str,
    /// Source file, or empty.
    pub(super) file: &'a str,
    /// Line, or 0.
    pub(super) line: i64,
    /// Path or bracketed name of what the code lies in, or empty.
    pub(super) place: &'a str,
    pub(super) address: u64,
}

/// Makes whole numbers of amounts with fractions, so that what each loses, the next ones get: their sum is as exact as
/// one of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounding {
    rest: f64,
}

impl Rounding {
    pub(super) fn round(&mut self, amount: f64) -> i64 {
        let exact = amount + self.rest;
        let rest = exact - exact.round();
        // An amount may be beyond all numbers.
        self.rest = if rest.is_finite() { rest } else { 0.0 };
        exact.round() as i64
    }
}

/// Makes a profile and holds it to its budget.
pub(super) struct Builder {
    profile: Profile,
    budget: Budget,
    mappings: HashMap<Box<str>, MappingId>,
    locations: HashMap<Location, LocationId>,
    /// How many are charged to the budget.
    stack_nodes: usize,
    label_sets: usize,
}

impl Builder {
    pub(super) fn new(sample_types: Vec<ValueType>) -> Self {
        Self {
            profile: Profile::new(sample_types),
            budget: Budget::new(MAX_MEMORY),
            mappings: HashMap::new(),
            locations: HashMap::new(),
            stack_nodes: 0,
            label_sets: 0,
        }
    }

    /// The location of a frame. Equal frames have one.
    pub(super) fn location(&mut self, frame: &Frame) -> Result<LocationId> {
        let line = self.line(frame)?;
        let mapping = if frame.place.is_empty() { None } else { Some(self.mapping(frame.place)?) };
        self.intern(Location { mapping, address: frame.address, lines: vec![line] })
    }

    /// The location of an address without a name.
    pub(super) fn unnamed(&mut self, place: &str, address: u64) -> Result<LocationId> {
        let mapping = Some(self.mapping(place)?);
        self.intern(Location { mapping, address, lines: Vec::new() })
    }

    /// The location of a function that was inlined into the innermost one of `caller`.
    pub(super) fn inlined(&mut self, caller: LocationId, frame: &Frame) -> Result<LocationId> {
        let line = self.line(frame)?;
        let mut location = self.profile.location(caller).clone();
        self.budget.charge(location.lines.len() * size_of::<Line>())?;
        location.lines.insert(0, line);
        self.intern(location)
    }

    fn intern(&mut self, location: Location) -> Result<LocationId> {
        if let Some(&at) = self.locations.get(&location) {
            return Ok(at);
        }
        self.budget.charge(2 * (size_of::<Location>() + location.lines.len() * size_of::<Line>()) + 32)?;
        let at = LocationId::from(self.profile.locations.len());
        self.profile.locations.push(location.clone());
        self.locations.insert(location, at);
        Ok(at)
    }

    fn line(&mut self, frame: &Frame) -> Result<Line> {
        let function = Function {
            name: frame.name.to_owned(),
            system_name: frame.name.to_owned(),
            filename: frame.file.to_owned(),
            start_line: 0,
        };
        let known = self.profile.functions.iter().len();
        let function = FunctionId::from(self.profile.functions.intern(function));
        if function.index() == known {
            self.budget.charge(128 + 2 * frame.name.len() + frame.file.len())?;
        }
        Ok(Line { function, line: frame.line })
    }

    fn mapping(&mut self, place: &str) -> Result<MappingId> {
        if let Some(&at) = self.mappings.get(place) {
            return Ok(at);
        }
        self.budget.charge(2 * place.len() + size_of::<Mapping>() + 64)?;
        let at = MappingId::from(self.profile.mappings.len());
        self.profile.mappings.push(Mapping {
            memory_limit: u64::MAX,
            path: place.to_owned(),
            has_functions: true,
            ..Mapping::default()
        });
        self.mappings.insert(place.into(), at);
        Ok(at)
    }

    /// The stack in which that of `callers` calls `leaf`.
    pub(super) fn child(&mut self, callers: Option<StackId>, leaf: LocationId) -> Result<StackId> {
        let stack = self.profile.push_frame(callers, leaf);
        self.charge_stacks()?;
        Ok(stack)
    }

    /// The leaf of a stack that [`Self::child`] gave, and its callers.
    pub(super) fn parts(&self, stack: StackId) -> Option<(Option<StackId>, LocationId)> {
        self.profile.pop_frame(stack)
    }

    fn charge_stacks(&mut self) -> Result<()> {
        let more = self.profile.stack_nodes() - self.stack_nodes;
        if more > 0 {
            self.stack_nodes += more;
            // A node each, and where they leave the known ones an entry in a table.
            self.budget.charge(32 + 8 * more)?;
        }
        Ok(())
    }

    pub(super) fn labels(&mut self, labels: &[Label]) -> Result<LabelsId> {
        let id = self.profile.intern_labels(labels);
        if id.index() == self.label_sets {
            self.label_sets += 1;
            self.budget.charge(192 + size_of_val(labels))?;
        }
        Ok(id)
    }

    /// Adds values to a stack; none is the empty one.
    pub(super) fn add(&mut self, stack: Option<StackId>, labels: LabelsId, values: &[i64]) -> Result<()> {
        let stack = stack.unwrap_or_else(|| self.profile.intern_stack(&[]));
        self.add_stack(stack, labels, values)
    }

    /// Adds values to a stack, leaf first.
    pub(super) fn add_leaf_first(
        &mut self,
        stack: &[LocationId],
        labels: LabelsId,
        values: &[i64],
    ) -> Result<()> {
        let stack = self.profile.intern_stack(stack);
        self.charge_stacks()?;
        self.add_stack(stack, labels, values)
    }

    fn add_stack(&mut self, stack: StackId, labels: LabelsId, values: &[i64]) -> Result<()> {
        let known = self.profile.samples().len();
        self.profile.add(stack, labels, values);
        if self.profile.samples().len() > known {
            self.budget.charge(160 + size_of_val(values))?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Profile {
        self.profile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_add_up() {
        let sum = |amounts: &[f64]| {
            let mut rounding = Rounding::default();
            amounts.iter().map(|&amount| rounding.round(amount)).collect::<Vec<_>>()
        };
        assert_eq!(sum(&[0.4; 5]), [0, 1, 0, 1, 0]);
        assert_eq!(sum(&[0.1; 1000]).iter().sum::<i64>(), 100);
        assert_eq!(sum(&[-0.4; 5]).iter().sum::<i64>(), -2);
        assert_eq!(sum(&[3.0, 1e300, f64::NAN, 5.0]), [3, i64::MAX, 0, 5]);
    }
}
