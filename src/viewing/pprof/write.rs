//! The writer.

use std::collections::HashMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::protos;
use prost::Message;

use crate::model::profile::{self, FunctionId, LabelValue, LocationId, MappingId, Profile};

/// The bytes of a gzipped pprof file. Equal profiles give equal bytes.
///
/// Only what a sample refers to is written, except for the first mapping, which viewers take for
/// the main binary. `default_sample_type` is always set, for without it Go's pprof shows the last
/// type. The format has no way to say that a label is an empty text, or 0 without a unit: readers
/// take such a label for absent.
pub fn encode(profile: &Profile) -> Vec<u8> {
    let raw = Writer::new(profile).write().encode_to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let written = gzip.write_all(&raw).and_then(|()| gzip.finish());
    // The sink is memory: its `write` has no way to fail, and the encoder adds none.
    written.expect("compressing into memory failed")
}

/// A table that is written as far as it is used: old index to 1-based id, in order of first use.
struct Used {
    ids: Vec<u64>,
    order: Vec<usize>,
}

impl Used {
    fn new(size: usize) -> Self {
        Self { ids: vec![0; size], order: Vec::new() }
    }

    fn id(&mut self, index: usize) -> u64 {
        if self.ids[index] == 0 {
            self.order.push(index);
            self.ids[index] = self.order.len() as u64;
        }
        self.ids[index]
    }
}

/// The string table: each text once, the empty one first.
struct Strings<'a> {
    table: Vec<String>,
    index: HashMap<&'a str, i64>,
}

impl<'a> Strings<'a> {
    fn id(&mut self, text: &'a str) -> i64 {
        let next = self.table.len() as i64;
        *self.index.entry(text).or_insert_with(|| {
            self.table.push(text.to_owned());
            next
        })
    }

    fn value_type(&mut self, ty: &'a profile::ValueType) -> protos::ValueType {
        protos::ValueType { ty: self.id(&ty.name), unit: self.id(&ty.unit) }
    }
}

struct Writer<'a> {
    profile: &'a Profile,
    strings: Strings<'a>,
    mappings: Used,
    functions: Used,
    locations: Used,
}

impl<'a> Writer<'a> {
    fn new(profile: &'a Profile) -> Self {
        let mut strings = Strings { table: Vec::new(), index: HashMap::new() };
        strings.id("");
        Self {
            profile,
            strings,
            mappings: Used::new(profile.mappings.len()),
            functions: Used::new(profile.functions.iter().len()),
            locations: Used::new(profile.locations.len()),
        }
    }

    fn write(mut self) -> protos::Profile {
        let profile = self.profile;
        let sample_type = profile.sample_types.iter().map(|ty| self.strings.value_type(ty)).collect();
        if !profile.mappings.is_empty() {
            self.mappings.id(0);
        }
        // Each table names the entries of the next that are used, hence this order.
        let sample = profile.samples().iter().map(|sample| self.sample(sample)).collect();
        let location = self.locations();
        let mapping = self.mappings();
        let function = self.functions();
        let default = if profile.default_sample_type.is_empty() {
            let shown = profile.sample_type(None).map(|at| profile.sample_types[at].name.as_str());
            shown.unwrap_or_default()
        } else {
            &profile.default_sample_type
        };
        let measures = &profile.period_type;
        let has_period_type = !measures.name.is_empty() || !measures.unit.is_empty();
        let mut written = protos::Profile {
            sample_type,
            sample,
            mapping,
            location,
            function,
            time_nanos: profile.time_ns,
            duration_nanos: profile.duration_ns,
            period_type: has_period_type.then(|| self.strings.value_type(measures)),
            period: profile.period,
            comment: profile.comments.iter().map(|text| self.strings.id(text)).collect(),
            default_sample_type: self.strings.id(default),
            drop_frames: self.strings.id(&profile.drop_frames),
            keep_frames: self.strings.id(&profile.keep_frames),
            ..protos::Profile::default()
        };
        written.string_table = self.strings.table;
        written
    }

    fn sample(&mut self, sample: &profile::Sample) -> protos::Sample {
        let stack = self.profile.stack(sample.stack);
        let labels = self.profile.labels(sample.labels);
        protos::Sample {
            location_id: stack.map(|at| self.locations.id(at.index())).collect(),
            value: sample.values.clone(),
            label: labels.iter().map(|label| self.label(label)).collect(),
        }
    }

    fn label(&mut self, label: &'a profile::Label) -> protos::Label {
        let key = self.strings.id(&label.key);
        match &label.value {
            LabelValue::Str(text) => {
                protos::Label { key, str: self.strings.id(text), ..protos::Label::default() }
            }
            LabelValue::Num(num, unit) => {
                protos::Label { key, num: *num, num_unit: self.strings.id(unit), str: 0 }
            }
        }
    }

    fn locations(&mut self) -> Vec<protos::Location> {
        let profile = self.profile;
        let order = std::mem::take(&mut self.locations.order);
        let written = (1..).zip(order).map(|(id, at)| {
            let location = profile.location(LocationId::from(at));
            protos::Location {
                id,
                mapping_id: location.mapping.map_or(0, |at| self.mappings.id(at.index())),
                address: location.address,
                line: location
                    .lines
                    .iter()
                    .map(|line| protos::Line {
                        function_id: self.functions.id(line.function.index()),
                        line: line.line,
                    })
                    .collect(),
                is_folded: false,
            }
        });
        written.collect()
    }

    fn mappings(&mut self) -> Vec<protos::Mapping> {
        let profile = self.profile;
        let order = std::mem::take(&mut self.mappings.order);
        let written = (1..).zip(order).map(|(id, at)| {
            let mapping = profile.mapping(MappingId::from(at));
            protos::Mapping {
                id,
                memory_start: mapping.memory_start,
                memory_limit: mapping.memory_limit,
                file_offset: mapping.file_offset,
                filename: self.strings.id(&mapping.path),
                build_id: self.strings.id(&mapping.build_id),
                has_functions: mapping.has_functions,
                has_filenames: mapping.has_filenames,
                has_line_numbers: mapping.has_line_numbers,
                has_inline_frames: mapping.has_inline_frames,
            }
        });
        written.collect()
    }

    fn functions(&mut self) -> Vec<protos::Function> {
        let profile = self.profile;
        let order = std::mem::take(&mut self.functions.order);
        let written = (1..).zip(order).map(|(id, at)| {
            let function = profile.function(FunctionId::from(at));
            protos::Function {
                id,
                name: self.strings.id(&function.name),
                system_name: self.strings.id(&function.system_name),
                filename: self.strings.id(&function.filename),
                start_line: function.start_line,
            }
        });
        written.collect()
    }
}
