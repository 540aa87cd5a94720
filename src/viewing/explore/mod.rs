//! `profiler top -i`: the table and the flamegraph in a terminal, with the keys of the viewer.
//!
//! What is looked at is a [`State`], which keys change and which knows nothing of terminals; `terminal.rs` draws it.

mod graph;
mod terminal;

use anyhow::Result;

use self::graph::{Function, Graph};
use super::tree::{Shape, Tree};
use super::{View, scale};
use crate::cli::TopSort;
use crate::model::profile::Profile;
use crate::text::{percent, printable, thousands};

/// Looks at a profile until the user has seen enough.
///
/// # Errors
/// If there is no terminal, or the profile is too large.
pub(super) fn run(view: &View, sort: TopSort) -> Result<()> {
    terminal::run(State::new(&view.profile, view.index, sort)?)
}

/// What a user presses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
}

const KEYS: [(&str, &str); 14] = [
    ("t", "table or flamegraph"),
    ("arrows", "callers, callees, siblings; rows"),
    ("Enter", "zoom in; in the table: show the function in the flamegraph"),
    ("Esc", "take back the last step"),
    ("/", "search: part of a name, in any case"),
    ("n, N", "next and previous match"),
    ("h", "without all stacks with the function"),
    ("r", "merge from the leaf"),
    ("i", "flip: root above or below"),
    ("o", "sort by self or by total"),
    ("PgUp, PgDn", "a page of the table"),
    ("0", "reset"),
    ("?", "this help"),
    ("q", "quit"),
];

/// Rows that a page of the table goes.
const PAGE: usize = 20;

/// What is looked at, and how.
struct State<'a> {
    profile: &'a Profile,
    value: usize,
    tree: Tree<'a>,
    graph: Graph,
    /// Of what is not hidden, from the root, in the order of `sort`.
    functions: Vec<Function>,
    sort: TopSort,
    is_table: bool,
    is_reversed: bool,
    is_root_below: bool,
    is_help: bool,
    /// Whether keys go into the search.
    is_typing: bool,
    search: String,
    hidden: Vec<String>,
    /// Nodes of the graph.
    zoom: usize,
    selected: usize,
    /// Row of the table.
    row: usize,
}

impl<'a> State<'a> {
    fn new(profile: &'a Profile, value: usize, sort: TopSort) -> Result<Self> {
        let mut state = Self {
            profile,
            value,
            tree: tree(profile, value, false)?,
            graph: Graph::default(),
            functions: Vec::new(),
            sort,
            is_table: true,
            is_reversed: false,
            is_root_below: false,
            is_help: false,
            is_typing: false,
            search: String::new(),
            hidden: Vec::new(),
            zoom: 0,
            selected: 0,
            row: 0,
        };
        state.shape(true)?;
        Ok(state)
    }

    /// Makes the graph and the table anew.
    fn shape(&mut self, are_functions_new: bool) -> Result<()> {
        let is_hidden = |name: &str| self.hidden.iter().any(|hidden| hidden == name);
        self.tree = tree(self.profile, self.value, self.is_reversed)?;
        self.graph = Graph::new(&self.tree, self.value, is_hidden);
        if are_functions_new {
            // A function's own is at the leaf: the table is of stacks from the root.
            if self.is_reversed {
                let tree = tree(self.profile, self.value, false)?;
                self.functions = Graph::new(&tree, self.value, is_hidden).functions(&tree);
            } else {
                self.functions = self.graph.functions(&self.tree);
            }
            self.order();
        }
        (self.zoom, self.selected) = (0, 0);
        Ok(())
    }

    fn order(&mut self) {
        let sort = self.sort;
        let key = |it: &Function| match sort {
            TopSort::Own => (it.own.saturating_abs(), it.total.saturating_abs()),
            TopSort::Total => (it.total.saturating_abs(), it.own.saturating_abs()),
        };
        self.functions.sort_by(|a, b| key(b).cmp(&key(a)).then_with(|| a.name.cmp(&b.name)));
        self.row = 0;
    }

    /// Does what a key is for; false if it is to leave.
    fn press(&mut self, key: Key) -> Result<bool> {
        if self.is_typing {
            self.type_key(key);
            return Ok(true);
        }
        self.is_help = key == Key::Char('?') && !self.is_help;
        match key {
            Key::Char('q') => return Ok(false),
            Key::Char('t') => self.is_table = !self.is_table,
            Key::Char('/') => (self.is_typing, self.search) = (true, String::new()),
            Key::Char('o') => {
                self.sort = if self.sort == TopSort::Own { TopSort::Total } else { TopSort::Own };
                self.order();
            }
            Key::Char('r') => {
                self.is_reversed = !self.is_reversed;
                self.shape(false)?;
            }
            Key::Char('i') => self.is_root_below = !self.is_root_below,
            Key::Char('n') => self.match_from(1),
            Key::Char('N') => self.match_from(-1),
            Key::Char('h') => {
                if let Some(name) = self.name_of_selected() {
                    self.hidden.push(name);
                    self.shape(true)?;
                }
            }
            Key::Char('0') => {
                (self.search, self.hidden) = (String::new(), Vec::new());
                (self.is_reversed, self.is_root_below) = (false, false);
                self.shape(true)?;
            }
            Key::Escape => self.back()?,
            _ if self.is_table => self.press_in_table(key),
            _ => self.press_in_graph(key),
        }
        Ok(true)
    }

