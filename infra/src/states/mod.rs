//! State stores: a shard's cache of states and command ids, in the same database as the read models, for both are derived.
//!
//! The tables carry the definition of the states in their names: a program version with other states keeps its own beside.

mod postgres;
mod sqlite;

use std::sync::{Arc, LazyLock};

use domain::{AnyState, StreamKind, StreamRef};
use jiff::Timestamp;
use projections::{ColumnType, Key, Row, Table, Value};
use services::log::Checkpoint;
use services::states::{
    Held, Loaded, SavedCommand, SavedState, StateError, Watermark, is_by_client, states_definition,
};
use uuid::Uuid;

use crate::views::sql::{Dialect, Stored, checkpoint_values, quoted};

projections::table! {
    entity StateRow "states" {
        key shard: i64,
        key kind: String,
        key stream: Uuid,
        set version: i64,
        /// JSON as text: given back to the letter.
        set state: String,
    }
}

projections::table! {
    entity CommandRow "commands" {
        key shard: i64,
        key command: Uuid,
        set hash: String,
        /// Each stream it wrote to, with its version after it.
        set streams: Vec<(String, u64)>,
        set log_offset: i64,
        set events: i64,
        set at: Timestamp,
        /// A version 7 id, which may be forgotten.
        set by_client: bool,
    }
}

projections::table! {
    entity WatermarkRow "watermarks" {
        key shard: i64,
        set log_id: Uuid,
        set owner_epoch: i64,
        /// Where the owner answers commands.
        set owner_address: String,
        // Null until the first save.
        set next: Option<i64>,
        set epoch: Option<i64>,
        set n: Option<i64>,
        set fingerprint: Option<i64>,
        set last_time: Option<Timestamp>,
    }
}

/// Command ids that are forgotten in one transaction.
const FORGOTTEN_AT_ONCE: u64 = 10_000;

/// The statements that both databases share.
struct Statements {
    /// Shard, log id, epoch, address: makes the row of a new shard.
    begin: String,
    /// Epoch, address, shard, log id: takes the row over, unless a later owner or another log has it.
    take_over: String,
    /// Next, epoch, n, fingerprint, last time, shard, owner epoch, log id, and the next that is known to be stored.
    advance: String,
    /// Before.
    forget: String,
    /// Shard, kind and id of the stream before, and how many.
    streams: String,
    /// Shard, the id before, and how many.
    derived_commands: String,
}

static STATEMENTS: LazyLock<Statements> = LazyLock::new(|| {
    let watermarks = quoted(&name_of(WatermarkRow::TABLE));
    let commands = quoted(&name_of(CommandRow::TABLE));
    let states = quoted(&name_of(StateRow::TABLE));
    Statements {
        begin: format!(
            "INSERT INTO {watermarks} (shard, log_id, owner_epoch, owner_address) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING"
        ),
        take_over: format!(
            "UPDATE {watermarks} SET owner_epoch = $1, owner_address = $2 \
             WHERE shard = $3 AND log_id = $4 AND owner_epoch <= $1"
        ),
        advance: format!(
            "UPDATE {watermarks} SET next = $1, epoch = $2, n = $3, fingerprint = $4, last_time = $5 \
             WHERE shard = $6 AND owner_epoch = $7 AND log_id = $8 AND COALESCE(next, 0) >= $9"
        ),
        forget: format!(
            "DELETE FROM {commands} WHERE (shard, command) IN \
             (SELECT shard, command FROM {commands} WHERE by_client AND at < $1 LIMIT {FORGOTTEN_AT_ONCE})"
        ),
        streams: format!(
            "SELECT kind, stream FROM {states} WHERE shard = $1 AND (kind, stream) > ($2, $3) ORDER BY kind, stream LIMIT $4"
        ),
        derived_commands: format!(
            "SELECT command FROM {commands} WHERE shard = $1 AND command > $2 AND NOT by_client ORDER BY command LIMIT $3"
        ),
    }
});

/// The table's name with sixteen hex digits that change whenever a state type or one of these tables changes.
fn name_of(table: &Table) -> String {
    static DEFINITION: LazyLock<String> = LazyLock::new(|| {
        let tables = [StateRow::TABLE, CommandRow::TABLE, WatermarkRow::TABLE];
        let id = domain::derived_id(&[&states_definition(), &format!("{tables:?}")]);
        id.simple().to_string()[..16].to_owned()
    });
    format!("{}_{}", table.name, *DEFINITION)
}

/// The tables as they are stored.
struct StateTables {
    states: Stored,
    commands: Stored,
    watermarks: Stored,
}

impl StateTables {
    fn of(dialect: Dialect) -> StateTables {
        let stored = |table| {
            let name = name_of(table);
            Stored::named(dialect, table, quoted(&name), name)
        };
        StateTables {
            states: stored(StateRow::TABLE),
            commands: stored(CommandRow::TABLE),
            watermarks: stored(WatermarkRow::TABLE),
        }
    }
}

