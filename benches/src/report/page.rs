//! The pages of one release: everything of its JSON file, for people.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{svg, table};

/// Names and texts of the files that belong beside `results`: `README.md` and
/// its drawings. The same JSON gives the same bytes.
pub fn pages(results: &Value) -> Vec<(String, String)> {
    let version = results["version"].as_str().unwrap_or("?");
    let mut page = format!(
        "# Measured: gmesp {version}\n\nDrawn from [results.json](results.json) by \
         `cargo bench -p gm-benches --bench report`.\n\nFigures are medians; ± is the distance of \
         the quartiles over the median. What is compared took turns in one run.\n\n## Machine\n\n"
    );
    page += &table::markdown(&results["machine"]);
    let mut files = vec![];
    for (name, value) in results.as_object().into_iter().flatten() {
        match name.as_str() {
            "version" | "machine" => {}
            "ratios" => add(&mut page, &mut files, name, &ratios(value)),
            _ => add(&mut page, &mut files, name, value),
        }
    }
    files.insert(0, ("README.md".to_owned(), page));
    files
}

/// A section of the page, with its drawings.
fn add(page: &mut String, files: &mut Vec<(String, String)>, name: &str, value: &Value) {
    let _ = write!(page, "\n## {}\n", name.replace('_', " "));
    let tables = value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice);
    for (i, table) in tables.iter().enumerate() {
        let _ = write!(page, "\n{}", table::markdown(table));
        if let Some(drawing) = svg::draw(table) {
            let file = match i {
                0 => format!("{name}.svg"),
                _ => format!("{name}-{}.svg", i + 1),
            };
            let title = table["title"].as_str().unwrap_or(name);
            let _ = write!(page, "\n![{title}]({file})\n");
            files.push((file, drawing));
        }
    }
}

/// The flat list of ratios as tables: one per suite and direction, lengths down,
/// peers across.
pub(super) fn ratios(list: &Value) -> Value {
    let rows = || list.as_array().into_iter().flatten();
    let distinct = |key: &dyn Fn(&Value) -> Value| {
        let mut seen: Vec<Value> = vec![];
        for row in rows() {
            let value = key(row);
            if !seen.contains(&value) {
                seen.push(value);
            }
        }
        seen
    };
    let peers = distinct(&|row| row["peer"].clone());
    let mut tables = vec![];
    for group in distinct(&|row| json!([row["suite"], row["op"]])) {
        let here = |row: &&Value| row["suite"] == group[0] && row["op"] == group[1];
        let mut lines: Vec<Value> = vec![];
        for row in rows().filter(here) {
            let at = lines.iter().position(|line| line["bytes"] == row["bytes"]);
            let at = at.unwrap_or_else(|| {
                lines.push(json!({ "bytes": row["bytes"], "gmesp ns": row["ours_ns"] }));
                lines.len() - 1
            });
            let peer = row["peer"].as_str().unwrap_or("?");
            lines[at][format!("{peer} ns")] = row["theirs_ns"].clone();
            lines[at][format!("to {peer}")] =
                json!({ "median": row["ratio"], "spread": row["spread"] });
        }
        let names = || peers.iter().filter_map(Value::as_str);
        let times: Vec<String> = std::iter::once("gmesp ns".to_owned())
            .chain(names().map(|peer| format!("{peer} ns")))
            .collect();
        let mut columns = vec!["bytes".to_owned()];
        columns.extend(times.iter().cloned());
        columns.extend(names().map(|peer| format!("to {peer}")));
        tables.push(json!({
            "title": format!("{}, {}", table::cell(&group[0]), table::cell(&group[1])),
            "columns": columns,
            "rows": lines,
            "plot": { "x": "bytes", "y": times, "unit": "ns", "log_x": false },
        }));
    }
    tables.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_machine_every_section_and_its_drawings() {
        let row = |peer: &str, bytes: u32, ratio: f64| {
            json!({
                "peer": peer, "suite": "aes-gcm", "op": "seal", "bytes": bytes,
                "ratio": ratio, "spread": 0.02, "ours_ns": 17.0, "theirs_ns": 25.0,
            })
        };
        let results = json!({
            "version": "1.2.3",
            "machine": { "cpu": "A CPU" },
            "peers": { "ipsec_mb": { "geometric_mean": 0.7654, "max": 0.9 } },
            "ratios": [row("ipsec_mb", 128, 0.7), row("openssl", 128, 0.2), row("ipsec_mb", 384, 0.8)],
        });
        let pages = pages(&results);
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["README.md", "ratios.svg"]);
        let page = &pages[0].1;
        assert!(page.contains("gmesp 1.2.3") && page.contains("- cpu: A CPU"));
        assert!(page.contains("- ipsec_mb: geometric_mean 0.765, max 0.900"));
        assert!(
            page.contains("| 128 | 17.0 | 25.0 | 25.0 | 0.700 ±2 % | 0.200 ±2 % |"),
            "{page}"
        );
        assert!(
            page.contains("| 384 | 17.0 | 25.0 | - | 0.800 ±2 % | - |"),
            "{page}"
        );
    }
}
