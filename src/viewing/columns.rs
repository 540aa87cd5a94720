//! The whole profile as the viewer reads it (`viewer/js/data.js`): four bytes of length, a header in JSON, and
//! columns of numbers of seven bits a byte, lowest first, one behind the other; all deflated, in base64.
//!
//! Nodes are in preorder, children sorted by name, so that the viewer can draw the file's tree as it is. Columns of
//! equal things deflate to little: 425,000 nodes take less than a megabyte.

use std::collections::HashMap;
use std::io::Write as _;
use std::rc::Rc;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};

use super::colors::{KINDS, LEFT_OUT};
use super::tree::{Children, ROOT, Tree};
use super::{differential, moments, scale};
use crate::model::profile::{LabelValue, LabelsId, Profile, TIME_LABEL};
use crate::text::thousands;

/// Most nodes that a browser draws at ease; beyond them the narrowest are one frame for each caller.
const MOST_NODES: usize = 6_000_000;

/// What the viewer opens with.
pub(super) struct Opening<'a> {
    pub(super) title: String,
    /// How much, how long, of which file.
    pub(super) about: String,
    /// The value.
    pub(super) value: usize,
    /// Labels whose values stand at the root.
    pub(super) group: &'a [String],
    pub(super) inverted: bool,
    pub(super) reverse: bool,
    /// Where the values are those of [`super::differential`].
    pub(super) comparison: Option<Comparison>,
}

/// What of two profiles is compared.
#[derive(Clone, Copy)]
pub(super) struct Comparison {
    /// What one sample adds to the value, before and after; none where nobody knows.
    pub(super) each: Option<[f64; 2]>,
    /// By what the values before are to be multiplied.
    pub(super) factor: f64,
    /// Values are compared as they are, and not shares of the whole.
    pub(super) is_absolute: bool,
}

/// The profile of this tree, which has the rows of all values, in base64.
///
/// # Errors
/// If it does not fit into memory.
pub(super) fn pack(profile: &Profile, tree: &Tree<'_>, opening: &Opening<'_>) -> Result<String> {
    let chosen = Chosen::new(profile, tree);
    let mut children = tree.children(|node| chosen.is_kept(node));
    let frames = &tree.frames().all;
    let mut order: Vec<u32> = (0..frames.len() as u32).collect();
    order.sort_by(|a, b| {
        let [a, b] = [a, b].map(|at| &frames[*at as usize]);
        (&a.name, a.kind).cmp(&(&b.name, b.kind))
    });
    let mut rank = vec![0; frames.len()];
    for (at, frame) in order.iter().enumerate() {
        rank[*frame as usize] = at;
    }
    children.sort_by(|a, b| {
        let rank = |node| rank[tree.frame_index(node) as usize];
        rank(a).cmp(&rank(b))
    });
    let mut columns = Columns::new(tree, &chosen, &children);
    columns.rows(tree);
    columns.files = files(profile, tree);
    let labels = Labels::new(profile);
    let header = header(profile, tree, opening, &columns, &labels).to_string();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::new(6));
    let length = u32::try_from(header.len()).context("failed to write the viewer: the names exceed 4 GiB")?;
    let mut write = |bytes: &[u8]| zlib.write_all(bytes).context("failed to compress the viewer's data");
    write(&length.to_le_bytes())?;
    write(header.as_bytes())?;
    let mut bytes = Vec::new();
    frame_columns(profile, tree, &columns, &mut bytes);
    write(&bytes)?;
    for column in [&columns.frames, &columns.pops, &columns.leaves, &columns.labels] {
        write(column)?;
    }
    for column in &columns.values {
        write(column)?;
    }
    Ok(base64(&zlib.finish().context("failed to compress the viewer's data")?))
}

fn header(
    profile: &Profile,
    tree: &Tree<'_>,
    opening: &Opening<'_>,
    columns: &Columns,
    labels: &Labels,
) -> Value {
    let kind = |name: &str, from: [u8; 3], to: [u8; 3]| json!({ "name": name, "from": from, "to": to });
    let kinds = KINDS.iter().map(|(_, name, from, to)| kind(name, *from, *to));
    let names = tree.frames().all.iter().map(|frame| &*frame.name);
    json!({
        "title": opening.title,
        "about": opening.about,
        "value": opening.value,
        "group": opening.group.iter().filter(|key| !key.is_empty()).collect::<Vec<_>>(),
        "inverted": opening.inverted,
        "reverse": opening.reverse,
        "comparison": opening.comparison.map(|it| json!({
            "value": differential::BOTH, "after": differential::AFTER,
            "each": it.each, "factor": it.factor, "absolute": it.is_absolute,
        })),
        "types": profile.sample_types.iter().map(|ty| json!({ "name": ty.name, "unit": ty.unit })).collect::<Vec<_>>(),
        "kinds": kinds.chain([kind("left out", LEFT_OUT, LEFT_OUT)]).collect::<Vec<_>>(),
        "binaries": tree.frames().binaries.iter().collect::<Vec<_>>(),
        "files": columns.files,
        "names": names.chain(columns.groups.iter().map(String::as_str)).collect::<Vec<_>>(),
        "labels": { "keys": labels.keys.iter().map(|key| &**key).collect::<Vec<_>>(), "texts": labels.texts, "sets": labels.sets },
        "times": labels.times,
        "interval": labels.interval,
        "nodes": columns.nodes,
        "rows": columns.row_count,
    })
}

