//! Creating a log, and opening one that exists.

use std::time::Duration;

use domain::Calendar;
use tokio::time::Instant;
use uuid::Uuid;

use super::{AppendError, EventLog, LogCreated, LogError};
use crate::clock::Clock;
use crate::shard::{TakeOverError, read_creation};

/// How long a log that was just created may need to elect its leaders.
const LEADERS_WAIT: Duration = Duration::from_secs(30);

/// A log that was found in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub log_id: Uuid,
    pub shards: u16,
    pub calendar: Calendar,
}

/// What a log is created with and keeps for its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLog {
    pub shards: u16,
    /// `None` = that of a log that exists, and Taipei's for a new one.
    pub calendar: Option<Calendar>,
}

impl NewLog {
    /// Of so many shards, in any time zone.
    pub fn of(shards: u16) -> NewLog {
        NewLog { shards, calendar: None }
    }
}

/// Creates the log and writes each shard's first record. One that exists and is like this is left as it is; one whose
/// creation was cut short is completed.
///
/// # Errors
/// When it exists with another number of shards, another time zone or wrong settings, or cannot be reached.
pub async fn create(log: &dyn EventLog, new: &NewLog, clock: &dyn Clock) -> Result<Opened, TakeOverError> {
    let shards = new.shards;
    if shards == 0 || shards > domain::SLOTS {
        return Err(LogError::WrongSettings(format!("a log has 1 to {} shards, not {shards}", domain::SLOTS)).into());
    }
    log.create(shards).await?;
    // Partitions that were just made may have no leader yet.
    let deadline = Instant::now() + LEADERS_WAIT;
    loop {
        match write_creations(log, new, clock).await {
            Ok(()) => {
                let opened = open(log).await?;
                opened.must_count_days_by(new.calendar.as_ref(), log)?;
                return Ok(opened);
            }
            Err(TakeOverError::Log(LogError::Unavailable(why)) | TakeOverError::Claim(AppendError::Unknown(why)))
                if Instant::now() < deadline =>
            {
                tracing::debug!("the new log is not ready yet: {why}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Writes the first record of each shard that is empty; a second one after an unknown outcome is void.
async fn write_creations(log: &dyn EventLog, new: &NewLog, clock: &dyn Clock) -> Result<(), TakeOverError> {
    let shards = new.shards;
    let mut first = None;
    for shard in 0..shards {
        if log.end(shard).await? > 0 {
            first = Some(read_creation(log, shard).await?);
            break;
        }
    }
    #[allow(clippy::disallowed_methods, reason = "a log's id is luck, drawn once")]
    let mut created = first.unwrap_or_else(|| LogCreated {
        log_id: Uuid::now_v7(),
        shards,
        slots: domain::SLOTS,
        calendar: new.calendar.clone().unwrap_or_else(Calendar::taipei),
    });
    for shard in 0..shards {
        if log.end(shard).await? == 0 {
            log.writer(shard)
                .await?
                .append(vec![created.to_record(clock.now())])
                .await?;
        }
        if shard == 0 {
            // Several may create it at the same time: it is the log of the one whose record stands first.
            created = read_creation(log, shard).await?;
        }
    }
    Ok(())
}

/// Opens a log: its settings are right, and all shards say that they belong to the same log with as many shards.
///
/// # Errors
/// [`LogError::NotCreated`], [`LogError::WrongSettings`], or it cannot be reached.
pub async fn open(log: &dyn EventLog) -> Result<Opened, TakeOverError> {
    let shards = log.open().await?;
    let mut opened: Option<Opened> = None;
    for shard in 0..shards {
        let created = read_creation(log, shard).await?;
        let wrong = |what: String| LogError::WrongSettings(format!("{}: {what}", log.address()));
        if created.shards != shards {
            let made = created.shards;
            return Err(wrong(format!(
                "it was created with {made} shards and has {shards} partitions; create a new log for \
                another number, never add partitions"
            ))
            .into());
        }
        match &opened {
            Some(first) if first.log_id != created.log_id => {
                return Err(wrong(format!("shard {shard} belongs to another log than shard 0")).into());
            }
            Some(first) if first.calendar != created.calendar => {
                return Err(wrong(format!("shard {shard} has another time zone than shard 0")).into());
            }
            _ => {
                opened = Some(Opened {
                    log_id: created.log_id,
                    shards,
                    calendar: created.calendar,
                })
            }
        }
    }
    opened.ok_or_else(|| LogError::NotCreated(log.address()).into())
}

impl Opened {
    /// Is the time zone the one that is wanted, if any is? It cannot be changed: what was counted by days would be wrong.
    ///
    /// # Errors
    /// [`LogError::WrongSettings`] when it is another.
    pub fn must_count_days_by(&self, wanted: Option<&Calendar>, log: &dyn EventLog) -> Result<(), LogError> {
        match wanted {
            Some(wanted) if *wanted != self.calendar => Err(LogError::WrongSettings(format!(
                "{}: it was created with the time zone {}, not {}; a log keeps its time zone, create a new log for another one",
                log.address(),
                self.calendar.time_zone(),
                wanted.time_zone()
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod specs {
    use super::*;
    use crate::clock::SystemClock;
    use crate::log::{MemoryLog, Record};

    async fn made(log: &MemoryLog, time_zone: Option<&str>) -> Result<String, String> {
        let new = NewLog {
            shards: 2,
            calendar: time_zone.map(|name| Calendar::of(name).unwrap()),
        };
        let opened = create(log, &new, &SystemClock).await;
        opened
            .map(|opened| opened.calendar.time_zone().to_owned())
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_log_keeps_the_time_zone_that_it_was_created_with() {
        let log = MemoryLog::new();
        assert_eq!(made(&log, Some("Europe/Berlin")).await.unwrap(), "Europe/Berlin");
        // Whoever wants the same, or says nothing, gets it.
        assert_eq!(made(&log, Some("Europe/Berlin")).await.unwrap(), "Europe/Berlin");
        assert_eq!(made(&log, None).await.unwrap(), "Europe/Berlin");
        for shard in 0..2 {
            assert_eq!(
                read_creation(&log, shard).await.unwrap().calendar.time_zone(),
                "Europe/Berlin"
            );
        }
        let refused = made(&log, Some("Asia/Taipei")).await.unwrap_err();
        assert!(
            refused.ends_with(
                "it was created with the time zone Europe/Berlin, not Asia/Taipei; a log keeps its time zone, create a new log for another one"
            ),
            "{refused}"
        );
        assert_eq!((log.end(0).await.unwrap(), log.end(1).await.unwrap()), (1, 1));
    }

    #[tokio::test]
    async fn a_new_log_has_the_days_of_taipei_unless_it_is_told_others_and_so_has_an_old_one_that_names_none() {
        let new = MemoryLog::new();
        assert_eq!(made(&new, None).await.unwrap(), "Asia/Taipei");
        assert!(made(&new, Some("America/New_York")).await.is_err());

        let old = MemoryLog::new();
        old.create(2).await.unwrap();
        for shard in 0..2 {
            old.writer(shard)
                .await
                .unwrap()
                .append(vec![without_time_zone(&new).await])
                .await
                .unwrap();
        }
        assert_eq!(made(&old, None).await.unwrap(), "Asia/Taipei");
        assert_eq!(made(&old, Some("Asia/Taipei")).await.unwrap(), "Asia/Taipei");
        assert!(made(&old, Some("Europe/Berlin")).await.is_err());
    }

    #[tokio::test]
    async fn a_creation_that_was_cut_short_is_completed_with_the_time_zone_of_its_first_record() {
        let (whole, cut) = (MemoryLog::new(), MemoryLog::new());
        made(&whole, Some("Europe/Berlin")).await.unwrap();
        cut.create(2).await.unwrap();
        let first = read_creation(&whole, 0).await.unwrap().to_record(SystemClock.now());
        cut.writer(0).await.unwrap().append(vec![first]).await.unwrap();
        assert!(made(&cut, Some("Asia/Taipei")).await.is_err());
        assert_eq!(made(&cut, None).await.unwrap(), "Europe/Berlin");
    }

    #[tokio::test]
    async fn a_time_zone_that_this_program_does_not_know_stops_it_with_a_sentence() {
        let (known, unknown) = (MemoryLog::new(), MemoryLog::new());
        made(&known, Some("Europe/Berlin")).await.unwrap();
        unknown.create(1).await.unwrap();
        let mut record = without_time_zone(&known).await;
        let body = String::from_utf8(record.value.unwrap()).unwrap();
        record.value = Some(body.replace('}', ",\"time_zone\":\"Moon/Tranquillity\"}").into_bytes());
        unknown.writer(0).await.unwrap().append(vec![record]).await.unwrap();
        let refused = read_creation(&unknown, 0).await.unwrap_err().to_string();
        assert!(
            refused.contains("there is no time zone \"Moon/Tranquillity\""),
            "{refused}"
        );
    }

    /// A first record as it was written before there was a choice.
    async fn without_time_zone(log: &MemoryLog) -> Record {
        let created = read_creation(log, 0).await.unwrap();
        let mut record = created.to_record(SystemClock.now());
        let mut body: serde_json::Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        assert!(body.as_object_mut().unwrap().remove("time_zone").is_some());
        record.value = Some(serde_json::to_vec(&body).unwrap());
        record
    }
}
