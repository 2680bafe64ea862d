//! A company that does not exist: it sells machines and looks after them, and has three shops for tools, in Taiwan, from November 2024
//! to October 2026. Everything it does goes through the same door as anyone's commands.
//!
//! No clock and no chance: the same company comes out every time, so that it can be made again on top of itself without effect.

mod book;
mod calendar;
mod luck;
mod sales;
mod service;
mod shop;
mod words;

use domain::Calendar;
use jiff::Timestamp;

use book::Book;

use crate::sources::ImportLine;

/// How large the company is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// About 2,000 events, for tests.
    Small,
    /// About 100,000 events.
    Full,
}

impl Scale {
    /// The company's name, part of every id, and what its serial numbers begin with: the two companies can stand side by side.
    fn company(self) -> (&'static str, &'static str) {
        match self {
            Scale::Small => ("demo-small", "S-"),
            Scale::Full => ("demo", ""),
        }
    }

    /// `full` of the large company, and as much less of the small one.
    fn of(self, full: i64) -> i64 {
        match self {
            Scale::Small => full / 50,
            Scale::Full => full,
        }
    }
}

/// The end of the company's last day, with which all questions about it are well asked.
pub fn last_day(calendar: &Calendar) -> Timestamp {
    calendar.time(calendar::LAST_DAY.at(23, 59, 0, 0))
}

/// All commands, in the order in which people entered them; some late, so that they were true before. The company works
/// by the clocks of
/// `calendar`, wherever those are.
pub fn lines(scale: Scale, calendar: &Calendar) -> impl Iterator<Item = ImportLine> + Send + use<> {
    let (company, serials) = scale.company();
    let mut book = Book::new(company, serials);
    let mut organisations = sales::known_organisations(&mut book, scale);
    organisations.extend(sales::leads(&mut book, scale, organisations.len()));
    let known: Vec<_> = organisations.iter().filter(|it| it.is_old).map(|it| it.id).collect();
    for organisation in &organisations {
        let machines = sales::deals(&mut book, organisation);
        for machine in machines {
            service::look_after(&mut book, organisation, machine, &known);
        }
        service::questions(&mut book, organisation);
    }
    sales::reviews(&mut book, &organisations);
    shop::trade(&mut book, scale);
    book.into_lines(calendar)
}

#[cfg(test)]
mod specs {
    use std::collections::{BTreeSet, HashSet};

    use domain::StreamKind;
    use jiff::SignedDuration;

    use super::*;
    use crate::sources::spec::Folded;

    fn folded(scale: Scale) -> Folded {
        let mut folded = Folded::default();
        folded.take_all(lines(scale, &Calendar::taipei()).map(Ok));
        folded
    }

    fn kinds(folded: &Folded) -> BTreeSet<StreamKind> {
        folded.states.keys().map(|stream| stream.kind).collect()
    }

    #[test]
    fn everything_that_both_companies_do_is_accepted() {
        let mut folded = folded(Scale::Small);
        let small = folded.facts.len();
        assert!((1_500..2_500).contains(&small), "{small} events");
        let all: BTreeSet<_> = StreamKind::ALL
            .iter()
            .copied()
            .filter(|kind| *kind != StreamKind::Link)
            .collect();
        assert_eq!(kinds(&folded), all);
        folded.take_all(lines(Scale::Full, &Calendar::taipei()).map(Ok));
        assert_eq!((folded.rejected, folded.idle, folded.repeated), (vec![], vec![], 0));
        let full = folded.facts.len() - small;
        assert!((95_000..105_000).contains(&full), "{full} events");
    }

    #[test]
    fn the_same_company_comes_out_every_time() {
        let told = || lines(Scale::Small, &Calendar::taipei()).map(|line| format!("{line:?}"));
        assert!(told().eq(told()), "the same lines");
    }

    #[test]
    fn people_enter_some_things_late() {
        let (mut now, mut lines_total, mut late) = (Timestamp::MIN, 0, 0);
        let mut ids = HashSet::new();
        for line in lines(Scale::Full, &Calendar::taipei()) {
            let at = line.effective_at.expect("a time in the two years");
            assert!(
                at >= calendar::at(calendar::FIRST_DAY, 9, 0) && at <= last_day(&Calendar::taipei()),
                "{at}"
            );
            late += usize::from(now > at + SignedDuration::from_hours(12));
            now = now.max(at);
            lines_total += 1;
            ids.insert(line.command_id);
        }
        assert_eq!(ids.len(), lines_total);
        assert!((500..5_000).contains(&late), "{late} of {lines_total}");
    }
}
