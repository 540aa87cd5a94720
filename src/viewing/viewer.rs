//! The viewer: a page that draws a profile in a browser, offline, out of one file.
//!
//! It is the script in `viewer/js`, plain JavaScript in small modules; `viewer/style.css`; and the profile as
//! [`super::columns`] writes it. In an SVG file they stand behind the picture. An `<img>` runs no scripts and shows
//! the picture; opened as a document, the script lays the viewer over it. As HTML it is the same the other way
//! round: without scripts the picture shows.
//!
//! The modules import each other, so that `node` runs them in tests as they are. Here they are put one behind the
//! other, without their imports and exports, so that a reader of the file finds them.

use std::path::Path;

use crate::text::printable;

/// In the order in which they need each other.
const MODULES: [(&str, &str); 22] = [
    ("prefix.js", include_str!("viewer/js/prefix.js")),
    ("scale.js", include_str!("viewer/js/scale.js")),
    ("names.js", include_str!("viewer/js/names.js")),
    ("data.js", include_str!("viewer/js/data.js")),
    ("tree.js", include_str!("viewer/js/tree.js")),
    ("shape.js", include_str!("viewer/js/shape.js")),
    ("search.js", include_str!("viewer/js/search.js")),
    ("colors.js", include_str!("viewer/js/colors.js")),
    ("comparison.js", include_str!("viewer/js/comparison.js")),
    ("view.js", include_str!("viewer/js/view.js")),
    ("draw.js", include_str!("viewer/js/draw.js")),
    ("dom.js", include_str!("viewer/js/dom.js")),
    ("tooltip.js", include_str!("viewer/js/tooltip.js")),
    ("table.js", include_str!("viewer/js/table.js")),
    ("moments.js", include_str!("viewer/js/moments.js")),
    ("strip.js", include_str!("viewer/js/strip.js")),
    ("controls.js", include_str!("viewer/js/controls.js")),
    ("mouse.js", include_str!("viewer/js/mouse.js")),
    ("keys.js", include_str!("viewer/js/keys.js")),
    ("paper.js", include_str!("viewer/js/paper.js")),
    ("app.js", include_str!("viewer/js/app.js")),
    ("start.js", include_str!("viewer/js/start.js")),
];
const STYLE: &str = include_str!("viewer/style.css");

/// The picture and the viewer in one file, a page of HTML if it is called so. `data` is in base64.
pub(super) fn into_file(output: &Path, picture: &str, title: &str, data: &str) -> String {
    if is_page(output) { into_html(picture, title, data) } else { into_svg(picture, data) }
}

/// Whether a file that is called so is to be a page of HTML.
fn is_page(output: &Path) -> bool {
    let extension = output.extension().unwrap_or_default();
    ["html", "htm"].iter().any(|name| extension.eq_ignore_ascii_case(name))
}

/// The picture with the viewer behind it.
fn into_svg(picture: &str, data: &str) -> String {
    let Some(end) = picture.rfind("</svg>") else { return picture.to_owned() };
    let (picture, rest) = picture.split_at(end);
    let script = script();
    format!(
        "{picture}<script type=\"text/plain\" id=\"profile\">\n{data}</script>\
         <script type=\"text/plain\" id=\"viewer-style\"><![CDATA[\n{STYLE}]]></script>\
         <script type=\"text/javascript\"><![CDATA[\n{script}]]></script>{rest}\n"
    )
}

/// A page of HTML with the viewer, and the picture for browsers without scripts.
fn into_html(picture: &str, title: &str, data: &str) -> String {
    let picture = picture.find("<svg").map_or("", |start| &picture[start..]);
    let title = printable(title).replace('&', "&amp;").replace('<', "&lt;");
    let script = script();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n</head>\n<body>\n{picture}\n\
         <script type=\"text/plain\" id=\"profile\">\n{data}</script>\n\
         <script type=\"text/plain\" id=\"viewer-style\">\n{STYLE}</script>\n<script>\n{script}</script>\n\
         </body>\n</html>\n"
    )
}

/// All modules as one script.
pub fn script() -> String {
    let mut script = String::from("(() => {\n\"use strict\";\n");
    for (name, text) in MODULES {
        script.push_str(&format!("\n// ---- {name}\n"));
        for line in text.lines().filter(|line| !line.starts_with("import ")) {
            script.push_str(line.strip_prefix("export ").unwrap_or(line));
            script.push('\n');
        }
    }
    script + "})();\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_ends_neither_its_element_nor_its_section() {
        for text in [&script(), STYLE] {
            for end in ["</script", "]]>", "<!--"] {
                assert!(!text.to_lowercase().contains(end), "{end} is in it");
            }
        }
        assert!(!script().contains("import ") && !script().contains("export "));
    }

    #[test]
    fn a_name_says_whether_it_is_a_page() {
        let is_page = |name: &str| is_page(Path::new(name));
        assert!(is_page("a.html") && is_page("a.htm") && is_page("d/A.HTM"));
        assert!(!is_page("a.svg") && !is_page("html") && !is_page("-") && !is_page("a.html.svg"));
    }

    #[test]
    fn every_name_is_declared_once() {
        let script = script();
        let mut names = std::collections::HashSet::new();
        for line in script.lines() {
            let line = line.strip_prefix("async ").unwrap_or(line);
            let words = ["function ", "class ", "const ", "let "];
            let Some(rest) = words.iter().find_map(|word| line.strip_prefix(word)) else { continue };
            let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            assert!(names.insert(name), "two modules declare {name}");
        }
        assert!(names.len() > 100, "{} names", names.len());
    }

    #[test]
    fn every_module_follows_what_it_imports() {
        for (at, (name, text)) in MODULES.iter().enumerate() {
            for line in text.lines().filter(|line| line.starts_with("import ")) {
                let from = line.split("\"./").nth(1).and_then(|rest| rest.strip_suffix("\";")).unwrap();
                assert!(MODULES[..at].iter().any(|(known, _)| *known == from), "{name} needs {from}");
            }
        }
    }
}
