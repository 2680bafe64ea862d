//! Questions answered: wait for a position, find what was known at a time, run the plan in one snapshot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::{Calendar, Position};
use jiff::Timestamp;
use projections::{
    Answer, BadQuestion, ColumnRole, Expr, Group, Key, Op, PART_ROWS, Part, Question, ReadModel, Select, Table,
    TableKind, Value,
};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use uuid::Uuid;

use super::waiting::Waiting;
use super::{Generation, ReadStore, ViewError};
use crate::clock::Clock;
use crate::log::EventLog;

/// Questions under way at most, those that wait for a position or for a turn at the store included.
pub const QUESTIONS_MAX: usize = 1_000;
/// Large questions that are at the store at one time; small ones, and looks after the health, always find a turn beside them.
pub const LARGE_QUESTIONS_MAX: usize = 2;
/// A question of more rows is large; one that is computed from all rows of a table is as well.
const LARGE_ROWS: usize = 500;
/// How long a large question waits for the ones before it.
const LARGE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Rows that one select of a question reads at most. A list reads a page; what is computed from single rows, one per customer and day or so,
/// reads them all.
pub const ROWS_READ_MAX: usize = 10_000_000;
/// Rows that are read at a time for a checksum.
pub const CHECKSUM_ROWS_MAX: usize = 10_000;
/// How long a query waits for the position that it must have seen.
pub const AT_LEAST_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it looks: soon at first, for a read model is mostly a moment behind.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOK_FIRST: Duration = Duration::from_millis(1);
/// A position that has not come so soon is looked for in the log: it may lie beyond its end.
const LOOK_AT_LOG: Duration = Duration::from_millis(5);
/// How long the log may take to say where it ends; who waits goes on waiting after that.
const END_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a generation counts as live without a look at the store.
const LIVE_FOR: Duration = Duration::from_secs(1);

/// What a question may ask for besides [`Question`].
#[derive(Debug, Clone)]
pub struct Ask {
    pub question: Question,
    /// Only what was recorded by this time. The answer says which positions that came to.
    pub known_at: Option<Timestamp>,
    /// The read model must have passed these positions.
    pub at_least: Vec<Position>,
}

impl Ask {
    /// Of all that is known, as soon as it is there.
    pub fn of(question: Question) -> Ask {
        Ask {
            question,
            known_at: None,
            at_least: vec![],
        }
    }
}

