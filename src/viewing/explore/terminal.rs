//! The screen, and the terminal that it is on. The only user of ratatui.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result, ensure};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::{KEYS, Key, State};
use crate::text::printable;
use crate::viewing::colors;

const GREY: Color = Color::Rgb(206, 206, 206);
const MATCH: Color = Color::Rgb(255, 64, 200);

/// Shows it until the user leaves.
pub(super) fn run(mut state: State<'_>) -> Result<()> {
    ensure!(
        io::stdout().is_terminal(),
        "failed to open the interactive table: standard output is no terminal; leave out -i"
    );
    let mut terminal = ratatui::try_init().context("failed to take the terminal")?;
    let ended = follow(&mut terminal, &mut state);
    ratatui::restore();
    ended
}

fn follow(terminal: &mut ratatui::DefaultTerminal, state: &mut State<'_>) -> Result<()> {
    loop {
        terminal
            .draw(|frame| {
                let area = frame.area();
                draw(state, area, frame.buffer_mut());
            })
            .context("failed to write to the terminal")?;
        if let Event::Key(pressed) = event::read().context("failed to read from the terminal")?
            && pressed.kind != KeyEventKind::Release
        {
            if pressed.modifiers.contains(KeyModifiers::CONTROL) {
                match pressed.code {
                    KeyCode::Char('c' | 'd') => return Ok(()),
                    _ => continue,
                }
            }
            if let Some(key) = key(pressed.code)
                && !state.press(key)?
            {
                return Ok(());
            }
        }
    }
}

fn key(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}

/// The whole screen.
fn draw(state: &State<'_>, area: Rect, screen: &mut Buffer) {
    if area.height < 3 || area.width < 10 {
        return;
    }
    let bold = Style::new().add_modifier(Modifier::BOLD);
    line(screen, area, 0, &state.heading(), bold);
    line(screen, area, area.height - 1, &state.footer(), bold);
    let hint = "? keys  q quit";
    let used = state.footer().chars().count() + hint.len() + 2;
    if used <= usize::from(area.width) {
        let x = area.right() - hint.len() as u16;
        screen.set_string(x, area.bottom() - 1, hint, Style::new().add_modifier(Modifier::DIM));
    }
    let inner = Rect { y: area.y + 1, height: area.height - 2, ..area };
    if state.is_help {
        for ((keys, what), row) in KEYS.iter().zip(0..inner.height) {
            line(screen, inner, row, &format!("  {keys:12} {what}"), Style::new());
        }
    } else if state.is_table {
        table(state, inner, screen);
    } else {
        flame(state, inner, screen);
    }
}

fn line(screen: &mut Buffer, area: Rect, row: u16, text: &str, style: Style) {
    let text = printable(text).replace('\n', "\u{fffd}");
    screen.set_stringn(area.x, area.y + row, text, usize::from(area.width), style);
}