/// Which nodes have a place of their own.
struct Chosen {
    /// Greatest share of any value, and from which on a node is kept; none if all are.
    shares: Option<(Vec<f32>, f32)>,
}

impl Chosen {
    fn new(profile: &Profile, tree: &Tree<'_>) -> Self {
        if tree.len() <= MOST_NODES {
            return Self { shares: None };
        }
        let mut shares = vec![0_f32; tree.len()];
        for value in 0..profile.sample_types.len() {
            let own = tree.own(value).into_iter().map(i64::saturating_abs).collect();
            let widths = tree.add_up(own);
            let all = widths[ROOT as usize].max(1) as f32;
            for (share, width) in shares.iter_mut().zip(widths) {
                *share = share.max(width as f32 / all);
            }
        }
        let mut sorted = shares.clone();
        let (_, least, _) = sorted.select_nth_unstable_by(MOST_NODES, |a, b| b.total_cmp(a));
        let least = *least;
        Self { shares: Some((shares, least)) }
    }

    // What is above a node has at least its share, so that the nodes that are kept are a tree.
    fn is_kept(&self, node: u32) -> bool {
        self.shares.as_ref().is_none_or(|(shares, least)| shares[node as usize] > *least)
    }
}

/// The numbers of the tree and its rows.
#[derive(Default)]
struct Columns {
    nodes: usize,
    row_count: usize,
    /// Names of the frames behind the tree's own: what was left out.
    groups: Vec<String>,
    files: Vec<String>,
    frames: Vec<u8>,
    pops: Vec<u8>,
    leaves: Vec<u8>,
    labels: Vec<u8>,
    values: Vec<Vec<u8>>,
    /// Place in preorder of each node; of one that is left out, that of the frame in its place.
    places: Vec<u32>,
}

impl Columns {
    fn new(tree: &Tree<'_>, chosen: &Chosen, children: &Children) -> Self {
        let mut columns = Self { places: vec![0; tree.len()], ..Self::default() };
        // How many are left out below each node.
        let mut left_out: HashMap<u32, (u32, u32)> = HashMap::new();
        for node in 1..tree.len() as u32 {
            let parent = tree.parent(node);
            if !chosen.is_kept(node) && chosen.is_kept(parent) {
                left_out.entry(parent).or_default().0 += 1;
            }
        }
        let mut group_frames: HashMap<u32, u32> = HashMap::new();
        let mut to_do = vec![(ROOT, 0_u32)];
        let mut last_depth = 0;
        while let Some((node, depth)) = to_do.pop() {
            columns.places[node as usize] = columns.nodes as u32;
            if node != ROOT {
                varint(&mut columns.frames, u64::from(tree.frame_index(node)));
                varint(&mut columns.pops, u64::from(last_depth + 1 - depth));
                last_depth = depth;
            }
            columns.nodes += 1;
            if let Some((count, place)) = left_out.get_mut(&node) {
                *place = columns.nodes as u32;
                columns.nodes += 1;
                let frame = *group_frames.entry(*count).or_insert_with(|| {
                    let s = if *count == 1 { "" } else { "s" };
                    columns.groups.push(format!("[{} narrow function{s}]", thousands(*count)));
                    (tree.frames().all.len() + columns.groups.len() - 1) as u32
                });
                varint(&mut columns.frames, u64::from(frame));
                varint(&mut columns.pops, u64::from(last_depth - depth));
                last_depth = depth + 1;
            }
            to_do.extend(children.of(node).iter().rev().map(|&child| (child, depth + 1)));
        }
        for node in 1..tree.len() as u32 {
            if !chosen.is_kept(node) {
                let parent = tree.parent(node);
                columns.places[node as usize] = match left_out.get(&parent) {
                    Some((_, place)) if chosen.is_kept(parent) => *place,
                    _ => columns.places[parent as usize],
                };
            }
        }
        columns
    }

    /// The rows in the order of their nodes, those of one node and set of labels added up.
    fn rows(&mut self, tree: &Tree<'_>) {
        let rows: Vec<(u32, LabelsId, &[i64])> =
            tree.rows().map(|(node, labels, values)| (self.places[node as usize], labels, values)).collect();
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        order.sort_unstable_by_key(|at| {
            let (place, labels, _) = rows[*at as usize];
            (place, labels)
        });
        let types = rows.first().map_or(0, |(_, _, values)| values.len());
        self.values = vec![Vec::new(); types];
        let mut last_place = 0;
        let mut sums = vec![0_i64; types];
        for (i, at) in order.iter().enumerate() {
            let (place, labels, values) = rows[*at as usize];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = sum.saturating_add(*value);
            }
            let next = order.get(i + 1).map(|at| &rows[*at as usize]);
            if next.is_some_and(|next| (next.0, next.1) == (place, labels)) {
                continue;
            }
            varint(&mut self.leaves, u64::from(place - last_place));
            last_place = place;
            varint(&mut self.labels, u64::from(labels.0));
            for (column, sum) in self.values.iter_mut().zip(&mut sums) {
                signed(column, std::mem::take(sum));
            }
            self.row_count += 1;
        }
    }
}

