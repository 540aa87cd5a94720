//! The reader: the tables that samples refer to, then the samples.
//!
//! Nothing is believed. Everything kept is charged to a budget before or as it is stored, so that
//! memory stays bounded whatever the file says. Fields come in any order, therefore the message is
//! walked once for each table that needs an earlier one.
//!
//! `is_folded` and columns are checked or skipped and not kept: nothing here draws them.

use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::super::budget::{Advice, Budget, DAMAGED, MAX_MEMORY};
use super::wire::{Fields, Value};
use crate::model::profile::{
    Function, FunctionId, Label, LabelValue, Line, Location, LocationId, Mapping, MappingId, Profile,
    ValueType,
};
use crate::naming::demangle::demangle;
use crate::text::thousands;

/// The profile in the bytes of an uncompressed message.
///
/// In the result every index is good and every sample has one value for each sample type. Samples
/// with equal stacks and labels are added up.
///
/// # Errors
/// If it is no pprof file, is damaged, refers to things that it does not have, or takes more memory
/// than any real profile.
pub fn parse(data: &[u8]) -> Result<Profile> {
    parse_within(data, MAX_MEMORY)
}

/// [`parse`] with a limit on the profile's memory in bytes.
pub(super) fn parse_within(data: &[u8], limit: usize) -> Result<Profile> {
    let mut reader = Reader {
        data,
        budget: Budget::new(limit),
        strings: Vec::new(),
        texts: HashMap::new(),
        mappings: HashMap::new(),
        functions: HashMap::new(),
        locations: HashMap::new(),
        missing: None,
        profile: Profile::default(),
    };
    // A file of another kind fails at its first fields; later there are messages of pprof's own.
    reader.strings().map_err(|error| match error.is::<Advice>() {
        true => error,
        false => error.context("it is not a pprof file, or a damaged one"),
    })?;
    let read = reader.tables().and_then(|()| reader.locations()).and_then(|()| reader.samples());
    match read {
        Ok(()) => {
            if let Some((count, first)) = reader.missing {
                say!(
                    "profiler: locations in mappings that are missing from the profile, the first in mapping \
                     {first}: {}; they are shown as in no binary",
                    thousands(count)
                );
            }
            Ok(reader.profile)
        }
        Err(error) if error.is::<Advice>() => Err(error),
        Err(error) => Err(anyhow!("{error:#}: {DAMAGED}")),
    }
}

struct Reader<'a> {
    data: &'a [u8],
    budget: Budget,
    strings: Vec<&'a [u8]>,
    /// Label texts by string index, each stored once.
    texts: HashMap<i64, Rc<str>>,
    mappings: HashMap<u64, MappingId>,
    functions: HashMap<u64, FunctionId>,
    locations: HashMap<u64, LocationId>,
    /// How many locations are in mappings that are missing, and the first of these.
    missing: Option<(i64, u64)>,
    profile: Profile,
}

impl<'a> Reader<'a> {
    /// The strings, and on the way the validity of the outermost message.
    fn strings(&mut self) -> Result<()> {
        for field in Fields(self.data) {
            let (number, value) = field?;
            match number {
                1..=5 | 11 => drop(value.bytes()?),
                6 => {
                    let text = value.bytes()?;
                    let first = self.strings.is_empty();
                    ensure!(!first || text.is_empty(), "the first of its strings is not empty");
                    self.budget.charge(size_of::<&[u8]>())?;
                    self.strings.push(text);
                }
                _ => {}
            }
        }
        ensure!(!self.strings.is_empty(), "it has no strings");
        Ok(())
    }

