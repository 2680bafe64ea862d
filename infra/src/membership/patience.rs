//! How long a seat may be without the group's word before it is taken anew.
//!
//! A member that joins waits for an answer which comes when the others have joined again too. A broker that stood still
//! may owe it for ever, and the client library waits on. So a seat is given up when the group goes on without it, by
//! the broker's account, and in any case after a time in which every rebalance is over. To have no shard is a word too.

use std::time::Duration;

use serde::Deserialize;

use super::RELEASE_MAX;

/// Of a rebalance, beside the time of releasing shards and that of a session: questions, answers, and a machine that is busy.
const MARGIN: Duration = Duration::from_secs(5);
/// How long a seat may be without the group's word, and a session more.
pub const UNSETTLED_MAX: Duration = RELEASE_MAX.saturating_add(Duration::from_secs(15));
/// Between two questions about the group.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// The group goes on without a seat when it was found so for so often in a row.
const WITHOUT_US_MIN: u32 = 2;
/// The client has lost the group when the broker answered others for so often in a row, and it was not in touch.
const OUT_OF_TOUCH_MIN: u32 = 3;
/// Each seat that was given up doubles the time of the next, so often: a group that needs longer is not disturbed again
/// and again.
const DOUBLINGS_MAX: u32 = 3;
/// Time in which the process itself stood still is not counted.
const STEP_MAX: Duration = Duration::from_secs(1);

/// How long a member may take to join again when the group rebalances: it releases shards first. Who takes longer is
/// put out of the group, and asks anew for what it was not answered.
pub fn rejoin_max(session: Duration) -> Duration {
    RELEASE_MAX + session + MARGIN
}

/// What the broker says of the group, to another client than the member's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// It does not answer.
    Silent,
    /// The group waits for a member.
    Waits,
    /// The group waits for nobody.
    GoesOn,
}

/// The time that seats have been without the group's word.
pub struct Patience {
    session: Duration,
    /// Of all seats since the last word.
    unsettled: Duration,
    /// Of the present one.
    seated: Duration,
    /// Seats given up since the last word.
    given_up: u32,
    /// The next question is due when the seat has been unsettled for so long.
    ask_at: Duration,
    found_without_us: u32,
    found_out_of_touch: u32,
}

impl Patience {
    pub fn new(session: Duration) -> Patience {
        let mut patience = Patience {
            session,
            unsettled: Duration::ZERO,
            seated: Duration::ZERO,
            given_up: 0,
            ask_at: Duration::ZERO,
            found_without_us: 0,
            found_out_of_touch: 0,
        };
        patience.settle();
        patience
    }

    /// Since the group's last word.
    pub fn unsettled(&self) -> Duration {
        self.unsettled
    }

    /// The group has spoken.
    pub fn settle(&mut self) {
        (self.unsettled, self.given_up) = (Duration::ZERO, 0);
        self.begin_seat();
    }

    /// A seat was given up.
    pub fn give_up(&mut self) {
        self.given_up = (self.given_up + 1).min(DOUBLINGS_MAX);
        self.begin_seat();
    }

    fn begin_seat(&mut self) {
        self.seated = Duration::ZERO;
        self.ask_at = (self.session + MARGIN) * self.factor();
        (self.found_without_us, self.found_out_of_touch) = (0, 0);
    }

    fn factor(&self) -> u32 {
        1 << self.given_up
    }

    /// So much time has passed without a word.
    pub fn wait(&mut self, step: Duration) {
        let step = step.min(STEP_MAX);
        self.unsettled += step;
        self.seated += step;
    }

    /// Is it time to ask the broker how the group is?
    pub fn asks(&mut self) -> bool {
        let asks = self.seated >= self.ask_at;
        if asks {
            self.ask_at = self.seated + ASK_EVERY;
        }
        asks
    }

    /// What the broker said, and whether the member's client is in touch with the group itself.
    pub fn hear(&mut self, account: Account, is_in_touch: bool) {
        let count = |so_far: u32, is_so: bool| if is_so { so_far + 1 } else { 0 };
        self.found_without_us = count(self.found_without_us, account == Account::GoesOn);
        let is_out_of_touch = account != Account::Silent && !is_in_touch;
        self.found_out_of_touch = count(self.found_out_of_touch, is_out_of_touch);
    }

    /// Why the seat is to be given up, when it is.
    pub fn end(&self) -> Option<&'static str> {
        if self.found_without_us >= WITHOUT_US_MIN {
            return Some("the group goes on without it");
        }
        if self.found_out_of_touch >= OUT_OF_TOUCH_MIN {
            return Some("the broker answers others, and its client does not find the group");
        }
        let is_over = self.seated >= (UNSETTLED_MAX + self.session) * self.factor();
        is_over.then_some("the group has said nothing")
    }
}

/// The part of the client library's statistics that tells of its seat.
#[derive(Deserialize)]
pub struct Statistics {
    cgrp: Option<State>,
}

#[derive(Deserialize)]
struct State {
    state: String,
    join_state: String,
}

impl Statistics {
    /// Is the client in the group, with an assignment, and in touch with it?
    pub fn is_settled(&self) -> bool {
        let is_settled = |seat: &State| seat.state == "up" && seat.join_state == "steady";
        self.cgrp.as_ref().is_some_and(is_settled)
    }

