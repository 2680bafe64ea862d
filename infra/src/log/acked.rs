//! How many records a SQLite log had when it last acked some, `<folder>/log.acked`.
//!
//! A transaction that stands last in the write-ahead file and is harmed there cannot be told from one that a power cut tore, and SQLite
//! forgets it without a word. So the writer notes beside the log what it has made durable, before it says so to anybody. The note itself is
//! not made durable: it costs no fsync, outlives the process, and after a power cut may be older than the log, never newer.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::files;

pub const FILE: &str = "log.acked";

/// The note as the log's one writer has it.
pub struct Acked {
    path: PathBuf,
    file: File,
    is_noted: bool,
}

impl Acked {
    /// Nothing is noted before the first [`note`](Acked::note).
    ///
    /// # Errors
    /// When the file can be neither opened nor made.
    pub fn open(folder: &Path) -> io::Result<Acked> {
        let path = folder.join(FILE);
        let file = files::open_file(&path)?;
        Ok(Acked {
            path,
            file,
            is_noted: true,
        })
    }

    /// From now on a log with fewer records has lost some. Those that are noted must be durable.
    ///
    /// A note that cannot be written is no reason to hold back an ack, which rests on the log alone; it is said once.
    pub fn note(&mut self, records: u64) {
        let noted = self
            .file
            .rewind()
            .and_then(|()| self.file.write_all(&with_checksum(records)));
        match noted {
            Ok(()) => self.is_noted = true,
            Err(error) if self.is_noted => {
                tracing::warn!("{}: {error}", self.path.display());
                self.is_noted = false;
            }
            Err(_) => {}
        }
    }
}

/// How many records the log must have. `None` when nothing was noted, or the note is not whole.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn noted_in(folder: &Path) -> io::Result<Option<u64>> {
    let mut file = match File::open(folder.join(FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut note = vec![];
    file.read_to_end(&mut note)?;
    let records = note.first_chunk().map(|records| u64::from_be_bytes(*records));
    Ok(records.filter(|records| note == with_checksum(*records)))
}

fn with_checksum(records: u64) -> [u8; 16] {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let checksum = !records.wrapping_mul(GOLDEN);
    let mut note = [0; 16];
    note[..8].copy_from_slice(&records.to_be_bytes());
    note[8..].copy_from_slice(&checksum.to_be_bytes());
    note
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn the_last_note_is_read_and_one_that_is_not_whole_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let noted = || noted_in(folder.path()).unwrap();
        assert_eq!(noted(), None);
        let mut acked = Acked::open(folder.path()).unwrap();
        assert_eq!(noted(), None);
        for records in [0, 7, u64::MAX, 300] {
            acked.note(records);
            assert_eq!(noted(), Some(records));
        }
        drop(Acked::open(folder.path()).unwrap());
        assert_eq!(noted(), Some(300));

        let file = folder.path().join(FILE);
        let whole = std::fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&file, flipped).unwrap();
            assert_eq!(noted(), None);
            std::fs::write(&file, &whole[..at]).unwrap();
            assert_eq!(noted(), None);
        }
    }
}