    fn type_key(&mut self, key: Key) {
        match key {
            Key::Char(c) => self.search.push(c),
            Key::Backspace => {
                self.search.pop();
            }
            Key::Escape => (self.is_typing, self.search) = (false, String::new()),
            Key::Enter => {
                self.is_typing = false;
                self.match_from(1);
            }
            _ => self.is_typing = false,
        }
        self.row = self.row.min(self.rows().count().saturating_sub(1));
    }

    /// Takes back one thing, the last that was done first.
    fn back(&mut self) -> Result<()> {
        if !self.search.is_empty() {
            self.search.clear();
        } else if self.zoom != 0 {
            self.zoom = 0;
        } else if self.hidden.pop().is_some() {
            self.shape(true)?;
        } else if self.is_reversed {
            self.is_reversed = false;
            self.shape(false)?;
        }
        Ok(())
    }

    fn press_in_table(&mut self, key: Key) {
        let last = self.rows().count().saturating_sub(1);
        self.row = match key {
            Key::Up => self.row.saturating_sub(1),
            Key::Down => self.row + 1,
            Key::PageUp => self.row.saturating_sub(PAGE),
            Key::PageDown => self.row + PAGE,
            Key::Home => 0,
            Key::End => last,
            Key::Enter => {
                if let Some(name) = self.name_of_selected() {
                    self.search = name;
                    self.is_table = false;
                    self.selected = 0;
                    self.match_from(1);
                }
                self.row
            }
            _ => self.row,
        }
        .min(last);
    }

    fn press_in_graph(&mut self, key: Key) {
        let graph = &self.graph;
        let (away, back) = if self.is_root_below { (Key::Up, Key::Down) } else { (Key::Down, Key::Up) };
        let siblings = || graph.children(graph.parent[self.selected]);
        let found = match key {
            _ if key == away => graph.children(self.selected).max_by_key(|&child| graph.width[child]),
            _ if key == back => Some(graph.parent[self.selected]),
            Key::Right if self.selected != 0 => siblings().find(|&it| it > self.selected),
            Key::Left if self.selected != 0 => siblings().take_while(|&it| it < self.selected).last(),
            Key::Enter => {
                self.zoom = self.selected;
                None
            }
            _ => None,
        };
        self.selected = found.unwrap_or(self.selected);
        if self.selected < self.zoom {
            self.zoom = self.selected;
        }
    }

    /// Selects the next match, or the previous one; what the zoom does not show leads out of it.
    fn match_from(&mut self, step: isize) {
        if self.is_table || self.search.is_empty() {
            return;
        }
        let matches = self.matches();
        let next = if step > 0 {
            matches.iter().find(|&&node| node > self.selected).or(matches.first())
        } else {
            matches.iter().rfind(|&&node| node < self.selected).or(matches.last())
        };
        if let Some(&node) = next {
            self.selected = node;
            if !(self.zoom..self.graph.end[self.zoom]).contains(&node) {
                self.zoom = 0;
            }
        }
    }

    fn is_match(&self, name: &str) -> bool {
        !self.search.is_empty() && name.to_lowercase().contains(&self.search.to_lowercase())
    }

    /// Nodes whose names have the search in them.
    fn matches(&self) -> Vec<usize> {
        let frames: Vec<bool> =
            self.tree.frames().all.iter().map(|frame| self.is_match(&frame.name)).collect();
        (1..self.graph.len()).filter(|&node| frames[self.graph.frame[node] as usize]).collect()
    }

    /// The rows of the table: all functions, or those that match.
    fn rows(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|it| self.search.is_empty() || self.is_match(&it.name))
    }

    fn name(&self, node: usize) -> &str {
        if node == 0 { "all" } else { &self.tree.frames().all[self.graph.frame[node] as usize].name }
    }

    fn name_of_selected(&self) -> Option<String> {
        if self.is_table {
            return self.rows().nth(self.row).map(|row| row.name.to_string());
        }
        (self.selected != 0).then(|| self.name(self.selected).to_owned())
    }

    fn amount(&self, value: i64) -> String {
        scale::amount(value, &self.profile.sample_types[self.value].unit)
    }

    fn share(&self, value: i64) -> String {
        format!("{:.2}%", percent(value.abs() as f64, self.graph.width[0] as f64))
    }

    /// The line above: of what all is, and what of it is left.
    fn heading(&self) -> String {
        let mut text =
            format!("{} of {}", self.amount(self.graph.total[0]), self.profile.sample_types[self.value].name);
        for name in &self.hidden {
            text += &format!(", without {}", printable(name));
        }
        if self.is_reversed && !self.is_table {
            text += ", from the leaf";
        }
        text
    }

    /// The line below: the search, or what is selected.
    fn footer(&self) -> String {
        if self.is_typing {
            return format!("/{}", printable(&self.search));
        }
        let mut text = match (self.is_table, self.rows().nth(self.row)) {
            (true, None) => "nothing matches".to_owned(),
            (true, Some(row)) => printable(&row.name),
            (false, _) => format!(
                "{}: {}, {} of all",
                printable(self.name(self.selected)),
                self.amount(self.graph.total[self.selected]),
                self.share(self.graph.total[self.selected])
            ),
        };
        if !self.search.is_empty() && !self.is_table {
            let matches = self.matches();
            let at = matches.binary_search(&self.selected).map_or(0, |at| at + 1);
            text =
                format!("{at} of {} '{}'  {text}", thousands(matches.len() as i64), printable(&self.search));
        }
        text
    }
}

fn tree(profile: &Profile, value: usize, reverse: bool) -> Result<Tree<'_>> {
    let tagroot = ["comm".to_owned()];
    Tree::new(profile, &Shape { tagroot: &tagroot, value: Some(value), reverse, ..Shape::default() })
}
