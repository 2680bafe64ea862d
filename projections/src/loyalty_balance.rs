//! What each loyalty account holds, owes, and is about to lose.

use domain::loyalty::{self, LotPoints};
use domain::{Fact, StreamKind, in_sequence};
use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use crate::{Event, Group, List, ReadModel, Row, Rows, table};

table! {
    /// `balance - debt = earned + adjusted - redeemed - expired`.
    entity LoyaltyBalanceRow "loyalty_balance" {
        key account: Uuid,
        set customer: Uuid,
        set program: String,
        /// Points in the lots, those too that are past their day and were not taken out yet.
        set balance: i64,
        /// Points that were spent and then taken back; later ones pay it off first.
        set debt: i64,
        /// Less what was reversed.
        set earned: i64,
        /// Less what was reversed.
        set redeemed: i64,
        set expired: i64,
        /// Signed.
        set adjusted: i64,
        /// The first day on which points of the balance are no longer good.
        set next_expiry: Option<Date>,
        /// How many are no longer good on that day.
        set next_expiry_points: i64,
        /// The points of the balance by the day on which they are no longer good; those that never expire are not among them.
        set expiries: Vec<(Date, i64)>,
        set enrolled_at: Timestamp,
        set changed_at: Timestamp,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "loyalty_balance",
    about: "Every loyalty account with its points, debt and next expiry",
    group: Group::Analytics,
    version: 2,
    streams: &[StreamKind::Loyalty],
    tables: &[LoyaltyBalanceRow::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        List::of::<LoyaltyBalanceRow>().plan(question)
    },
};

fn project(event: &Event, rows: &mut Rows) {
    let Fact::Loyalty(fact) = &event.fact else { return };
    if let loyalty::Event::Enrolled { customer, program } = fact {
        rows.put(LoyaltyBalanceRow {
            account: event.stream.id,
            customer: customer.uuid(),
            program: program.clone(),
            balance: 0,
            debt: 0,
            earned: 0,
            redeemed: 0,
            expired: 0,
            adjusted: 0,
            next_expiry: None,
            next_expiry_points: 0,
            expiries: vec![],
            enrolled_at: event.effective_at,
            changed_at: event.effective_at,
        });
        return;
    }
    rows.update(event.stream.id, |row: &mut LoyaltyBalanceRow| {
        row.changed_at = in_sequence(row.changed_at, event.effective_at);
        row.balance += fact.delta();
        row.debt += fact.debt_delta();
        match fact {
            loyalty::Event::Enrolled { .. } => {}
            loyalty::Event::Earned { points, .. } => row.earned += points,
            loyalty::Event::EarnReversed { points, .. } => row.earned -= points,
            loyalty::Event::Redeemed { points, .. } => row.redeemed += points,
            loyalty::Event::RedemptionReversed { points, .. } => row.redeemed -= points,
            loyalty::Event::Expired { points, .. } => row.expired += points,
            loyalty::Event::Adjusted { points, .. } => row.adjusted += points,
        }
        for (expires_on, points) in lot_deltas(fact) {
            if let Some(expires_on) = expires_on {
                row.expect_expiry(expires_on, points);
            }
        }
        let next = row.expiries.first().copied();
        row.next_expiry = next.map(|(expires_on, _)| expires_on);
        row.next_expiry_points = next.map_or(0, |(_, points)| points);
    });
}

impl LoyaltyBalanceRow {
    fn expect_expiry(&mut self, expires_on: Date, points: i64) {
        match self.expiries.binary_search_by_key(&expires_on, |(day, _)| *day) {
            Ok(at) => self.expiries[at].1 += points,
            Err(at) => self.expiries.insert(at, (expires_on, points)),
        }
        self.expiries.retain(|(_, points)| *points != 0);
    }
}

/// By how much an event changes what lies in the lots, by the day on which they expire.
pub(crate) fn lot_deltas(fact: &loyalty::Event) -> Vec<(Option<Date>, i64)> {
    let signed = |lots: &[LotPoints], sign: i64| {
        let parts = lots.iter().map(|part| (part.expires_on, sign * part.points));
        parts.collect()
    };
    match fact {
        loyalty::Event::Enrolled { .. } => vec![],
        loyalty::Event::Earned { expires_on, .. } => vec![(*expires_on, fact.delta())],
        loyalty::Event::Redeemed { lots, .. } | loyalty::Event::Expired { lots, .. } => signed(lots, -1),
        loyalty::Event::EarnReversed { taken, .. } => signed(taken, -1),
        loyalty::Event::RedemptionReversed { lots, .. } => signed(lots, 1),
        loyalty::Event::Adjusted { points, lots, .. } => signed(lots, points.signum()),
    }
}

#[cfg(test)]
pub(crate) mod specs {
    use std::any::Any;

    use domain::{Calendar, Companions, Id, Moment, Stream, StreamRef};
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::ReadModel;
    use crate::spec::{World, id, moment, question};

    struct Elsewhere;

    impl Companions for Elsewhere {
        fn find(&self, _: StreamRef) -> Option<&dyn Any> {
            None
        }
    }

    fn day(n: i8) -> Date {
        date(2026, 3, 1).checked_add(jiff::Span::new().days(n)).unwrap()
    }

    /// An account to which these commands were given, one a day; refused ones leave nothing.
    pub fn account(models: &[&'static ReadModel], commands: Vec<loyalty::Command>) -> (World, loyalty::State) {
        let account = id("account");
        let mut world = World::new(models);
        let mut state = loyalty::State::default();
        let enrol = loyalty::Command::Enrol {
            customer: Id::new(id("mei")),
            program: "points".into(),
        };
        let calendar = Calendar::taipei();
        for (n, command) in (0..).zip([vec![enrol], commands].concat()) {
            let at = calendar.day_start(day(n));
            let moment = Moment::new(account, at, at, &calendar, &Elsewhere);
            for fact in loyalty::Loyalty::decide(&state, command, &moment).unwrap_or_default() {
                state = loyalty::Loyalty::evolve(state, &fact, at);
                world.record_at(StreamRef::of::<loyalty::Loyalty>(Id::new(account)), None, fact, at, at);
            }
        }
        (world, state)
    }

    pub fn earn(points: i64, source: &str, expires_on: Option<Date>) -> loyalty::Command {
        loyalty::Command::Earn {
            points,
            source: source.into(),
            expires_on,
        }
    }

    pub fn redeem(points: i64, reference: &str) -> loyalty::Command {
        loyalty::Command::Redeem {
            points,
            reference: reference.into(),
        }
    }

    pub fn reverse(of: &str) -> loyalty::Command {
        loyalty::Command::Reverse {
            of: of.into(),
            points: None,
            what: None,
            reference: None,
            reason: "returned".into(),
        }
    }

    /// So many of what was earned.
    pub fn reverse_part(of: &str, points: i64) -> loyalty::Command {
        loyalty::Command::Reverse {
            of: of.into(),
            points: Some(points),
            what: Some(loyalty::What::Earned),
            reference: None,
            reason: "returned".into(),
        }
    }

    /// Anything that may be asked of an account; much of it will be refused.
    pub fn commands() -> impl Strategy<Value = Vec<loyalty::Command>> {
        let command = (0..7, 1_i64..60, 0_usize..5, proptest::option::of(1_i8..80));
        let command = command.prop_map(|(which, points, name, expires)| {
            let name = ["r1", "r2", "r3", "r4", "r5"][name];
            match which {
                0 | 1 => earn(points, name, expires.map(day)),
                2 => redeem(points, name),
                3 => reverse(name),
                4 => reverse_part(name, points),
                5 => loyalty::Command::Expire {
                    on: day(expires.unwrap_or(5)),
                },
                _ => loyalty::Command::Adjust {
                    points: points - 30,
                    reference: None,
                    shortfall: loyalty::Shortfall::Debt,
                    reason: "goodwill".into(),
                },
            }
        });
        proptest::collection::vec(command, 0..30)
    }

    #[test]
    fn an_account_shows_what_it_holds_and_is_about_to_lose() {
        let (may, june) = (date(2026, 5, 1), date(2026, 6, 1));
        let (world, _) = account(
            &[&MODEL],
            vec![
                earn(100, "r1", Some(june)),
                earn(40, "r2", Some(may)),
                earn(7, "r3", None),
                redeem(10, "coffee"),
            ],
        );
        let expected = LoyaltyBalanceRow {
            account: id("account"),
            customer: id("mei"),
            program: "points".into(),
            balance: 137,
            debt: 0,
            earned: 147,
            redeemed: 10,
            expired: 0,
            adjusted: 0,
            next_expiry: Some(may),
            next_expiry_points: 30,
            expiries: vec![(may, 30), (june, 100)],
            enrolled_at: moment("2026-03-01T00:00:00+08:00"),
            changed_at: moment("2026-03-05T00:00:00+08:00"),
        };
        assert_eq!(world.rows::<LoyaltyBalanceRow>(), vec![expected]);
        let losing_soon = question(&["next_expiry<2026-05-15"]);
        assert_eq!(world.ask(&MODEL, losing_soon).rows.len(), 1);
    }

    #[test]
    fn no_entry_is_before_the_one_before_it() {
        let mut world = World::new(&[&MODEL]);
        let account = StreamRef::of::<loyalty::Loyalty>(Id::new(id("account")));
        let (first, second, third) = (
            "2026-03-01T09:00:00+08:00",
            "2026-03-02T09:00:00+08:00",
            "2026-03-03T09:00:00+08:00",
        );
        let enrolled = loyalty::Event::Enrolled {
            customer: Id::new(id("mei")),
            program: "points".into(),
        };
        let earned = loyalty::Event::Earned {
            points: 5,
            source: "r1".into(),
            expires_on: None,
            debt_paid: 0,
            balance: 5,
        };
        world.record(account, None, enrolled, second, third);
        world.record(account, None, earned, first, third);
        let row = world.rows::<LoyaltyBalanceRow>().remove(0);
        assert_eq!((row.enrolled_at, row.changed_at), (moment(second), moment(second)));
    }

    #[test]
    fn points_that_were_spent_and_taken_back_are_a_debt() {
        let commands = vec![earn(100, "r1", None), redeem(80, "coffee"), reverse("r1")];
        let (world, _) = account(&[&MODEL], commands);
        let row = world.rows::<LoyaltyBalanceRow>().remove(0);
        assert_eq!((row.balance, row.debt, row.earned, row.redeemed), (0, 80, 0, 80));
    }

    #[test]
    fn a_part_that_comes_back_after_its_points_were_spent_is_a_debt_in_every_read_model() {
        let correction = loyalty::Command::Adjust {
            points: -5,
            reference: None,
            shortfall: loyalty::Shortfall::Debt,
            reason: "typed twice".into(),
        };
        let commands = vec![
            earn(90, "r1", None),
            redeem(90, "coffee"),
            reverse_part("r1", 30),
            reverse_part("r1", 20),
            correction,
            earn(10, "r2", None),
        ];
        let (world, state) = account(&[&MODEL, &crate::loyalty_liability::MODEL], commands);
        let row = world.rows::<LoyaltyBalanceRow>().remove(0);
        assert_eq!((row.balance, row.debt), (0, 45));
        assert_eq!((row.earned, row.redeemed, row.adjusted), (50, 90, -5));
        assert_eq!((state.balance(), state.debt), (0, 45));
        let owed = world.ask(&crate::loyalty_liability::MODEL, question(&[])).rows;
        let ints: Vec<_> = owed[0][2..5].iter().map(crate::Value::as_int).collect();
        assert_eq!(ints, [0, 90, 90], "outstanding, issued, redeemed");
    }

    proptest! {
        #[test]
        fn the_balance_is_that_of_the_account_and_its_ledger_adds_up(commands in commands()) {
            let (world, state) = account(&[&MODEL], commands);
            let row = world.rows::<LoyaltyBalanceRow>().remove(0);
            prop_assert_eq!((row.balance, row.debt), (state.balance(), state.debt));
            prop_assert_eq!(row.balance - row.debt, row.earned + row.adjusted - row.redeemed - row.expired);
            let mut left = std::collections::BTreeMap::new();
            for lot in state.lots.values().filter(|lot| lot.left > 0) {
                if let Some(expires_on) = lot.expires_on {
                    *left.entry(expires_on).or_insert(0) += lot.left;
                }
            }
            prop_assert_eq!(row.next_expiry, left.keys().next().copied());
            prop_assert_eq!(row.expiries, left.into_iter().collect::<Vec<_>>());
        }
    }
}
