//! Which generations a group has, and what creating and promoting one comes to: the same for every store.

use projections::{Group, Table};
use serde::{Deserialize, Serialize};
use services::views::{Generation, GenerationStatus, ViewError};

use super::sql::{Dialect, Stored};

/// A generation with the public views that show it. They are kept as SQL, for a later program may know its tables no more.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub generation: Generation,
    pub views: Vec<View>,
}

/// A public view, named like its table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    pub name: String,
    pub select: String,
}

/// The views of a generation's tables.
pub(crate) fn views(dialect: Dialect, group: Group, number: i64, tables: &[&'static Table]) -> Vec<View> {
    tables
        .iter()
        .map(|table| View {
            name: table.name.to_owned(),
            select: Stored::of(dialect, group, number, table).merged(),
        })
        .collect()
}

/// What `create` does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    /// Somebody else made it already.
    Existing(Generation),
    New {
        generation: Generation,
        /// A half-built one of another definition.
        dropped: Option<i64>,
    },
}

/// Finds out what `create` does. `is_live_untouched` = nothing was read into the live one yet, so that building another one beside
/// it would be pointless: two callers who both found an empty store get the same one.
pub(crate) fn creation(
    known: &[Entry],
    is_live_untouched: bool,
    group: Group,
    definition: &str,
    shards: u16,
) -> Creation {
    let fits = |generation: &Generation| generation.definition == definition && generation.shards == shards;
    let building = find(known, GenerationStatus::Building);
    let live = find(known, GenerationStatus::Live);
    if let Some(building) = building.filter(|building| fits(building)) {
        return Creation::Existing(building.clone());
    }
    if let Some(live) = live.filter(|live| is_live_untouched && fits(live)) {
        return Creation::Existing(live.clone());
    }
    let last = known.iter().map(|entry| entry.generation.number).max();
    Creation::New {
        generation: Generation {
            group,
            number: last.unwrap_or(0) + 1,
            definition: definition.to_owned(),
            status: match live {
                None => GenerationStatus::Live,
                Some(_) => GenerationStatus::Building,
            },
            shards,
        },
        dropped: building.map(|building| building.number),
    }
}

/// What `promote` does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Promotion {
    /// By number.
    pub statuses: Vec<(i64, GenerationStatus)>,
    pub dropped: Option<i64>,
    /// The views that go, by name.
    pub hidden: Vec<String>,
    pub shown: Vec<View>,
}

/// Finds out what `promote` does; `None` = it is live already, or was since `wanted` was looked up: who goes live late must not undo a
/// rollback.
///
/// # Errors
/// When there is no such generation any more, as a sentence.
pub(crate) fn promotion(known: &[Entry], wanted: &Generation) -> Result<Option<Promotion>, String> {
    let entry = known
        .iter()
        .find(|entry| entry.generation.number == wanted.number)
        .ok_or_else(|| format!("generation {} of {} is gone", wanted.number, wanted.group.name()))?;
    let status = entry.generation.status;
    let was_live = wanted.status == GenerationStatus::Building && status == GenerationStatus::Previous;
    if status == GenerationStatus::Live || was_live {
        return Ok(None);
    }
    let live = known
        .iter()
        .find(|entry| entry.generation.status == GenerationStatus::Live);
    let mut statuses = vec![];
    let mut hidden = vec![];
    if let Some(live) = live {
        statuses.push((live.generation.number, GenerationStatus::Previous));
        let is_kept = |view: &View| entry.views.iter().any(|shown| shown.name == view.name);
        let gone = live.views.iter().filter(|view| !is_kept(view));
        hidden.extend(gone.map(|view| view.name.clone()));
    }
    statuses.push((wanted.number, GenerationStatus::Live));
    let dropped = match status {
        GenerationStatus::Building => find(known, GenerationStatus::Previous).map(|previous| previous.number),
        GenerationStatus::Previous | GenerationStatus::Live => None,
    };
    Ok(Some(Promotion {
        statuses,
        dropped,
        hidden,
        shown: entry.views.clone(),
    }))
}

/// Why a generation that is being built cannot go live, if it cannot. Of a rollback that fails the operator hears at once.
pub(crate) fn blocking(generation: &Generation, done: &Result<(), ViewError>) -> Option<String> {
    let is_built = generation.status == GenerationStatus::Building;
    done.as_ref().err().filter(|_| is_built).map(ViewError::to_string)
}

fn find(known: &[Entry], status: GenerationStatus) -> Option<&Generation> {
    known
        .iter()
        .map(|entry| &entry.generation)
        .find(|generation| generation.status == status)
}

/// As it stands in the registry.
pub(crate) fn status_name(status: GenerationStatus) -> &'static str {
    match status {
        GenerationStatus::Building => "building",
        GenerationStatus::Live => "live",
        GenerationStatus::Previous => "previous",
    }
}

/// A registry row: number, definition, status, shards, views.
///
/// # Errors
/// When a later program wrote what this one cannot read, as a sentence.
pub(crate) fn entry(group: Group, row: (i64, String, String, i64, String)) -> Result<Entry, String> {
    let (number, definition, status, shards, views) = row;
    let unreadable = |what: &str| format!("generation {number} of {} has an unknown {what}", group.name());
    let known = [
        GenerationStatus::Building,
        GenerationStatus::Live,
        GenerationStatus::Previous,
    ];
    let generation = Generation {
        group,
        number,
        definition,
        status: known
            .into_iter()
            .find(|known| status_name(*known) == status)
            .ok_or_else(|| unreadable("status"))?,
        shards: u16::try_from(shards).map_err(|_| unreadable("number of shards"))?,
    };
    let views = serde_json::from_str(&views).map_err(|_| unreadable("list of views"))?;
    Ok(Entry { generation, views })
}