/// An answer, and what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    pub answer: Answer,
    /// The read model's definition: the same question with the same positions and definition has the same answer.
    pub definition: String,
    /// For a dated question: the last position per shard that counted. Ask again with it.
    pub known_until: Option<Vec<(u16, u64)>>,
    /// How far the read model was: next offset per shard.
    pub read_until: Vec<(u16, u64)>,
}

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Bad(#[from] BadQuestion),
    #[error("the read model has not come to {position} yet, it stands at {stands}; try again")]
    Behind { position: Position, stands: u64 },
    #[error("{position} is in no shard of this log; it has shards 0 to {last}")]
    NoShard { position: Position, last: u16 },
    #[error("{position} lies beyond the end of the log: shard {} ends before {end}, so no answer would ever hold it", position.shard)]
    Beyond { position: Position, end: u64 },
    #[error("the read models of the group {0} are being built; try again")]
    Building(&'static str),
    #[error("too many questions are waiting for their answers; try again")]
    TooMany,
    #[error("the answer would be made of more than {0} rows; ask for less of them, with a filter or for another time")]
    TooMuch(usize),
    #[error(transparent)]
    Store(#[from] ViewError),
}

/// Asks read models; cheap to clone.
#[derive(Clone)]
pub struct Queries {
    store: Arc<dyn ReadStore>,
    clock: Arc<dyn Clock>,
    calendar: Calendar,
    /// The log that the read models must have come from; `None` = any.
    log_id: Option<Uuid>,
    live: Arc<Mutex<BTreeMap<Group, (Instant, Generation)>>>,
    room: Arc<Semaphore>,
    large: Arc<Semaphore>,
    waiting: Waiting,
    /// The log that the read models are made of, where it is at hand.
    log: Option<Arc<dyn EventLog>>,
    rows_read_max: usize,
}

impl Queries {
    /// `calendar` is that of the log.
    pub fn new(store: Arc<dyn ReadStore>, clock: Arc<dyn Clock>, calendar: Calendar) -> Queries {
        Queries {
            store,
            clock,
            calendar,
            log_id: None,
            live: Arc::default(),
            room: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            large: Arc::new(Semaphore::new(LARGE_QUESTIONS_MAX)),
            waiting: Waiting::default(),
            log: None,
            rows_read_max: ROWS_READ_MAX,
        }
    }

    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// A question for all that there is, now, in days of the log.
    pub fn question(&self) -> Question {
        Question::new(self.calendar.clone())
    }

    /// With the log, so that nobody waits for what is not in it.
    pub fn with_log(mut self, log: Arc<dyn EventLog>) -> Queries {
        self.log = Some(log);
        self
    }

    /// Only read models of this log are asked: a store of another one, put in place by mistake, would show somebody else's customers.
    pub fn of_log(mut self, log_id: Uuid) -> Queries {
        self.log_id = Some(log_id);
        self
    }

    /// With another bound than [`ROWS_READ_MAX`].
    #[cfg(test)]
    pub fn reading_at_most(mut self, rows: usize) -> Queries {
        self.rows_read_max = rows;
        self
    }

    /// # Errors
    /// [`AskError`]: the asker's mistake, not there yet, too many at once, too much to read, or the store cannot be reached.
    pub async fn ask(&self, model: &ReadModel, ask: Ask) -> Result<Answered, AskError> {
        let _place = self.room.try_acquire().map_err(|_| AskError::TooMany)?;
        Ok(self.answered(model, ask).await?.1)
    }

    /// Asks for all rows: the first part of them, and the way to the rest. It counts as one question until the rest is read or dropped.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask_all(&self, model: &'static ReadModel, mut ask: Ask) -> Result<(Answered, Rest), AskError> {
        let _place = self.room.try_acquire().map_err(|_| AskError::TooMany)?;
        ask.question.part = Some(Part::default());
        // Figures of all parts are of one time.
        let now = self.now(&ask);
        ask.question.now.get_or_insert(now);
        let (generation, answered) = self.answered(model, ask.clone()).await?;
        ask.at_least.clear();
        ask.known_at = None;
        ask.question.known_until.clone_from(&answered.known_until);
        let after = answered.answer.after.clone();
        let rest = Rest {
            queries: self.clone(),
            generation,
            model,
            ask,
            after,
        };
        Ok((answered, rest))
    }

    /// What a question is told as of, when it does not say: what was known at a time is told as it was told then, ages and due dates
    /// included.
    fn now(&self, ask: &Ask) -> Timestamp {
        let now = self.clock.now();
        ask.known_at.map_or(now, |known_at| known_at.min(now))
    }

    async fn answered(&self, model: &ReadModel, ask: Ask) -> Result<(Generation, Answered), AskError> {
        if let Some(generation) = self.lately_live(model.group) {
            match self.ask_of(&generation, model, ask.clone()).await {
                Ok(answered) if !answered.read_until.is_empty() => return Ok((generation, answered)),
                // It may be gone; then another one is live.
                Ok(_) | Err(AskError::Store(ViewError::Refused(_))) => {}
                Err(error) => return Err(error),
            }
        }
        let generation = self.live(model.group).await?;
        let answered = self.ask_of(&generation, model, ask).await?;
        Ok((generation, answered))
    }

    async fn ask_of(&self, generation: &Generation, model: &ReadModel, mut ask: Ask) -> Result<Answered, AskError> {
        let shards = generation.shards;
        if let Some(position) = ask.at_least.iter().find(|position| position.shard >= shards) {
            return Err(AskError::NoShard {
                position: *position,
                last: shards.saturating_sub(1),
            });
        }
        self.wait_for(generation, &ask.at_least).await?;
        let now = self.now(&ask);
        ask.question.now.get_or_insert(now);
        if let Some(known_at) = ask.known_at {
            let plan = (model.plan)(&Question {
                known_until: Some(vec![]),
                ..ask.question.clone()
            })?;
            ask.question.known_until = Some(self.known_by(generation, &plan.selects, known_at).await?);
        }
        let mut plan = (model.plan)(&ask.question)?;
        let _turn = self.turn(&plan.selects).await?;
        for select in &mut plan.selects {
            select.limit.get_or_insert(self.rows_read_max + 1);
        }
        let snapshot = self.store.query(generation, &plan.selects).await?;
        if snapshot.results.iter().any(|rows| rows.len() > self.rows_read_max) {
            return Err(AskError::TooMuch(self.rows_read_max));
        }
        let mut answer = (plan.finish)(snapshot.results);
        for beside in plan.beside {
            let found = self
                .rows_of(generation, &answer.ids(), |ids| beside.select(ids))
                .await?;
            answer.put_beside(&beside, found);
        }
        Ok(Answered {
            answer,
            definition: generation.definition.clone(),
            known_until: ask.question.known_until,
            read_until: snapshot.read_until,
        })
    }

    /// The rows that `select` finds for these ids, some of them at a time.
    pub(super) async fn rows_of(
        &self,
        generation: &Generation,
        ids: &[Value],
        select: impl Fn(Vec<Value>) -> Select,
    ) -> Result<Vec<Vec<Value>>, AskError> {
        let mut found = Vec::new();
        for some in ids.chunks(PART_ROWS) {
            let snapshot = self.store.query(generation, &[select(some.to_vec())]).await?;
            found.extend(snapshot.results.into_iter().flatten());
        }
        Ok(found)
    }

    /// A turn at the store, for a large question; a small one needs none.
    async fn turn(&self, selects: &[Select]) -> Result<Option<SemaphorePermit<'_>>, AskError> {
        // A list asks for one row more, to see whether there are more.
        let is_large = |select: &Select| select.limit.is_none_or(|limit| limit > LARGE_ROWS + 1);
        if !selects.iter().any(is_large) {
            return Ok(None);
        }
        let turn = tokio::time::timeout(LARGE_WAIT_MAX, self.large.acquire()).await;
        let turn = turn.map_err(|_| AskError::TooMany)?;
        turn.map(Some).map_err(|_| AskError::TooMany)
    }

    /// The last positions that were recorded by `known_at`, per shard, over the journals that the plan reads.
    async fn known_by(
        &self,
        generation: &Generation,
        selects: &[Select],
        known_at: Timestamp,
    ) -> Result<Vec<(u16, u64)>, AskError> {
        let mut journals: Vec<&'static Table> = selects.iter().map(|select| select.table).collect();
        journals.retain(|table| table.kind == TableKind::Journal && table.column("recorded_at").is_some());
        journals.dedup_by_key(|table| table.name);
        let looks: Vec<Select> = journals
            .iter()
            .map(|table| {
                Select::of(table, [Expr::Column("shard"), Expr::Max("log_offset")]).filter(
                    "recorded_at",
                    Op::Le,
                    Value::Time(known_at),
                )
            })
            .collect();
        let snapshot = self.store.query(generation, &looks).await?;
        let mut last: BTreeMap<u16, u64> = BTreeMap::new();
        for row in snapshot.results.into_iter().flatten() {
            let (shard, offset) = (row[0].as_int() as u16, row[1].as_int() as u64);
            last.entry(shard)
                .and_modify(|known| *known = (*known).max(offset))
                .or_insert(offset);
        }
        Ok(last.into_iter().collect())
    }

    async fn wait_for(&self, generation: &Generation, at_least: &[Position]) -> Result<(), AskError> {
        let begun = Instant::now();
        let mut waiter = None;
        for position in at_least {
            if position.shard >= generation.shards {
                continue;
            }
            let mut pause = LOOK_FIRST;
            let mut is_in_log = false;
            loop {
                let stored = self.store.checkpoint(generation, position.shard).await?;
                let stands = stored.map_or(0, |checkpoint| checkpoint.next);
                if stands > position.offset {
                    break;
                }
                let behind = AskError::Behind {
                    position: *position,
                    stands,
                };
                if begun.elapsed() >= AT_LEAST_WAIT_MAX {
                    return Err(behind);
                }
                if begun.elapsed() >= LOOK_AT_LOG && !is_in_log {
                    self.must_be_in_log(*position).await?;
                    is_in_log = true;
                }
                let waiter = waiter.get_or_insert_with(|| self.waiting.enter());
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LOOK_EVERY),
                    () = waiter.ends() => return Err(behind),
                }
            }
        }
        Ok(())
    }

    /// A log that does not say where it ends may have the position.
    async fn must_be_in_log(&self, position: Position) -> Result<(), AskError> {
        let Some(log) = &self.log else { return Ok(()) };
        let end = tokio::time::timeout(END_WAIT_MAX, log.end(position.shard)).await;
        match end {
            Ok(Ok(end)) if end <= position.offset => Err(AskError::Beyond { position, end }),
            _ => Ok(()),
        }
    }

    /// The generation that was live a moment ago. One that another has taken the place of is kept, and folded on, until the next one does.
    fn lately_live(&self, group: Group) -> Option<Generation> {
        let live = self.live.lock().expect("no panic under the lock");
        let (seen, generation) = live.get(&group)?;
        (seen.elapsed() < LIVE_FOR).then(|| generation.clone())
    }

    /// The generation that this version of the program can ask.
    ///
    /// # Errors
    /// [`AskError::Building`] when there is none yet.
    pub async fn live(&self, group: Group) -> Result<Generation, AskError> {
        let known = self.store.generations(group).await?;
        let found = known.into_iter().find(Generation::is_asked);
        if let Some(generation) = &found {
            self.check_log(generation).await?;
        }
        let mut live = self.live.lock().expect("no panic under the lock");
        match found {
            Some(generation) => {
                live.insert(group, (Instant::now(), generation.clone()));
                Ok(generation)
            }
            None => {
                live.remove(&group);
                Err(AskError::Building(group.name()))
            }
        }
    }

    /// # Errors
    /// [`ViewError::OtherLog`].
    async fn check_log(&self, generation: &Generation) -> Result<(), AskError> {
        let Some(wanted) = self.log_id else { return Ok(()) };
        for shard in 0..generation.shards {
            if let Some(checkpoint) = self.store.checkpoint(generation, shard).await? {
                let stored = checkpoint.log_id;
                return match stored == wanted {
                    true => Ok(()),
                    false => Err(ViewError::OtherLog { stored, wanted }.into()),
                };
            }
        }
        Ok(())
    }

    /// Sixteen hex digits over all business columns of a read model's rows, whatever their order: equal rows on two stores, or
    /// after a rebuild, have equal checksums. With it comes the number of rows.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn checksum(&self, model: &ReadModel) -> Result<(String, usize), AskError> {
        let generation = self.live(model.group).await?;
        let mut total = Total::default();
        // A read model without tables of its own answers from its neighbours': those are what counts.
        let plan = (model.plan)(&self.question())?;
        let mut tables: Vec<&'static Table> = model.tables.to_vec();
        if tables.is_empty() {
            tables.extend(plan.selects.iter().map(|select| select.table));
            tables.sort_by_key(|table| table.name);
            tables.dedup_by_key(|table| table.name);
        }
        for table in tables {
            self.add_rows(&mut total, &generation, table).await?;
        }
        Ok(total.finish())
    }

    /// Adds a table page by page: it may be larger than memory. What is written meanwhile counts or does not.
    async fn add_rows(
        &self,
        total: &mut Total,
        generation: &Generation,
        table: &'static Table,
    ) -> Result<(), AskError> {
        let (key, hidden) = (table.row_key().len(), table.hidden_columns());
        let business = table.columns.iter().filter(|column| column.role != ColumnRole::Meta);
        let columns = hidden.iter().chain(business);
        let mut select = Select::of(table, columns.map(|column| Expr::Column(column.name)));
        select.limit = Some(CHECKSUM_ROWS_MAX);
        loop {
            let mut snapshot = self.store.query(generation, &[select.clone()]).await?;
            let rows = snapshot.results.remove(0);
            let is_last = rows.len() < CHECKSUM_ROWS_MAX;
            select.after = rows.last().map(|row| row[..key].to_vec());
            total.add(table.name, rows.iter().map(|row| &row[hidden.len()..]));
            if is_last {
                return Ok(());
            }
        }
    }
}

