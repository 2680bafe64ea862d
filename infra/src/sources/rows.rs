//! CSV files, read a line at a time.
//!
//! A row is one line of the file: tills and service desks write no line breaks into a field, and so a quote that is never closed
//! spoils its own line and not the rest of the file.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use csv::{ReaderBuilder, StringRecord};

use super::{BadLine, Column, Progress, What};
use crate::lines::next_line;

/// More than this is no row but a file that lost its line ends.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// A line of a file, as columns.
#[derive(Debug)]
pub struct Row {
    /// From 1; the header is line 1.
    pub line: u64,
    columns: StringRecord,
    /// Where each column that the source asked for stands.
    places: Arc<[usize]>,
}

impl Row {
    /// What the row says in each column that the source asked for, in the source's order, without blanks around it.
    pub fn columns<const N: usize>(&self) -> [&str; N] {
        std::array::from_fn(|column| self.columns[self.places[column]].trim())
    }

    #[cfg(test)]
    pub fn of(line: u64, columns: &[&str]) -> Row {
        Row {
            line,
            columns: columns.to_vec().into(),
            places: (0..columns.len()).collect(),
        }
    }
}

/// The rows of a file below its header.
pub struct Rows {
    file: Arc<str>,
    input: BufReader<File>,
    line: u64,
    /// The columns that the source asked for. The first one says which document a row belongs to.
    wanted: &'static [Column],
    places: Arc<[usize]>,
    /// How many columns the file has.
    width: usize,
    progress: Arc<Progress>,
    finished: bool,
}

impl Rows {
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, wanted: &'static [Column], progress: Arc<Progress>) -> Result<Rows, std::io::Error> {
        let input = BufReader::with_capacity(256 * 1024, File::open(path)?);
        progress.add_file();
        Ok(Rows {
            file: file_name(path),
            input,
            line: 0,
            wanted,
            places: Arc::from([]),
            width: 0,
            progress,
            finished: false,
        })
    }

    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// The bad line that a row of this file is.
    pub fn bad(&self, line: u64, document: Option<&str>, reason: impl Into<String>) -> BadLine {
        BadLine {
            file: self.file.clone(),
            line,
            document: document.map(Arc::from),
            what: What::NoSense,
            reason: reason.into(),
        }
    }

    /// The next line that is not blank; `None` at the end.
    fn next_line(&mut self) -> Option<Result<Vec<u8>, BadLine>> {
        loop {
            self.line += 1;
            match next_line(&mut self.input, LINE_BYTES_MAX) {
                Ok(None) => return None,
                Ok(Some(line)) => {
                    self.progress.add_bytes(line.read);
                    match line.text {
                        None => {
                            let reason = format!("longer than {LINE_BYTES_MAX} bytes");
                            return Some(Err(self.bad(self.line, None, reason)));
                        }
                        Some(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => {}
                        Some(bytes) => return Some(Ok(bytes)),
                    }
                }
                Err(error) => {
                    self.finished = true;
                    let reason = format!("the file cannot be read on from here: {}", error.kind());
                    return Some(Err(self.bad(self.line, None, reason)));
                }
            }
        }
    }

    fn columns(&self, bytes: &[u8]) -> Result<StringRecord, &'static str> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
        if text.contains('\0') {
            return Err("it has the character NUL");
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if !text.contains('"') {
            // Nearly all lines; building a parser for each takes far longer than this.
            let line = text.trim_end_matches(['\r', '\n']);
            return Ok(line.split(',').collect());
        }
        let mut columns = StringRecord::new();
        let mut parser = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(text.len())
            .from_reader(text.as_bytes());
        match parser.read_record(&mut columns) {
            Ok(true) => Ok(columns),
            Ok(false) | Err(_) => Err("no comma-separated columns"),
        }
    }

    /// What a line that is no row says in the document's column, as far as that can be read.
    fn document(&self, bytes: &[u8]) -> Option<String> {
        let place = *self.places.first()?;
        let text = String::from_utf8_lossy(bytes);
        let document = text.split(',').nth(place)?.trim().trim_matches('"').trim();
        (!document.is_empty()).then(|| document.to_owned())
    }

    fn check_header(&mut self) -> Result<(), BadLine> {
        let Some(bytes) = self.next_line() else {
            self.finished = true;
            return Err(self.bad(0, None, "the file is empty"));
        };
        let header = bytes.and_then(|bytes| {
            let columns = self.columns(&bytes);
            columns.map_err(|reason| self.bad(self.line, None, reason))
        });
        let places = header.and_then(|header| {
            self.width = header.len();
            let places = places(&header, self.wanted);
            places.map_err(|reason| self.bad(self.line, None, format!("the file is left out: {reason}")))
        });
        self.finished = places.is_err();
        self.places = places?.into();
        Ok(())
    }
}