    /// What refers only to strings.
    fn tables(&mut self) -> Result<()> {
        for field in Fields(self.data) {
            let (number, value) = field?;
            match number {
                1 => {
                    let ty = self.value_type(value)?;
                    self.profile.sample_types.push(ty);
                }
                3 => self.mapping(value)?,
                5 => self.function(value)?,
                7 => self.profile.drop_frames = self.text(value.signed()?)?,
                8 => self.profile.keep_frames = self.text(value.signed()?)?,
                9 => {
                    if self.profile.time_ns != 0 {
                        bail!(Advice("it is several profiles in a row: split it".to_owned()));
                    }
                    self.profile.time_ns = value.signed()?;
                }
                10 => self.profile.duration_ns = value.signed()?,
                11 => self.profile.period_type = self.value_type(value)?,
                12 => self.profile.period = value.signed()?,
                13 => {
                    for index in value.ints()? {
                        let comment = self.text(index?.cast_signed())?;
                        self.profile.comments.push(comment);
                    }
                }
                14 => self.profile.default_sample_type = self.text(value.signed()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn slice(&self, index: i64) -> Result<&'a [u8]> {
        let at = usize::try_from(index).ok();
        at.and_then(|at| self.strings.get(at).copied())
            .with_context(|| format!("string {index} is referred to, of {} in the table", self.strings.len()))
    }

    /// A copy of a string. Bytes that are not UTF-8 are replaced: google/pprof takes them too.
    fn text(&mut self, index: i64) -> Result<String> {
        let slice = self.slice(index)?;
        // Replacement characters take three bytes for one.
        self.budget.charge(size_of::<String>() + 16)?;
        let text = String::from_utf8_lossy(slice);
        self.budget.charge(text.len())?;
        Ok(text.into_owned())
    }

    /// A string that labels share.
    fn shared(&mut self, index: i64) -> Result<Rc<str>> {
        if let Some(text) = self.texts.get(&index) {
            return Ok(Rc::clone(text));
        }
        let text: Rc<str> = self.text(index)?.into();
        self.budget.charge(64)?;
        self.texts.insert(index, Rc::clone(&text));
        Ok(text)
    }

    fn value_type(&mut self, message: Value<'a>) -> Result<ValueType> {
        let (mut name, mut unit) = (0, 0);
        for field in message.message()? {
            match field? {
                (1, value) => name = value.signed()?,
                (2, value) => unit = value.signed()?,
                _ => {}
            }
        }
        Ok(ValueType { name: self.text(name)?, unit: self.text(unit)? })
    }

    fn mapping(&mut self, message: Value<'a>) -> Result<()> {
        let (mut id, mut path, mut build_id) = (0, 0, 0);
        let mut mapping = Mapping::default();
        for field in message.message()? {
            match field? {
                (1, value) => id = value.int()?,
                (2, value) => mapping.memory_start = value.int()?,
                (3, value) => mapping.memory_limit = value.int()?,
                (4, value) => mapping.file_offset = value.int()?,
                (5, value) => path = value.signed()?,
                (6, value) => build_id = value.signed()?,
                (7, value) => mapping.has_functions = value.int()? != 0,
                (8, value) => mapping.has_filenames = value.int()? != 0,
                (9, value) => mapping.has_line_numbers = value.int()? != 0,
                (10, value) => mapping.has_inline_frames = value.int()? != 0,
                _ => {}
            }
        }
        self.budget.charge(size_of::<Mapping>() + 32)?;
        mapping.path = self.text(path)?;
        mapping.build_id = self.text(build_id)?;
        let at = MappingId::from(self.profile.mappings.len());
        self.profile.mappings.push(mapping);
        new_id("mapping", id, self.mappings.insert(id, at).is_some())
    }

    fn function(&mut self, message: Value<'a>) -> Result<()> {
        let (mut id, mut name, mut system_name, mut filename) = (0, 0, 0, 0);
        let mut start_line = 0;
        for field in message.message()? {
            match field? {
                (1, value) => id = value.int()?,
                (2, value) => name = value.signed()?,
                (3, value) => system_name = value.signed()?,
                (4, value) => filename = value.signed()?,
                (5, value) => start_line = value.signed()?,
                _ => {}
            }
        }
        self.budget.charge(128)?;
        let (mut name, system_name) = (self.text(name)?, self.text(system_name)?);
        if name.is_empty() && !system_name.is_empty() {
            // Left to the viewer, which in google/pprof demangles too.
            name = demangle(&system_name);
            self.budget.charge(name.len())?;
        }
        let function = Function { name, system_name, filename: self.text(filename)?, start_line };
        let at = FunctionId::from(self.profile.functions.intern(function));
        new_id("function", id, self.functions.insert(id, at).is_some())
    }

    fn locations(&mut self) -> Result<()> {
        for field in Fields(self.data) {
            if let (4, value) = field? {
                self.location(value)?;
            }
        }
        Ok(())
    }

    fn location(&mut self, message: Value<'a>) -> Result<()> {
        let (mut id, mut mapping) = (0, 0);
        let mut location = Location::default();
        for field in message.message()? {
            match field? {
                (1, value) => id = value.int()?,
                (2, value) => mapping = value.int()?,
                (3, value) => location.address = value.int()?,
                (4, value) => {
                    // Twice its size, as vectors grow by doubling.
                    self.budget.charge(2 * size_of::<Line>())?;
                    location.lines.push(self.line(value)?);
                }
                (5, value) => drop(value.int()?),
                _ => {}
            }
        }
        if mapping != 0 {
            location.mapping = self.mappings.get(&mapping).copied();
            if location.mapping.is_none() {
                // google/pprof takes it for one that is in none.
                self.missing.get_or_insert((0, mapping)).0 += 1;
            }
        }
        self.budget.charge(2 * size_of::<Location>() + 32)?;
        let at = LocationId::from(self.profile.locations.len());
        self.profile.locations.push(location);
        new_id("location", id, self.locations.insert(id, at).is_some())
    }

    fn line(&self, message: Value<'a>) -> Result<Line> {
        let (mut function, mut line) = (0, 0);
        for field in message.message()? {
            match field? {
                (1, value) => function = value.int()?,
                (2, value) => line = value.signed()?,
                _ => {}
            }
        }
        let found = self.functions.get(&function).copied();
        let function =
            found.with_context(|| format!("a location is in function {function}, which is missing"))?;
        Ok(Line { function, line })
    }

    fn samples(&mut self) -> Result<()> {
        let (mut stack, mut values, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        let (mut nodes, mut label_sets, mut samples) = (0, 0, 0);
        let mut seen = 0_u64;
        for field in Fields(self.data) {
            let (2, value) = field? else { continue };
            seen += 1;
            self.sample(value, &mut stack, &mut values, &mut labels)
                .with_context(|| format!("sample {seen}"))?;
            let stack_id = self.profile.intern_stack(&stack);
            let more = self.profile.stack_nodes() - nodes;
            if more > 0 {
                nodes += more;
                // A node each, and where they leave the known ones an entry in a table.
                self.budget.charge(32 + 8 * more)?;
            }
            // What is interned for the first time takes the next position, and memory.
            let labels_id = self.profile.intern_labels(&labels);
            if labels_id.index() == label_sets {
                label_sets += 1;
                self.budget.charge(192 + size_of_val(&labels[..]))?;
            }
            self.profile.add(stack_id, labels_id, &values);
            if self.profile.samples().len() > samples {
                samples += 1;
                self.budget.charge(160 + size_of_val(&values[..]))?;
            }
        }
        Ok(())
    }

    fn sample(
        &mut self,
        message: Value<'a>,
        stack: &mut Vec<LocationId>,
        values: &mut Vec<i64>,
        labels: &mut Vec<Label>,
    ) -> Result<()> {
        stack.clear();
        values.clear();
        labels.clear();
        let types = self.profile.sample_types.len();
        ensure!(types > 0, "it has values, but the file does not say what they measure");
        for field in message.message()? {
            match field? {
                (1, value) => {
                    for id in value.ints()? {
                        let id = id?;
                        if stack.len() == stack.capacity() {
                            // It is about to double.
                            self.budget.charge(2 * size_of_val(&stack[..]))?;
                        }
                        let found = self.locations.get(&id).copied();
                        stack.push(found.with_context(|| format!("location {id} is missing"))?);
                    }
                }
                (2, value) => {
                    for number in value.ints()? {
                        ensure!(
                            values.len() < types,
                            "it has more values than the {types} that the file declares"
                        );
                        values.push(number?.cast_signed());
                    }
                }
                (3, value) => {
                    if labels.len() == labels.capacity() {
                        self.budget.charge(2 * size_of_val(&labels[..]))?;
                    }
                    labels.extend(self.label(value)?);
                }
                _ => {}
            }
        }
        let count = values.len();
        ensure!(count == types, "it has {count} of the {types} values that the file declares");
        Ok(())
    }

    /// A label; none if it has neither text nor a number other than 0 nor a unit. google/pprof
    /// drops those too: they may be an empty text or the number 0.
    fn label(&mut self, message: Value<'a>) -> Result<Option<Label>> {
        let (mut key, mut text, mut number, mut unit) = (0, 0, 0, 0);
        for field in message.message()? {
            match field? {
                (1, value) => key = value.signed()?,
                (2, value) => text = value.signed()?,
                (3, value) => number = value.signed()?,
                (4, value) => unit = value.signed()?,
                _ => {}
            }
        }
        let key = self.shared(key)?;
        if (text, number, unit) == (0, 0, 0) {
            return Ok(None);
        }
        // Text goes before a number and its unit, as in google/pprof.
        let value = if text != 0 {
            LabelValue::Str(self.shared(text)?)
        } else {
            LabelValue::Num(number, self.shared(unit)?)
        };
        Ok(Some(Label { key, value }))
    }
}

fn new_id(what: &str, id: u64, taken: bool) -> Result<()> {
    ensure!(id != 0, "a {what} has the id 0, which means none");
    ensure!(!taken, "two {what}s have the id {id}");
    Ok(())
}