fn table(state: &State<'_>, area: Rect, screen: &mut Buffer) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let heading = format!("{:>12} {:>7} {:>12} {:>7}  function", "self", "self%", "total", "total%");
    line(screen, area, 0, &heading, bold);
    let room = usize::from(area.height) - 1;
    // The row that is selected is always there.
    let first = state.row.saturating_sub(room.saturating_sub(1));
    for ((at, row), y) in state.rows().enumerate().skip(first).take(room).zip(1..) {
        let text = format!(
            "{:>12} {:>7} {:>12} {:>7}  {}",
            state.amount(row.own),
            state.share(row.own),
            state.amount(row.total),
            state.share(row.total),
            row.name
        );
        let style =
            if at == state.row { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        line(screen, area, y, &text, style);
    }
}

/// A frame for each column that it has; those that have none are grey together.
fn flame(state: &State<'_>, area: Rect, screen: &mut Buffer) {
    let graph = &state.graph;
    let height = usize::from(area.height);
    let deepest = graph.depth[state.selected];
    let first = (deepest + 1).saturating_sub(height);
    let row = |depth: usize| {
        let row = depth - first;
        area.y + if state.is_root_below { height - 1 - row } else { row } as u16
    };
    let is_shown = |depth: usize| (first..first + height).contains(&depth);
    let mut above = state.zoom;
    loop {
        if is_shown(graph.depth[above]) {
            frame(state, above, area.x, area.width, row(graph.depth[above]), screen);
        }
        if above == 0 {
            break;
        }
        above = graph.parent[above];
    }
    let scale = f64::from(area.width) / graph.width[state.zoom].max(1) as f64;
    let mut node = state.zoom + 1;
    while node < graph.end[state.zoom] {
        let left = (graph.start[node] - graph.start[state.zoom]) as f64 * scale;
        let (from, to) = (left.round(), (left + graph.width[node] as f64 * scale).round());
        let (from, to) = (from as u16, (to as u16).min(area.width));
        if graph.depth[node] >= first + height {
            node = graph.end[node];
        } else if from >= to {
            let x = area.x + from.min(area.width - 1);
            if is_shown(graph.depth[node])
                && let Some(cell) = screen.cell_mut((x, row(graph.depth[node])))
                && cell.symbol() == " "
            {
                cell.set_symbol("░").set_style(Style::new().fg(GREY));
            }
            node = graph.end[node];
        } else {
            if is_shown(graph.depth[node]) {
                frame(state, node, area.x + from, to - from, row(graph.depth[node]), screen);
            }
            node += 1;
        }
    }
}

fn frame(state: &State<'_>, node: usize, x: u16, width: u16, y: u16, screen: &mut Buffer) {
    let name = state.name(node);
    let [r, g, b] = match node {
        0 => colors::ROOT,
        _ => colors::color(name, state.tree.frames().all[state.graph.frame[node] as usize].kind),
    };
    let is_match = node != 0 && state.is_match(name);
    let mut style = Style::new().fg(Color::Black).bg(if is_match { MATCH } else { Color::Rgb(r, g, b) });
    if node == state.selected {
        style = Style::new()
            .fg(Color::White)
            .bg(Color::Black)
            .add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
    }
    let room = usize::from(width);
    let text: String = printable(name).replace('\n', "\u{fffd}").chars().take(room).collect();
    screen.set_stringn(x, y, " ".repeat(room), room, style);
    screen.set_stringn(x, y, text, room, style);
    if width > 1
        && let Some(cell) = screen.cell_mut((x + width - 1, y))
    {
        cell.set_symbol("▕").set_style(style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::TopSort;
    use crate::model::profile::{Function, Line, Location, LocationId, Profile, ValueType};

    /// main calls a (30, of which b has 20), and b (10).
    fn profile() -> Profile {
        let mut profile = Profile::new(vec![ValueType::new("samples", "count")]);
        for name in ["main", "alpha", "beta"] {
            let function = Function { name: name.to_owned(), ..Function::default() };
            let function = profile.functions.intern(function).into();
            profile
                .locations
                .push(Location { lines: vec![Line { function, line: 0 }], ..Location::default() });
        }
        let none = profile.intern_labels(&[]);
        for (stack, value) in [(&[1, 0][..], 10), (&[2, 1, 0], 20), (&[2, 0], 10)] {
            let stack: Vec<_> = stack.iter().map(|&at| LocationId(at)).collect();
            let stack = profile.intern_stack(&stack);
            profile.add(stack, none, &[value]);
        }
        profile
    }

    fn shown(state: &State<'_>) -> Vec<String> {
        let area = Rect::new(0, 0, 60, 8);
        let mut screen = Buffer::empty(area);
        draw(state, area, &mut screen);
        let line =
            |y| (0..60).map(|x| screen[(x, y)].symbol().to_owned()).collect::<String>().trim_end().to_owned();
        (0..8).map(line).collect()
    }

    fn press(state: &mut State<'_>, keys: &str) {
        for c in keys.chars() {
            let key = match c {
                '\n' => Key::Enter,
                '\u{1b}' => Key::Escape,
                '↓' => Key::Down,
                '→' => Key::Right,
                c => Key::Char(c),
            };
            assert!(state.press(key).unwrap());
        }
    }

    #[test]
    fn the_table_is_sorted_and_searched() {
        let profile = profile();
        let mut state = State::new(&profile, 0, TopSort::Own).unwrap();
        let rows = |state: &State<'_>| -> Vec<String> {
            shown(state)[2..7]
                .iter()
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .filter(|line| !line.is_empty())
                .collect()
        };
        assert_eq!(
            rows(&state),
            ["30 75.00% 30 75.00% beta", "10 25.00% 30 75.00% alpha", "0 0.00% 40 100.00% main"]
        );
        press(&mut state, "o");
        assert!(rows(&state)[0].ends_with("main"));
        press(&mut state, "/ALP\n");
        assert_eq!(rows(&state), ["10 25.00% 30 75.00% alpha"]);
        press(&mut state, "\u{1b}");
        assert_eq!(rows(&state).len(), 3);
        // Without all stacks with it, totals are of the rest; Escape brings them back.
        press(&mut state, "o↓h");
        assert_eq!(rows(&state), ["10 100.00% 10 100.00% beta", "0 0.00% 10 100.00% main"]);
        assert!(shown(&state)[0].contains("10 of samples, without alpha"), "{:?}", shown(&state));
        press(&mut state, "\u{1b}");
        assert_eq!(rows(&state).len(), 3);
        assert!(!state.press(Key::Char('q')).unwrap());
    }

    #[test]
    fn frames_are_as_wide_as_their_values() {
        let profile = profile();
        let mut state = State::new(&profile, 0, TopSort::Own).unwrap();
        press(&mut state, "t");
        let screen = shown(&state);
        assert!(screen[1].starts_with("all") && screen[2].starts_with("main"), "{screen:?}");
        // 60 columns are 40 samples: alpha has 45 of them, and beta in it 30.
        let at = |line: &str, name: &str| line.split(name).next().unwrap().chars().count();
        assert_eq!((at(&screen[3], "alpha"), at(&screen[3], "beta")), (0, 45), "{screen:?}");
        assert!(screen[4].starts_with("beta") && screen[4].chars().count() == 30, "{screen:?}");
        // The search leads from one to the other.
        press(&mut state, "/beta\n");
        assert!(
            shown(&state)[7].starts_with("1 of 2 'beta'  beta: 20, 50.00% of all"),
            "{:?}",
            shown(&state)
        );
        press(&mut state, "n");
        assert!(
            shown(&state)[7].starts_with("2 of 2 'beta'  beta: 10, 25.00% of all"),
            "{:?}",
            shown(&state)
        );
        // Zoomed, it has the whole line; Escape takes the search back, then the zoom.
        press(&mut state, "\n");
        assert_eq!(shown(&state)[3].chars().count(), 60);
        press(&mut state, "\u{1b}\u{1b}");
        assert_eq!(at(&shown(&state)[3], "beta"), 45);
        // From the leaf beta is one, with 30 of 40.
        press(&mut state, "r");
        let screen = shown(&state);
        assert!(screen[2].contains("alpha") && at(&screen[2], "beta") == 15, "{screen:?}");
        // The root is below.
        press(&mut state, "ri");
        let screen = shown(&state);
        assert!(screen[6].starts_with("all") && screen[5].starts_with("main"), "{screen:?}");
        press(&mut state, "?");
        assert!(shown(&state)[1].contains("table or flamegraph"));
    }
}