/// Where each wanted column stands in the header. Columns are found by name, whatever their order; further ones are nobody's business.
fn places(header: &StringRecord, wanted: &[Column]) -> Result<Vec<usize>, String> {
    let plain = |name: &str| name.trim().to_lowercase();
    let names: Vec<String> = header.iter().map(plain).collect();
    let mut taken = vec![false; names.len()];
    let mut places = Vec::new();
    let mut missing = Vec::new();
    for column in wanted {
        let known = std::iter::once(&column.name).chain(column.also);
        let place = known
            .map(|name| plain(name))
            .find_map(|name| (0..names.len()).find(|place| !taken[*place] && names[*place] == name));
        match place {
            Some(place) => {
                taken[place] = true;
                places.push(place);
            }
            None => missing.push(column.name),
        }
    }
    if !missing.is_empty() {
        return Err(format!("its header has no column {}", missing.join(", ")));
    }
    for column in wanted {
        if names
            .iter()
            .zip(&taken)
            .any(|(name, taken)| !taken && *name == plain(column.name))
        {
            return Err(format!("its header has the column {} twice", column.name));
        }
    }
    Ok(places)
}

impl Iterator for Rows {
    type Item = Result<Row, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        if self.line == 0
            && let Err(bad) = self.check_header()
        {
            return Some(Err(bad));
        }
        let bytes = match self.next_line()? {
            Ok(bytes) => bytes,
            Err(bad) => {
                self.progress.add_row();
                return Some(Err(bad));
            }
        };
        self.progress.add_row();
        let columns = self.columns(&bytes).map_err(str::to_owned);
        let columns = columns.and_then(|columns| match columns.len() == self.width {
            true => Ok(columns),
            false => Err(format!("{} columns instead of {}", columns.len(), self.width)),
        });
        Some(match columns {
            Ok(columns) => Ok(Row {
                line: self.line,
                columns,
                places: self.places.clone(),
            }),
            Err(reason) => Err(self.bad(self.line, self.document(&bytes).as_deref(), reason)),
        })
    }
}

/// The name under which a file is reported.
pub fn file_name(path: &Path) -> Arc<str> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into()
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_a_missing_one_is_named() {
        const WANTED: &[Column] = &[
            Column::new("number", "which"),
            Column::new("category", "what"),
            Column::new("subcategory", "what in it").or(&["category"]),
        ];
        let found = |header: &str| places(&header.split(',').collect(), WANTED);
        assert_eq!(found("number,category,subcategory"), Ok(vec![0, 1, 2]));
        assert_eq!(found("SubCategory, x ,Number , category"), Ok(vec![2, 3, 0]));
        assert_eq!(found("number,category,category"), Ok(vec![0, 1, 2]));
        let refused = |header, why: &str| assert_eq!(found(header), Err(why.to_owned()), "{header}");
        refused("number,category", "its header has no column subcategory");
        refused("a,b", "its header has no column number, category, subcategory");
        refused(
            "number,category,number,subcategory",
            "its header has the column number twice",
        );
    }
}
