//! The backends of the log's port, one file each. `tests/tests/log_contract.rs` binds the same suite to all of them.

mod acked;
pub mod kafka;
pub mod postgres;
mod row;
pub mod sqlite;
mod wal;

use services::log::{AppendError, Record};

/// The largest record that every log takes, by [`Record::size`]. It is Kafka's limit for one batch (1 MiB) less what goes
/// around a record; the databases could hold more, but a log must be able to move from one backend to the other.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024 - 16 * 1024;

/// What one append may hold, in every log. A commit is far smaller; this is what Kafka's producer has room for.
pub const APPEND_RECORDS_MAX: usize = 100_000;
/// The same in bytes, by [`Record::size`].
pub const APPEND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Looks at all records before the first one is sent.
fn refuse_oversized(records: &[Record]) -> Result<(), AppendError> {
    let mut bytes = 0;
    for (i, record) in records.iter().enumerate() {
        let size = record.size();
        bytes += size;
        if size > RECORD_BYTES_MAX {
            let why = format!("record {i} has {size} bytes, and at most {RECORD_BYTES_MAX} are allowed");
            return Err(AppendError::Refused(why));
        }
    }
    if records.len() > APPEND_RECORDS_MAX || bytes > APPEND_BYTES_MAX {
        return Err(AppendError::Refused(format!(
            "{} records with {bytes} bytes at once; at most {APPEND_RECORDS_MAX} with {APPEND_BYTES_MAX} are allowed",
            records.len()
        )));
    }
    Ok(())
}
