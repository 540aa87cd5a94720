//! Statistics as comma-separated values (RFC 4180), one program a line, with a header.

use super::{Program, Statistics, table};

const HEADER: &str = "id,type,name,tag,owners,pins,attach,run_count,run_time_ns,average_ns,percent_of_one_cpu,\
percent_of_machine,total_run_count,total_run_time_ns,recursion_misses,link_misses,map_ids,map_memory_bytes,\
shared_maps,program_memory_bytes,jit_bytes,loaded_at,own,loaded_in_window,unloaded_in_window,window_ns,containers";

/// The lines; the header if it is wanted. What a program has several of is separated by `; `.
pub fn print(statistics: &Statistics, shown: &[&Program], with_header: bool) -> String {
    let mut text = if with_header { format!("{HEADER}\n") } else { String::new() };
    for program in shown {
        let maps: Vec<String> = program.map_ids.iter().map(u32::to_string).collect();
        let owners: Vec<String> = program.owners.iter().map(ToString::to_string).collect();
        let containers: Vec<String> = program.containers.iter().map(ToString::to_string).collect();
        let fields = [
            program.id.to_string(),
            quoted(&program.kind),
            quoted(&program.name),
            program.tag.clone(),
            quoted(&owners.join("; ")),
            quoted(&program.pins.join("; ")),
            quoted(&program.attach.join("; ")),
            program.run_count.to_string(),
            program.run_time_ns.to_string(),
            program.average_ns().map(|ns| format!("{ns:.1}")).unwrap_or_default(),
            format!("{:.4}", statistics.percent_of_one_cpu(program.run_time_ns)),
            format!("{:.4}", statistics.percent_of_machine(program.run_time_ns)),
            program.total_run_count.to_string(),
            program.total_run_time_ns.to_string(),
            program.recursion_misses.to_string(),
            program.link_misses.to_string(),
            maps.join("; "),
            program.map_memory_bytes.to_string(),
            program.shared_maps.to_string(),
            program.memory_bytes.to_string(),
            program.jit_bytes.to_string(),
            table::utc(program.loaded_at_ns),
            program.ours.to_string(),
            program.loaded.to_string(),
            program.unloaded.to_string(),
            statistics.window_ns.to_string(),
            quoted(&containers.join("; ")),
        ];
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

/// A field that may hold separators, in quotes if it does.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_separators_are_quoted() {
        assert_eq!(quoted("kprobe a"), "kprobe a");
        assert_eq!(quoted("kprobe a, b"), "\"kprobe a, b\"");
        assert_eq!(quoted("a \"b\""), "\"a \"\"b\"\"\"");
    }

    #[test]
    fn lines_have_the_fields_of_the_header() {
        let program = Program { name: "x".to_owned(), ..Program::default() };
        let text = print(&Statistics::default(), &[&program], true);
        let fields: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(fields, [27, 27]);
    }
}
