//! Tables: built by benches, kept in JSON, read by people as Markdown.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// A section that is a table.
///
/// ```no_run
/// # use gm_benches::{report::{Plot, Table}, stats::Figure};
/// # let [cold, warm] = [Figure { median: 51.0, spread: 0.02 }; 2];
/// let table = Table::new("XDP verdict", "ns above a program that only passes")
///     .columns(&["SAs", "cold ns", "warm ns"])
///     .row([1000.into(), cold.into(), warm.into()])
///     .plot(Plot { x: "SAs", y: &["cold ns", "warm ns"], unit: "ns", log_x: true });
/// gm_benches::report::section("xdp", table);
/// ```
pub struct Table {
    title: String,
    note: String,
    columns: Vec<String>,
    rows: Vec<Value>,
    plot: Value,
}

/// How a table's plot is drawn: lines where `x` is a column of numbers, bars
/// where it is one of names.
pub struct Plot<'a> {
    /// The column along the horizontal axis.
    pub x: &'a str,
    /// Columns of values or figures, a line or a colour each.
    pub y: &'a [&'a str],
    /// What the vertical axis counts, for instance `ns`.
    pub unit: &'a str,
    /// A logarithmic horizontal axis.
    pub log_x: bool,
}

impl Table {
    /// Without rows. The note says what is measured, in what unit, against what.
    pub fn new(title: &str, note: &str) -> Table {
        Table {
            title: title.to_owned(),
            note: note.to_owned(),
            columns: vec![],
            rows: vec![],
            plot: Value::Null,
        }
    }

    /// The names of the columns, in their order; before any row.
    #[must_use]
    pub fn columns(mut self, names: &[&str]) -> Table {
        self.columns = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// A row: texts, numbers, [`Figure`](crate::stats::Figure)s.
    ///
    /// # Panics
    /// When it has not as many values as there are columns.
    #[must_use]
    pub fn row<const N: usize>(mut self, values: [Value; N]) -> Table {
        assert_eq!(N, self.columns.len(), "a value for each column");
        let row: Map<String, Value> = self.columns.iter().cloned().zip(values).collect();
        self.rows.push(row.into());
        self
    }

    /// Draws a plot below the table.
    #[must_use]
    pub fn plot(mut self, plot: Plot<'_>) -> Table {
        self.plot = json!({ "x": plot.x, "y": plot.y, "unit": plot.unit, "log_x": plot.log_x });
        self
    }
}

impl From<Table> for Value {
    fn from(table: Table) -> Value {
        let mut value = json!({
            "title": table.title, "note": table.note,
            "columns": table.columns, "rows": table.rows,
        });
        if !table.plot.is_null() {
            value["plot"] = table.plot;
        }
        value
    }
}

/// A section's value for people: a table, several, or names and values.
pub(super) fn markdown(value: &Value) -> String {
    if let Some(tables) = value.as_array() {
        let each: Vec<String> = tables.iter().map(markdown).collect();
        return each.join("\n");
    }
    match (value["rows"].as_array(), value["columns"].as_array()) {
        (Some(rows), Some(columns)) => {
            let mut text = String::new();
            for (mark, part) in [("### ", &value["title"]), ("", &value["note"])] {
                if let Some(part) = part.as_str().filter(|part| !part.is_empty()) {
                    let _ = write!(text, "{mark}{part}\n\n");
                }
            }
            let columns: Vec<&str> = columns.iter().filter_map(Value::as_str).collect();
            text + &grid(&columns, rows)
        }
        _ => {
            let mut text = String::new();
            for (name, value) in value.as_object().into_iter().flatten() {
                let _ = writeln!(text, "- {name}: {}", cell(value));
            }
            text
        }
    }
}

/// Rows that are objects, under their columns.
pub(super) fn grid(columns: &[&str], rows: &[Value]) -> String {
    let mut text = format!(
        "| {} |\n|{}\n",
        columns.join(" | "),
        "---|".repeat(columns.len())
    );
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|column| cell(&row[*column])).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// `12.3 ±4 %` for a figure.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) if !number.is_f64() => number.to_string(),
        Value::Number(number) => short(number.as_f64().unwrap_or(f64::NAN)),
        Value::Object(map) => match (map.get("median"), map.get("spread")) {
            (Some(median), Some(spread)) => {
                let spread = spread.as_f64().unwrap_or(f64::NAN) * 100.0;
                format!("{} ±{spread:.0} %", cell(median))
            }
            _ => {
                let one = |(name, value): (&String, &Value)| format!("{name} {}", cell(value));
                map.iter().map(one).collect::<Vec<_>>().join(", ")
            }
        },
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Bool(yes) => (if *yes { "yes" } else { "no" }).into(),
    }
}

/// Three digits, or all before the point.
pub(super) fn short(value: f64) -> String {
    let places = match value.abs() {
        0.0..0.9995 => 3,
        0.9995..9.995 => 2,
        9.995..99.95 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

/// What a plot needs of a value: itself, or a figure's median.
pub(super) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value["median"].as_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Figure;

    #[test]
    fn a_table_is_read_in_the_order_of_its_columns() {
        let figure = Figure {
            median: 51.26,
            spread: 0.0249,
        };
        let table = Table::new("Title", "Note.")
            .columns(&["what", "a figure"])
            .row(["x".into(), figure.into()]);
        let text = markdown(&table.into());
        let wanted = "### Title\n\nNote.\n\n| what | a figure |\n|---|---|\n| x | 51.3 ±2 % |\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_number_has_as_many_places_as_it_means() {
        for (value, text) in [
            (0.8412, "0.841"),
            (1.0, "1.00"),
            (12.34, "12.3"),
            (4567.8, "4568"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
