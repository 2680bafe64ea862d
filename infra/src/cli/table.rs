//! Answers as a table for people, as JSON, or as CSV.

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use projections::{Answer, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Csv,
}

/// Renders an answer.
///
/// # Errors
/// When CSV cannot be written, which it can.
pub fn render(answer: &Answer, format: Format) -> anyhow::Result<String> {
    match format {
        Format::Table => Ok(table(answer)),
        Format::Json => {
            let rows: Vec<serde_json::Value> = answer
                .rows
                .iter()
                .map(|row| {
                    let fields = answer
                        .columns
                        .iter()
                        .zip(row)
                        .map(|(name, value)| ((*name).to_owned(), value.to_json()));
                    serde_json::Value::Object(fields.collect())
                })
                .collect();
            Ok(serde_json::to_string_pretty(&rows)?)
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&answer.columns)?;
            for row in &answer.rows {
                writer.write_record(row.iter().map(Value::to_text))?;
            }
            Ok(String::from_utf8(writer.into_inner()?)?.trim_end().to_owned())
        }
    }
}

fn table(answer: &Answer) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(&answer.columns);
    for row in &answer.rows {
        table.add_row(row.iter().map(Value::to_text));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if answer
            .rows
            .iter()
            .any(|row| matches!(row.get(index), Some(Value::Int(_))))
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}
