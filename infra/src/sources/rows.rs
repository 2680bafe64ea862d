//! CSV files, read a line at a time.
//!
//! A row is one line of the file: tills and service desks write no line breaks into a field, and so a quote that is never closed
//! spoils its own line and not the rest of the file.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use csv::{ReaderBuilder, StringRecord};

use super::{BadLine, Progress};
use crate::lines::next_line;

/// More than this is no row but a file that lost its line ends.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// A line of a file, as columns.
#[derive(Debug)]
pub struct Row {
    /// From 1; the header is line 1.
    pub line: u64,
    pub columns: StringRecord,
}

/// The rows of a file below its header.
pub struct Rows {
    file: Arc<str>,
    input: BufReader<File>,
    line: u64,
    /// What the header must be, and so how many columns a row has.
    header: &'static [&'static str],
    progress: Arc<Progress>,
    finished: bool,
}

impl Rows {
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, header: &'static [&'static str], progress: Arc<Progress>) -> Result<Rows, std::io::Error> {
        let input = BufReader::with_capacity(256 * 1024, File::open(path)?);
        progress.add_file();
        Ok(Rows {
            file: file_name(path),
            input,
            line: 0,
            header,
            progress,
            finished: false,
        })
    }

    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// The bad line that a row of this file is.
    pub fn bad(&self, line: u64, reason: impl Into<String>) -> BadLine {
        BadLine {
            file: self.file.clone(),
            line,
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
                        None => return Some(Err(self.bad(self.line, format!("longer than {LINE_BYTES_MAX} bytes")))),
                        Some(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => {}
                        Some(bytes) => return Some(Ok(bytes)),
                    }
                }
                Err(error) => {
                    self.finished = true;
                    let reason = format!("the file cannot be read on from here: {}", error.kind());
                    return Some(Err(self.bad(self.line, reason)));
                }
            }
        }
    }

    fn columns(&self, bytes: &[u8]) -> Result<StringRecord, BadLine> {
        let text = std::str::from_utf8(bytes).map_err(|_| self.bad(self.line, "not UTF-8"))?;
        if text.contains('\0') {
            return Err(self.bad(self.line, "it has the character NUL"));
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
            Ok(false) | Err(_) => Err(self.bad(self.line, "no comma-separated columns")),
        }
    }

    fn check_header(&mut self) -> Result<(), BadLine> {
        let Some(bytes) = self.next_line() else {
            self.finished = true;
            return Err(self.bad(0, "the file is empty"));
        };
        let columns = bytes.and_then(|bytes| self.columns(&bytes));
        if columns.is_ok_and(|columns| columns.iter().eq(self.header.iter().copied())) {
            return Ok(());
        }
        self.finished = true;
        let reason = format!(
            "the file is left out: its header is not {},… ({} columns)",
            self.header[0],
            self.header.len()
        );
        Err(self.bad(self.line, reason))
    }
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
        let expected = self.header.len();
        Some(self.columns(&bytes).and_then(|columns| {
            if columns.len() == expected {
                Ok(Row {
                    line: self.line,
                    columns,
                })
            } else {
                let reason = format!("{} columns instead of {expected}", columns.len());
                Err(self.bad(self.line, reason))
            }
        }))
    }
}

/// The name under which a file is reported.
pub fn file_name(path: &Path) -> Arc<str> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into()
}