    /// Is the client in touch with the broker that coordinates the group?
    pub fn is_in_touch(&self) -> bool {
        self.cgrp.as_ref().is_some_and(|seat| seat.state == "up")
    }

    /// In the library's words.
    pub fn state(&self) -> String {
        let state = |seat: &State| format!("{}, {}", seat.state, seat.join_state);
        self.cgrp.as_ref().map(state).unwrap_or_default()
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    const SESSION: Duration = Duration::from_secs(6);
    const STEP: Duration = Duration::from_millis(50);

    /// Waits until the seat is to be given up, while the broker says the same all the time; after how long, and why.
    fn wait(patience: &mut Patience, broker_says: Account, is_in_touch: bool) -> (Duration, &'static str) {
        let mut waited = Duration::ZERO;
        loop {
            if let Some(why) = patience.end() {
                return (waited, why);
            }
            patience.wait(STEP);
            waited += STEP;
            if patience.asks() {
                patience.hear(broker_says, is_in_touch);
            }
        }
    }

    #[test]
    fn a_seat_is_given_up_when_the_group_goes_on_without_it() {
        let mut patience = Patience::new(SESSION);
        let (waited, why) = wait(&mut patience, Account::GoesOn, true);
        assert_eq!(why, "the group goes on without it");
        assert_eq!(waited, SESSION + MARGIN + ASK_EVERY);
        assert!(
            waited > SESSION,
            "the broker has put out by then whoever it does not hear"
        );
    }

    #[test]
    fn a_seat_without_a_word_is_given_up_after_a_time_in_which_every_rebalance_is_over() {
        for (broker_says, is_in_touch) in [
            (Account::Silent, true),
            (Account::Silent, false),
            (Account::Waits, true),
        ] {
            let (waited, why) = wait(&mut Patience::new(SESSION), broker_says, is_in_touch);
            assert_eq!((waited, why), (UNSETTLED_MAX + SESSION, "the group has said nothing"));
            assert!(
                waited > rejoin_max(SESSION) + Duration::from_secs(3),
                "the library asks anew sooner"
            );
        }
    }

    #[test]
    fn each_seat_gets_twice_the_time_of_the_one_before_up_to_eight_times_until_the_group_speaks() {
        let mut patience = Patience::new(SESSION);
        let mut waits = vec![];
        for _ in 0..6 {
            waits.push(wait(&mut patience, Account::Silent, false).0 / (UNSETTLED_MAX + SESSION).as_secs() as u32);
            patience.give_up();
        }
        assert_eq!(waits, [1, 2, 4, 8, 8, 8].map(Duration::from_secs));
        assert_eq!(patience.unsettled(), (UNSETTLED_MAX + SESSION) * 31);
        patience.settle();
        assert_eq!(patience.unsettled(), Duration::ZERO);
        assert_eq!(wait(&mut patience, Account::Silent, false).0, UNSETTLED_MAX + SESSION);
    }

    #[test]
    fn a_group_that_is_found_to_go_on_once_and_then_waits_is_waited_for() {
        let mut patience = Patience::new(SESSION);
        for account in [Account::GoesOn, Account::Waits, Account::GoesOn, Account::Silent] {
            patience.hear(account, true);
            assert_eq!(patience.end(), None);
        }
    }

    #[test]
    fn a_seat_is_given_up_when_others_reach_the_broker_and_its_client_does_not_find_the_group() {
        let (waited, why) = wait(&mut Patience::new(SESSION), Account::Waits, false);
        assert_eq!(why, "the broker answers others, and its client does not find the group");
        assert_eq!(waited, SESSION + MARGIN + ASK_EVERY * (OUT_OF_TOUCH_MIN - 1));
    }

    #[test]
    fn a_client_that_finds_the_group_now_and_then_is_waited_for() {
        let mut patience = Patience::new(SESSION);
        for is_in_touch in [false, false, true, false, false] {
            patience.hear(Account::Waits, is_in_touch);
            assert_eq!(patience.end(), None);
        }
    }

    #[test]
    fn time_in_which_the_process_stood_still_is_not_counted() {
        let mut patience = Patience::new(SESSION);
        patience.wait(Duration::from_secs(3_600));
        assert_eq!((patience.unsettled(), patience.end()), (STEP_MAX, None));
    }

    #[test]
    fn a_seat_is_settled_when_its_client_is_in_touch_and_has_an_assignment_however_small() {
        let told =
            |seat: &str| serde_json::from_str::<Statistics>(&format!(r#"{{"name": "a", "cgrp": {seat}}}"#)).unwrap();
        for (seat, is_settled) in [
            (r#"{"state": "up", "join_state": "steady", "assignment_size": 3}"#, true),
            (r#"{"state": "up", "join_state": "steady", "assignment_size": 0}"#, true),
            (
                r#"{"state": "up", "join_state": "wait-join", "assignment_size": 3}"#,
                false,
            ),
            (
                r#"{"state": "wait-coord", "join_state": "steady", "assignment_size": 3}"#,
                false,
            ),
            ("null", false),
        ] {
            assert_eq!(told(seat).is_settled(), is_settled, "{seat}");
        }
        assert_eq!(told(r#"{"state": "up", "join_state": "init"}"#).state(), "up, init");
    }
}
