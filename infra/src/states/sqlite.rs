//! Stored states in the SQLite file of the read models.

use std::sync::LazyLock;

use async_trait::async_trait;
use domain::StreamRef;
use jiff::Timestamp;
use projections::{ColumnType, Value};
use rusqlite::params_from_iter;
use services::states::{Held, Loaded, SavedCommand, SavedState, StateError, StateStore, Watermark};
use uuid::Uuid;

use super::{COMMAND_COLUMNS, FORGOTTEN_AT_ONCE, STATEMENTS, STREAM_COLUMNS, StateTables, WatermarkRow};
use crate::views::SqliteViews;
use crate::views::sql::Dialect::Sqlite;
use crate::views::sqlite::{Cell, execute, find, put, query};

static TABLES: LazyLock<StateTables> = LazyLock::new(|| StateTables::of(Sqlite));

impl SqliteViews {
    async fn watermark_row(&self, shard: u16, log_id: Uuid) -> Result<Option<WatermarkRow>, StateError> {
        let rows =
            self.read(move |transaction| find(transaction, &TABLES.watermarks, &[vec![Value::Int(i64::from(shard))]]));
        super::looked_up(rows.await?, log_id)
    }

    /// What a statement answers that lists what is stored of the shard.
    async fn list<const N: usize>(
        &self,
        shard: u16,
        held: Held,
        statement: &'static str,
        values: [Value; N],
        columns: &'static [ColumnType],
    ) -> Result<Vec<Vec<Value>>, StateError> {
        let found = self.read(move |transaction| {
            let listed = query(transaction, statement, cells(&values), columns)?;
            let watermark = find(transaction, &TABLES.watermarks, &[vec![Value::Int(i64::from(shard))]])?;
            Ok((listed, watermark))
        });
        let (listed, watermark) = found.await?;
        super::check_held(watermark, held)?;
        Ok(listed)
    }
}

#[async_trait]
impl StateStore for SqliteViews {
    async fn watermark(&self, shard: u16, log_id: Uuid) -> Result<Option<Watermark>, StateError> {
        let row = self.watermark_row(shard, log_id).await?;
        Ok(row.as_ref().and_then(super::progress))
    }

    async fn owner(&self, shard: u16, log_id: Uuid) -> Result<Option<String>, StateError> {
        let row = self.watermark_row(shard, log_id).await?;
        Ok(row.map(|row| row.owner_address))
    }

    async fn claim(
        &self,
        shard: u16,
        log_id: Uuid,
        epoch: u64,
        address: &str,
    ) -> Result<Option<Watermark>, StateError> {
        let begin = super::begin_values(shard, log_id, epoch, address);
        let take_over = super::take_over_values(shard, log_id, epoch, address);
        let row = self.write(move |transaction| {
            execute(&transaction, &STATEMENTS.begin, cells(&begin))?;
            execute(&transaction, &STATEMENTS.take_over, cells(&take_over))?;
            let mut rows = find(&transaction, &TABLES.watermarks, &[vec![Value::Int(i64::from(shard))]])?;
            transaction.commit()?;
            Ok(rows.remove(0))
        });
        super::claimed(row.await?, log_id, epoch)
    }

    async fn peer_secret(&self, proposed: &str) -> Result<String, StateError> {
        let kept = self.read(|transaction| Ok(transaction.query_row(super::READ_SECRET, [], |row| row.get(0))?));
        if let Ok(kept) = kept.await {
            return Ok(kept);
        }
        let proposed = proposed.to_owned();
        let found = self.write(move |transaction| {
            execute(&transaction, super::PROPOSE_SECRET, [proposed])?;
            let found = transaction.query_row(super::READ_SECRET, [], |row| row.get(0))?;
            transaction.commit()?;
            Ok(found)
        });
        Ok(found.await?)
    }

    async fn load(
        &self,
        shard: u16,
        held: Held,
        streams: &[StreamRef],
        commands: &[Uuid],
    ) -> Result<Loaded, StateError> {
        let (streams, commands) = (super::state_keys(shard, streams), super::command_keys(shard, commands));
        let found = self.read(move |transaction| {
            let states = find(transaction, &TABLES.states, &streams)?;
            let commands = find(transaction, &TABLES.commands, &commands)?;
            let watermark = find(transaction, &TABLES.watermarks, &[vec![Value::Int(i64::from(shard))]])?;
            Ok((states, commands, watermark))
        });
        let (states, commands, watermark) = found.await?;
        super::check_held(watermark, held)?;
        super::loaded(states, commands)
    }

    async fn streams(
        &self,
        shard: u16,
        held: Held,
        after: Option<StreamRef>,
        max: usize,
    ) -> Result<Vec<StreamRef>, StateError> {
        let values = super::streams_values(shard, after, max);
        let rows = self.list(shard, held, &STATEMENTS.streams, values, &STREAM_COLUMNS);
        super::listed_streams(rows.await?)
    }

    async fn derived_commands(
        &self,
        shard: u16,
        held: Held,
        after: Option<Uuid>,
        max: usize,
    ) -> Result<Vec<Uuid>, StateError> {
        let values = super::commands_values(shard, after, max);
        let rows = self.list(shard, held, &STATEMENTS.derived_commands, values, &COMMAND_COLUMNS);
        super::listed_commands(rows.await?)
    }

    async fn save(
        &self,
        held: Held,
        watermark: &Watermark,
        states: &[SavedState],
        commands: &[SavedCommand],
    ) -> Result<(), StateError> {
        let advance = super::advance_values(held, watermark);
        let (states, commands) = (
            super::state_rows(watermark.shard, states),
            super::command_rows(watermark.shard, commands),
        );
        let saved = self.write(move |transaction| {
            if execute(&transaction, &STATEMENTS.advance, cells(&advance))? == 0 {
                return Ok(false);
            }
            put(&transaction, &TABLES.states, &states)?;
            put(&transaction, &TABLES.commands, &commands)?;
            transaction.commit()?;
            Ok(true)
        });
        match saved.await? {
            true => Ok(()),
            false => Err(StateError::Fenced),
        }
    }

    async fn forget_commands(&self, before: Timestamp) -> Result<u64, StateError> {
        let mut forgotten = 0;
        loop {
            let some = self.write(move |transaction| {
                let count = execute(&transaction, &STATEMENTS.forget, cells(&[Value::Time(before)]))?;
                transaction.commit()?;
                Ok(count as u64)
            });
            let some = some.await?;
            forgotten += some;
            if some < FORGOTTEN_AT_ONCE {
                return Ok(forgotten);
            }
        }
    }
}

fn cells(values: &[Value]) -> impl rusqlite::Params + '_ {
    params_from_iter(values.iter().map(Cell))
}