/// Makes the state tables of this program's definition, if they are not there.
pub(crate) fn create_tables(dialect: Dialect) -> String {
    let tables = StateTables::of(dialect);
    let mut statements: Vec<String> = [&tables.states, &tables.commands, &tables.watermarks]
        .into_iter()
        .flat_map(Stored::create)
        .map(|statement| statement.replacen("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1))
        .collect();
    let commands = name_of(CommandRow::TABLE);
    statements.push(format!(
        "CREATE INDEX IF NOT EXISTS {} ON {} (at) WHERE by_client",
        quoted(&format!("{commands}_by_at")),
        quoted(&commands)
    ));
    statements.push(format!(
        "CREATE INDEX IF NOT EXISTS {} ON {} (shard, command) WHERE NOT by_client",
        quoted(&format!("{commands}_derived")),
        quoted(&commands)
    ));
    statements.push(format!(
        "CREATE TABLE IF NOT EXISTS {SECRETS} (name TEXT NOT NULL PRIMARY KEY, secret TEXT NOT NULL)"
    ));
    statements.join(";\n")
}

/// Holds the secret that the processes share, whatever the definition of their states.
const SECRETS: &str = "peer_secrets";
/// The first one stays.
const PROPOSE_SECRET: &str = "INSERT INTO peer_secrets (name, secret) VALUES ('commands', $1) ON CONFLICT DO NOTHING";
const READ_SECRET: &str = "SELECT secret FROM peer_secrets WHERE name = 'commands'";

fn begin_values(shard: u16, log_id: Uuid, epoch: u64, address: &str) -> [Value; 4] {
    [
        Value::Int(i64::from(shard)),
        Value::Uuid(log_id),
        Value::Int(epoch.cast_signed()),
        Value::Text(address.to_owned()),
    ]
}

fn take_over_values(shard: u16, log_id: Uuid, epoch: u64, address: &str) -> [Value; 4] {
    [
        Value::Int(epoch.cast_signed()),
        Value::Text(address.to_owned()),
        Value::Int(i64::from(shard)),
        Value::Uuid(log_id),
    ]
}

fn advance_values(held: Held, watermark: &Watermark) -> Vec<Value> {
    let [log_id, place @ ..] = checkpoint_values(&watermark.checkpoint);
    let mut values = place.to_vec();
    values.extend([
        Value::Time(watermark.last_time),
        Value::Int(i64::from(watermark.shard)),
        Value::Int(held.owner_epoch.cast_signed()),
        log_id,
        Value::Int(held.next.cast_signed()),
    ]);
    values
}

/// What a claim comes to, from the row that stands there after it.
fn claimed(row: Vec<Value>, log_id: Uuid, epoch: u64) -> Result<Option<Watermark>, StateError> {
    let row = WatermarkRow::from_values(row);
    if row.log_id != log_id {
        return Err(StateError::OtherLog {
            stored: row.log_id,
            wanted: log_id,
        });
    }
    if row.owner_epoch.cast_unsigned() != epoch {
        return Err(StateError::Fenced);
    }
    Ok(progress(&row))
}

/// The row of a shard, without claiming it; `None` = nobody ever did.
fn looked_up(mut rows: Vec<Vec<Value>>, log_id: Uuid) -> Result<Option<WatermarkRow>, StateError> {
    let Some(row) = rows.pop().map(WatermarkRow::from_values) else {
        return Ok(None);
    };
    if row.log_id != log_id {
        return Err(StateError::OtherLog {
            stored: row.log_id,
            wanted: log_id,
        });
    }
    Ok(Some(row))
}

/// Is what the owner knows of the stored states still so? `rows` is what stands there as the shard's watermark.
fn check_held(mut rows: Vec<Vec<Value>>, held: Held) -> Result<(), StateError> {
    let row = rows.pop().map(WatermarkRow::from_values);
    let next = row.as_ref().and_then(|row| row.next);
    held.check(
        row.map(|row| row.owner_epoch.cast_unsigned()),
        next.map(i64::cast_unsigned),
    )
}

fn progress(row: &WatermarkRow) -> Option<Watermark> {
    Some(Watermark {
        shard: row.shard as u16,
        owner_epoch: row.owner_epoch.cast_unsigned(),
        checkpoint: Checkpoint {
            log_id: row.log_id,
            next: row.next?.cast_unsigned(),
            epoch: row.epoch?.cast_unsigned(),
            n: row.n?.cast_unsigned(),
            fingerprint: row.fingerprint?.cast_unsigned(),
        },
        last_time: row.last_time?,
    })
}

fn streams_values(shard: u16, after: Option<StreamRef>, max: usize) -> [Value; 4] {
    // No kind has an empty name.
    let (kind, id) = after.map_or(("", Uuid::nil()), |stream| (stream.kind.name(), stream.id));
    [
        Value::Int(i64::from(shard)),
        Value::Text(kind.to_owned()),
        Value::Uuid(id),
        Value::Int(max as i64),
    ]
}

fn commands_values(shard: u16, after: Option<Uuid>, max: usize) -> [Value; 3] {
    // No command has an id of zeros only: it would have no version.
    [
        Value::Int(i64::from(shard)),
        Value::Uuid(after.unwrap_or_default()),
        Value::Int(max as i64),
    ]
}

/// What [`Statements::streams`] answers.
const STREAM_COLUMNS: [ColumnType; 2] = [ColumnType::Text, ColumnType::Uuid];
/// What [`Statements::derived_commands`] answers.
const COMMAND_COLUMNS: [ColumnType; 1] = [ColumnType::Uuid];

fn listed_streams(rows: Vec<Vec<Value>>) -> Result<Vec<StreamRef>, StateError> {
    let read = |row: Vec<Value>| match row.as_slice() {
        [Value::Text(kind), Value::Uuid(id)] => stream(kind, *id),
        _ => Err(unreadable("name of a stream")),
    };
    rows.into_iter().map(read).collect()
}

fn listed_commands(rows: Vec<Vec<Value>>) -> Result<Vec<Uuid>, StateError> {
    let read = |row: Vec<Value>| match row.as_slice() {
        [Value::Uuid(id)] => Ok(*id),
        _ => Err(unreadable("id of a command")),
    };
    rows.into_iter().map(read).collect()
}

fn state_keys(shard: u16, streams: &[StreamRef]) -> Vec<Key> {
    let key = |stream: &StreamRef| {
        vec![
            Value::Int(i64::from(shard)),
            Value::Text(stream.kind.name().to_owned()),
            Value::Uuid(stream.id),
        ]
    };
    streams.iter().map(key).collect()
}

fn command_keys(shard: u16, commands: &[Uuid]) -> Vec<Key> {
    let key = |id: &Uuid| vec![Value::Int(i64::from(shard)), Value::Uuid(*id)];
    commands.iter().map(key).collect()
}

fn state_rows(shard: u16, states: &[SavedState]) -> Vec<Vec<Value>> {
    let row = |saved: &SavedState| StateRow {
        shard: i64::from(shard),
        kind: saved.stream.kind.name().to_owned(),
        stream: saved.stream.id,
        version: saved.version.cast_signed(),
        state: String::from_utf8(saved.state.to_json()).expect("JSON is UTF-8"),
    };
    states.iter().map(|saved| row(saved).into_values()).collect()
}

fn command_rows(shard: u16, commands: &[SavedCommand]) -> Vec<Vec<Value>> {
    let row = |saved: &SavedCommand| CommandRow {
        shard: i64::from(shard),
        command: saved.id,
        hash: saved.hash.clone(),
        streams: saved
            .streams
            .iter()
            .map(|(stream, version)| (stream.to_string(), *version))
            .collect(),
        log_offset: saved.offset.cast_signed(),
        events: i64::from(saved.events),
        at: saved.at,
        by_client: is_by_client(saved.id),
    };
    commands.iter().map(|saved| row(saved).into_values()).collect()
}

fn loaded(states: Vec<Vec<Value>>, commands: Vec<Vec<Value>>) -> Result<Loaded, StateError> {
    Ok(Loaded {
        states: states.into_iter().map(saved_state).collect::<Result<_, _>>()?,
        commands: commands.into_iter().map(saved_command).collect::<Result<_, _>>()?,
    })
}

fn saved_state(row: Vec<Value>) -> Result<SavedState, StateError> {
    let row = StateRow::from_values(row);
    let stream = stream(&row.kind, row.stream)?;
    // The parser's own message may show a value, which may be personal.
    let state = AnyState::from_json(stream.kind, row.state.as_bytes())
        .map_err(|error| unreadable(&format!("state of {stream}, column {}", error.column())))?;
    Ok(SavedState {
        stream,
        version: row.version.cast_unsigned(),
        state: Arc::new(state),
    })
}

fn saved_command(row: Vec<Value>) -> Result<SavedCommand, StateError> {
    let row = CommandRow::from_values(row);
    let known = |(text, version): &(String, u64)| StreamRef::parse(text).map(|stream| (stream, *version));
    let streams: Option<Vec<_>> = row.streams.iter().map(known).collect();
    Ok(SavedCommand {
        id: row.command,
        hash: row.hash,
        streams: streams.ok_or_else(|| unreadable(&format!("streams of command {}", row.command)))?,
        offset: row.log_offset.cast_unsigned(),
        events: row.events as u32,
        at: row.at,
    })
}

fn stream(kind: &str, id: Uuid) -> Result<StreamRef, StateError> {
    let kind = StreamKind::parse(kind).ok_or_else(|| unreadable(&format!("kind of stream {id}")))?;
    Ok(StreamRef { kind, id })
}

fn unreadable(what: &str) -> StateError {
    StateError::Unavailable(format!("the stored {what} cannot be read"))
}