/// The parts of an answer that come after the first one.
pub struct Rest {
    queries: Queries,
    generation: Generation,
    model: &'static ReadModel,
    ask: Ask,
    after: Option<Key>,
}

impl Rest {
    /// The rows of the next part; `None` = that was all.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn next(&mut self) -> Result<Option<Vec<Vec<Value>>>, AskError> {
        let Some(after) = self.after.take() else {
            return Ok(None);
        };
        self.ask.question.part = Some(Part { after: Some(after) });
        // Not for as long as its reader takes over what it has got: others may ask meanwhile.
        let _place = self.queries.room.acquire().await.map_err(|_| AskError::TooMany)?;
        let ask = self.ask.clone();
        let answer = self.queries.ask_of(&self.generation, self.model, ask).await?.answer;
        self.after = answer.after;
        Ok(Some(answer.rows))
    }
}

/// A sum of row hashes: the order of rows does not matter, their number does.
#[derive(Default)]
struct Total {
    sum: u128,
    rows: usize,
}

impl Total {
    fn add<'a>(&mut self, table: &str, rows: impl Iterator<Item = &'a [Value]>) {
        for row in rows {
            let mut hasher = Sha256::new();
            hasher.update(table);
            for value in row {
                // Null is not the empty text.
                hasher.update([0x1f, u8::from(*value == Value::Null)]);
                hasher.update(value.to_text());
            }
            let hash: [u8; 32] = hasher.finalize().into();
            let (head, _) = hash.split_at(16);
            self.sum = self
                .sum
                .wrapping_add(u128::from_be_bytes(head.try_into().expect("sixteen bytes")));
            self.rows += 1;
        }
    }

    fn finish(self) -> (String, usize) {
        (format!("{:016x}", (self.sum >> 64) as u64 ^ self.sum as u64), self.rows)
    }
}