/// Source files, each once; the first is none.
fn files(profile: &Profile, tree: &Tree<'_>) -> Vec<String> {
    let functions = tree.frames().all.iter().filter_map(|frame| frame.function);
    let mut files: Vec<_> = functions.map(|id| profile.function(id).filename.clone()).collect();
    files.push(String::new());
    files.sort_unstable();
    files.dedup();
    files
}

/// Kind, binary, file and lines of each frame.
fn frame_columns(profile: &Profile, tree: &Tree<'_>, columns: &Columns, bytes: &mut Vec<u8>) {
    let frames = &tree.frames().all;
    let groups = columns.groups.len();
    let mut column = |of_frame: &dyn Fn(usize) -> u64, of_group: u64| {
        (0..frames.len()).for_each(|at| varint(bytes, of_frame(at)));
        (0..groups).for_each(|_| varint(bytes, of_group));
    };
    let kind = |at: usize| {
        let kind = frames[at].kind;
        KINDS.iter().position(|(of, ..)| *of == kind).unwrap_or(0) as u64
    };
    column(&kind, KINDS.len() as u64);
    column(&|at| frames[at].binary.map_or(0, |binary| u64::from(binary) + 1), 0);
    let index: HashMap<&str, u64> = columns.files.iter().map(String::as_str).zip(0..).collect();
    let file = |at: usize| frames[at].function.map_or("", |id| &*profile.function(id).filename);
    column(&|at| index.get(file(at)).copied().unwrap_or(0), 0);
    let start = |at: usize| frames[at].function.map_or(0, |id| profile.function(id).start_line.max(0));
    column(&|at| if start(at) > 0 { start(at) } else { frames[at].lines.0 }.cast_unsigned(), 0);
    column(&|at| frames[at].lines.1.cast_unsigned(), 0);
}

/// The labels of rows, each text once.
#[derive(Default)]
struct Labels {
    keys: Vec<Rc<str>>,
    texts: Vec<String>,
    /// Of each set, key and text in turn.
    sets: Vec<Vec<u32>>,
    /// Of each set, when its samples were taken; none if no sample says so.
    times: Option<Vec<Option<i64>>>,
    interval: i64,
}

impl Labels {
    fn new(profile: &Profile) -> Self {
        let mut labels = Self::default();
        let mut keys: HashMap<Rc<str>, u32> = HashMap::new();
        let mut texts: HashMap<String, u32> = HashMap::new();
        let mut times = Vec::new();
        for set in profile.label_sets() {
            let mut packed = Vec::new();
            for label in set {
                let text = match &label.value {
                    // The viewer shows a strip of time; it is none to group by.
                    LabelValue::Num(..) if &*label.key == TIME_LABEL => continue,
                    LabelValue::Num(number, unit) => scale::label(*number, unit),
                    LabelValue::Str(text) => text.to_string(),
                };
                let key = *keys.entry(Rc::clone(&label.key)).or_insert_with(|| {
                    labels.keys.push(Rc::clone(&label.key));
                    labels.keys.len() as u32 - 1
                });
                let text = *texts.entry(text).or_insert_with_key(|text| {
                    labels.texts.push(text.clone());
                    labels.texts.len() as u32 - 1
                });
                packed.extend([key, text]);
            }
            labels.sets.push(packed);
            times.push(moments::time(set));
        }
        let mut distinct: Vec<i64> = times.iter().flatten().copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        // All are multiples of the step.
        labels.interval = distinct.iter().fold(0, |step, time| gcd(step, time.saturating_abs()));
        if labels.interval == 0 {
            labels.interval = profile.duration_ns.max(1);
        }
        labels.times = (!distinct.is_empty()).then_some(times);
        labels
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// The lowest bit is the sign.
fn signed(bytes: &mut Vec<u8>, number: i64) {
    varint(bytes, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Lines, for those who look at the file.
    const LINE: usize = 57;
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + bytes.len() / LINE + 8);
    for line in bytes.chunks(LINE) {
        for three in line.chunks(3) {
            let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
                << (8 * (3 - three.len()));
            for at in 0..4 {
                let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
                text.push(if at <= three.len() { char::from(letter) } else { '=' });
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        // The vectors of RFC 4648.
        for (bytes, text) in
            [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), format!("{text}\n"));
        }
        assert_eq!(base64(b""), "");
    }

    #[test]
    fn numbers_take_seven_bits_a_byte() {
        let mut bytes = Vec::new();
        for number in [0, -1, 1, 64, -300] {
            signed(&mut bytes, number);
        }
        assert_eq!(bytes, [0, 1, 2, 0x80, 1, 0xd7, 4]);
    }
}
