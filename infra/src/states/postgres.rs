//! Stored states in the PostgreSQL of the read models.

use std::sync::LazyLock;

use async_trait::async_trait;
use domain::StreamRef;
use jiff::Timestamp;
use projections::{ColumnType, Value};
use services::states::{Held, Loaded, SavedCommand, SavedState, StateError, StateStore, Watermark};
use uuid::Uuid;

use super::{COMMAND_COLUMNS, FORGOTTEN_AT_ONCE, STATEMENTS, STREAM_COLUMNS, StateTables, WatermarkRow};
use crate::views::PostgresViews;
use crate::views::postgres::DURABLE;
use crate::views::sql::Dialect::Postgres;
use crate::views::statements::{Finder, Write, bounded, execute, put, query, send, settle, values_of};

static TABLES: LazyLock<StateTables> = LazyLock::new(|| StateTables::of(Postgres));

impl PostgresViews {
    async fn watermark_row(&self, shard: u16, log_id: Uuid) -> Result<Option<WatermarkRow>, StateError> {
        let client = self.keyed().await?;
        let rows = bounded(async {
            let watermarks = Finder::new(&client, &TABLES.watermarks).await?;
            watermarks.find(&client, &[vec![Value::Int(i64::from(shard))]]).await
        });
        let rows = rows.await;
        super::looked_up(settle(client, rows)?, log_id)
    }

    /// What a statement answers that lists what is stored of the shard.
    async fn list(
        &self,
        shard: u16,
        held: Held,
        statement: &str,
        values: &[Value],
        columns: &[ColumnType],
    ) -> Result<Vec<Vec<Value>>, StateError> {
        let client = self.keyed().await?;
        let found = bounded(async {
            let listed = query(&client, statement, values, columns).await?;
            // Last, as in `load`: the list is good if it was the owner's until then.
            let watermarks = Finder::new(&client, &TABLES.watermarks).await?;
            let watermark = watermarks.find(&client, &[vec![Value::Int(i64::from(shard))]]).await?;
            Ok((listed, watermark))
        });
        let found = found.await;
        let (listed, watermark) = settle(client, found)?;
        super::check_held(watermark, held)?;
        Ok(listed)
    }
}

#[async_trait]
impl StateStore for PostgresViews {
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
        let mut client = self.keyed().await?;
        let row = bounded(async {
            let transaction = client.transaction().await?;
            // A claim that a crash took back would let an older owner save again.
            transaction.batch_execute(DURABLE).await?;
            let begin = super::begin_values(shard, log_id, epoch, address);
            execute(&transaction, &STATEMENTS.begin, &begin).await?;
            let take_over = super::take_over_values(shard, log_id, epoch, address);
            execute(&transaction, &STATEMENTS.take_over, &take_over).await?;
            let watermarks = Finder::new(&transaction, &TABLES.watermarks).await?;
            let mut rows = watermarks
                .find(&transaction, &[vec![Value::Int(i64::from(shard))]])
                .await?;
            transaction.commit().await?;
            Ok(rows.remove(0))
        });
        let row = row.await;
        super::claimed(settle(client, row)?, log_id, epoch)
    }

    async fn peer_secret(&self, proposed: &str) -> Result<String, StateError> {
        let client = self.keyed().await?;
        let kept = bounded(async { Ok(client.query_opt(super::READ_SECRET, &[]).await?.map(|row| row.get(0))) });
        let kept = kept.await;
        if let Ok(Some(kept)) = settle(client, kept) {
            return Ok(kept);
        }
        let mut client = self.keyed().await?;
        let found = bounded(async {
            let transaction = client.transaction().await?;
            transaction.batch_execute(DURABLE).await?;
            execute(&transaction, super::PROPOSE_SECRET, &[Value::Text(proposed.to_owned())]).await?;
            let found = transaction.query_one(super::READ_SECRET, &[]).await?.get(0);
            transaction.commit().await?;
            Ok(found)
        });
        let found = found.await;
        Ok(settle(client, found)?)
    }

    async fn time(&self) -> Result<Option<Timestamp>, StateError> {
        let client = self.keyed().await?;
        let found = bounded(async { Ok(client.query_one("SELECT clock_timestamp()", &[]).await?.get(0)) });
        let found = found.await;
        Ok(Some(settle(client, found)?))
    }

    async fn load(
        &self,
        shard: u16,
        held: Held,
        streams: &[StreamRef],
        commands: &[Uuid],
    ) -> Result<Loaded, StateError> {
        let (streams, commands) = (super::state_keys(shard, streams), super::command_keys(shard, commands));
        let of_shard = [vec![Value::Int(i64::from(shard))]];
        let client = self.keyed().await?;
        let found = bounded(async {
            let states = Finder::new(&client, &TABLES.states).await?;
            let known = Finder::new(&client, &TABLES.commands).await?;
            let watermarks = Finder::new(&client, &TABLES.watermarks).await?;
            // The watermark last: each statement sees what was committed before it, and what was found must have been the owner's until
            // then. On one connection, so that a crash in between breaks it.
            tokio::try_join!(
                biased;
                states.find(&client, &streams),
                known.find(&client, &commands),
                watermarks.find(&client, &of_shard),
            )
        });
        let found = found.await;
        let (states, commands, watermark) = settle(client, found)?;
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
        let rows = self.list(shard, held, &STATEMENTS.streams, &values, &STREAM_COLUMNS);
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
        let rows = self.list(shard, held, &STATEMENTS.derived_commands, &values, &COMMAND_COLUMNS);
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
        let mut client = self.keyed().await?;
        let saved = bounded(async {
            let transaction = client.transaction().await?;
            let advanced = Write::new(&transaction, &STATEMENTS.advance, values_of(&advance)).await?;
            let states = put(&transaction, &TABLES.states, &states).await?;
            let commands = put(&transaction, &TABLES.commands, &commands).await?;
            if !send(&transaction, advanced, states.into_iter().chain(commands).collect()).await? {
                transaction.rollback().await?;
                return Ok(false);
            }
            transaction.commit().await?;
            Ok(true)
        });
        let saved = saved.await;
        match settle(client, saved)? {
            true => Ok(()),
            false => Err(StateError::Fenced),
        }
    }

    async fn forget_commands(&self, before: Timestamp) -> Result<u64, StateError> {
        let mut forgotten = 0;
        loop {
            let mut client = self.keyed().await?;
            let some = bounded(async {
                let transaction = client.transaction().await?;
                let count = execute(&transaction, &STATEMENTS.forget, &[Value::Time(before)]).await?;
                transaction.commit().await?;
                Ok(count)
            });
            let some = some.await;
            let some = settle(client, some)?;
            forgotten += some;
            if some < FORGOTTEN_AT_ONCE {
                return Ok(forgotten);
            }
        }
    }
}
