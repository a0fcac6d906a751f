//! A plot of one table: lines over numbers, bars over names.

use std::fmt::Write;

use serde_json::Value;

use super::table::{number, short};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 56.0;
/// Colours that differ for most eyes, in light and dark.
const COLOURS: [&str; 7] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#888888",
];

/// The drawing of a table that has a plot; `None` where there is nothing to draw.
pub(super) fn draw(table: &Value) -> Option<String> {
    let plot = table.get("plot")?;
    let rows = table["rows"].as_array()?;
    let x = plot["x"].as_str()?;
    let series: Vec<&str> = plot["y"]
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let values = || {
        rows.iter()
            .flat_map(|row| series.iter().filter_map(|name| number(&row[*name])))
    };
    let top = values().fold(0.0, f64::max);
    if top <= 0.0 || rows.is_empty() {
        return None;
    }
    let step = step(top);
    let top = (top / step).ceil() * step;
    let mut svg = frame(table["title"].as_str().unwrap_or_default());
    grid(
        &mut svg,
        plot["unit"].as_str().unwrap_or_default(),
        step,
        top,
    );
    legend(&mut svg, &series);
    text(
        &mut svg,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0,
        "middle",
        x,
    );
    if rows.iter().all(|row| row[x].is_number()) {
        lines(&mut svg, rows, x, &series, top, plot["log_x"] == true);
    } else {
        bars(&mut svg, rows, x, &series, top);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// A step of 1, 2 or 5 times a power of ten that goes four to ten times into `top`.
fn step(top: f64) -> f64 {
    let unit = 10f64.powf((top / 4.0).log10().floor());
    let fit = [5.0, 2.0]
        .into_iter()
        .find(|times| unit * times * 4.0 <= top);
    unit * fit.unwrap_or(1.0)
}

fn y_at(value: f64, top: f64) -> f64 {
    HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)
}

fn frame(title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, LEFT, 20.0, "start", title);
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222222\">{words}</text>"
    );
}

fn grid(svg: &mut String, unit: &str, step: f64, top: f64) {
    let mut value = 0.0;
    while value <= top * 1.0001 {
        let y = y_at(value, top);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>",
            WIDTH - RIGHT
        );
        let label = if step >= 1.0 {
            format!("{value:.0}")
        } else {
            short(value)
        };
        text(svg, LEFT - 6.0, y + 4.0, "end", &label);
        value += step;
    }
    text(svg, LEFT - 6.0, TOP - 12.0, "end", unit);
}

fn legend(svg: &mut String, series: &[&str]) {
    let mut x = LEFT;
    for (name, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{colour}\"/>"
        );
        text(svg, x + 14.0, 39.0, "start", name);
        x += 34.0 + 6.6 * name.chars().count() as f64;
    }
}

fn lines(svg: &mut String, rows: &[Value], x: &str, series: &[&str], top: f64, log: bool) {
    let scale = |value: f64| if log { value.max(1.0).ln() } else { value };
    let xs: Vec<f64> = rows.iter().filter_map(|row| row[x].as_f64()).collect();
    let low = xs.iter().copied().fold(f64::INFINITY, f64::min);
    let high = xs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let span = (scale(high) - scale(low)).max(f64::MIN_POSITIVE);
    let x_at = |value: f64| {
        LEFT + 24.0 + (scale(value) - scale(low)) / span * (WIDTH - LEFT - RIGHT - 48.0)
    };
    let mut marked = vec![];
    for value in xs {
        if !marked.contains(&value) {
            text(
                svg,
                x_at(value),
                HEIGHT - BOTTOM + 18.0,
                "middle",
                &value.to_string(),
            );
            marked.push(value);
        }
    }
    for (name, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let places: Vec<(f64, f64)> = rows
            .iter()
            .filter_map(|row| Some((x_at(row[x].as_f64()?), y_at(number(&row[*name])?, top))))
            .collect();
        let path: Vec<String> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in places {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
    }
}

fn bars(svg: &mut String, rows: &[Value], x: &str, series: &[&str], top: f64) {
    let group = (WIDTH - LEFT - RIGHT) / rows.len() as f64;
    let width = (group * 0.8 / series.len() as f64).min(48.0);
    for (i, row) in rows.iter().enumerate() {
        let middle = LEFT + group * (i as f64 + 0.5);
        let first = middle - width * series.len() as f64 / 2.0;
        for (j, (name, colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let Some(value) = number(&row[*name]) else {
                continue;
            };
            let y = y_at(value, top);
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                first + width * j as f64,
                width - 1.0,
                HEIGHT - BOTTOM - y
            );
        }
        let label = super::table::cell(&row[x]);
        // Neighbours that would run into each other stand on two lines.
        let crowded = label.chars().count() as f64 * 6.6 > group;
        let down = if crowded && i % 2 == 1 { 30.0 } else { 16.0 };
        text(svg, middle, HEIGHT - BOTTOM + down, "middle", &label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table(x: Value) -> Value {
        json!({
            "title": "a < b", "columns": ["x", "y"],
            "rows": [{ "x": x, "y": { "median": 40.0, "spread": 0.1 } }],
            "plot": { "x": "x", "y": ["y"], "unit": "ns", "log_x": false },
        })
    }

    #[test]
    fn numbers_are_drawn_as_lines_and_names_as_bars() {
        let lines = draw(&table(json!(7))).unwrap();
        assert!(lines.contains("<polyline") && lines.contains("a &lt; b"));
        let bars = draw(&table(json!("gcm"))).unwrap();
        assert!(!bars.contains("<polyline") && bars.contains(">gcm</text>"));
    }

    #[test]
    fn a_table_without_values_is_not_drawn() {
        assert_eq!(
            draw(&json!({ "rows": [], "plot": { "x": "x", "y": ["y"] } })),
            None
        );
        assert_eq!(draw(&json!({ "rows": [{ "x": 1 }] })), None);
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(
            [step(4.0), step(9.0), step(37.0), step(1800.0)],
            [1.0, 2.0, 5.0, 200.0]
        );
    }
}
