//! A deal on its way to be won or lost (商機; Opportunity).

use jiff::Timestamp;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::pipeline::{PIPELINE, PIPELINE_VERSION, stage, stage_names};
use crate::{Currency, Home, Id, Moment, Money, Stream, StreamKind, StreamRef};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Opened {
        customer: Id<Customer>,
        name: String,
        pipeline: String,
        pipeline_version: u32,
        stage: String,
        probability_bp: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        amount: Option<Money>,
        close_date: Date,
        owner: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    },
    StageChanged {
        from: String,
        to: String,
        pipeline_version: u32,
        probability_bp: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    AmountSet {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Money>,
        to: Money,
    },
    CloseDateSet {
        from: Date,
        to: Date,
    },
    ForecastCategorySet {
        from: ForecastCategory,
        to: ForecastCategory,
    },
    ProbabilityOverridden {
        basis_points: u16,
        reason: String,
    },
    Won {
        /// The stage it was won from.
        stage: String,
        amount: Money,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    Lost {
        /// The stage it was lost from.
        stage: String,
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        competitor: Option<String>,
    },
    Reopened {
        stage: String,
        reason: String,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Begin a deal for a customer. It starts in the first stage unless `stage` says otherwise.
    Open {
        customer: Id<Customer>,
        name: String,
        pipeline: Option<String>,
        stage: Option<String>,
        amount: Option<Money>,
        close_date: Date,
        owner: String,
        source: Option<String>,
    },
    ChangeStage {
        to: String,
        reason: Option<String>,
    },
    /// The amount keeps the currency that it was first given in.
    SetAmount {
        amount: Money,
    },
    SetCloseDate {
        close_date: Date,
    },
    SetForecastCategory {
        category: ForecastCategory,
    },
    /// Put a probability of one's own in the place of the stage's, until the stage changes.
    OverrideProbability {
        #[schemars(range(max = 10_000))]
        basis_points: u16,
        reason: String,
    },
    /// Won, for `amount` if it differs from the one that was set.
    Win {
        amount: Option<Money>,
        reason: Option<String>,
    },
    Lose {
        reason: String,
        competitor: Option<String>,
    },
    /// Back to the stage from which it was won or lost.
    Reopen {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForecastCategory {
    #[default]
    Pipeline,
    BestCase,
    Commit,
    Omitted,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no such opportunity; open it first")]
    NotOpened,
    #[error("this opportunity is already open with other data")]
    AlreadyOpened,
    #[error("an opportunity needs a name")]
    NameMissing,
    #[error("an opportunity needs an owner")]
    OwnerMissing,
    #[error("there is no pipeline {0:?}; the one there is is called {PIPELINE:?}")]
    UnknownPipeline(String),
    #[error("the pipeline has no stage {0:?}, it has: {stages}", stages = stage_names())]
    UnknownStage(String),
    #[error("an amount is not negative")]
    NegativeAmount,
    #[error("this opportunity is in {0}, an amount in {1} does not fit")]
    ForeignCurrency(Currency, Currency),
    #[error("a probability lies between 0 and 10000 basis points")]
    ProbabilityOutOfRange,
    #[error("a reason is needed")]
    ReasonMissing,
    #[error("an opportunity is won for an amount; none was given or set before")]
    AmountMissing,
    #[error("opportunity is already won")]
    AlreadyWon,
    #[error("opportunity is already lost")]
    AlreadyLost,
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    pub status: Status,
    pub customer: Option<Id<Customer>>,
    pub name: String,
    pub stage: String,
    pub amount: Option<Money>,
    pub close_date: Option<Date>,
    pub owner: String,
    pub category: ForecastCategory,
    /// The probability that was put in the place of the stage's, in basis points.
    pub probability_override: Option<u16>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    NotOpened,
    Open,
    Won,
    Lost,
}

#[derive(Debug)]
pub struct Opportunity;

impl Stream for Opportunity {
    const NAME: &'static str = "opportunity";
    const KIND: StreamKind = StreamKind::Opportunity;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn home(command: &Command) -> Home {
        match command {
            Command::Open { customer, .. } => Home::With(customer.uuid()),
            _ => Home::Anywhere,
        }
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        match command {
            Command::Open { customer, .. } => customer::companion(*customer),
            _ => vec![],
        }
    }

    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        match (state.status, &command) {
            (Status::NotOpened, Command::Open { .. }) => {}
            (Status::NotOpened, _) => return Err(Rejection::NotOpened),
            (_, Command::Open { .. }) | (Status::Open, _) => {}
            (Status::Won, Command::Win { .. } | Command::Reopen { .. }) => {}
            (Status::Won, _) => return Err(Rejection::AlreadyWon),
            (Status::Lost, Command::Lose { .. } | Command::Reopen { .. }) => {}
            (Status::Lost, _) => return Err(Rejection::AlreadyLost),
        }
        Ok(match command {
            Command::Open { .. } => open(state, command, at)?,
            Command::ChangeStage { to, .. } if to == state.stage => vec![],
            Command::ChangeStage { to, reason } => {
                let probability_bp = stage(&to)
                    .ok_or_else(|| Rejection::UnknownStage(to.clone()))?
                    .probability_bp;
                let from = state.stage.clone();
                vec![Event::StageChanged {
                    from,
                    to,
                    pipeline_version: PIPELINE_VERSION,
                    probability_bp,
                    reason,
                }]
            }
            Command::SetAmount { amount } => {
                check_amount(state, amount)?;
                if state.amount == Some(amount) {
                    vec![]
                } else {
                    vec![Event::AmountSet {
                        from: state.amount,
                        to: amount,
                    }]
                }
            }
            Command::SetCloseDate { close_date } => match state.close_date {
                Some(from) if from != close_date => vec![Event::CloseDateSet { from, to: close_date }],
                _ => vec![],
            },
            Command::SetForecastCategory { category } if category == state.category => vec![],
            Command::SetForecastCategory { category } => {
                vec![Event::ForecastCategorySet {
                    from: state.category,
                    to: category,
                }]
            }
            Command::OverrideProbability { basis_points, .. } if basis_points > 10_000 => {
                return Err(Rejection::ProbabilityOutOfRange);
            }
            Command::OverrideProbability { reason, .. } if reason.trim().is_empty() => {
                return Err(Rejection::ReasonMissing);
            }
            Command::OverrideProbability { basis_points, .. } if state.probability_override == Some(basis_points) => {
                vec![]
            }
            Command::OverrideProbability { basis_points, reason } => {
                vec![Event::ProbabilityOverridden { basis_points, reason }]
            }
            Command::Win { amount, .. } if state.status == Status::Won => match amount {
                Some(amount) if Some(amount) != state.amount => return Err(Rejection::AlreadyWon),
                _ => vec![],
            },
            Command::Win { amount, reason } => {
                let amount = amount.or(state.amount).ok_or(Rejection::AmountMissing)?;
                check_amount(state, amount)?;
                vec![Event::Won {
                    stage: state.stage.clone(),
                    amount,
                    reason,
                }]
            }
            Command::Lose { reason, .. } if reason.trim().is_empty() => return Err(Rejection::ReasonMissing),
            Command::Lose { .. } if state.status == Status::Lost => vec![],
            Command::Lose { reason, competitor } => vec![Event::Lost {
                stage: state.stage.clone(),
                reason,
                competitor,
            }],
            Command::Reopen { reason } if reason.trim().is_empty() => return Err(Rejection::ReasonMissing),
            Command::Reopen { .. } if state.status == Status::Open => vec![],
            Command::Reopen { reason } => vec![Event::Reopened {
                stage: state.stage.clone(),
                reason,
            }],
        })
    }

    fn evolve(mut state: State, event: &Event, _: Timestamp) -> State {
        match event {
            Event::Opened {
                customer,
                name,
                stage,
                amount,
                close_date,
                owner,
                ..
            } => {
                state.status = Status::Open;
                state.customer = Some(*customer);
                state.name = name.clone();
                state.stage = stage.clone();
                state.amount = *amount;
                state.close_date = Some(*close_date);
                state.owner = owner.clone();
            }
            Event::StageChanged { to, .. } => {
                state.stage = to.clone();
                state.probability_override = None;
            }
            Event::AmountSet { to, .. } => state.amount = Some(*to),
            Event::CloseDateSet { to, .. } => state.close_date = Some(*to),
            Event::ForecastCategorySet { to, .. } => state.category = *to,
            Event::ProbabilityOverridden { basis_points, .. } => state.probability_override = Some(*basis_points),
            Event::Won { amount, .. } => {
                state.status = Status::Won;
                state.amount = Some(*amount);
            }
            Event::Lost { .. } => state.status = Status::Lost,
            Event::Reopened { stage, .. } => {
                state.status = Status::Open;
                state.stage = stage.clone();
            }
        }
        state
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

fn open(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    let Command::Open {
        customer,
        name,
        pipeline,
        stage: first,
        amount,
        close_date,
        owner,
        source,
    } = command
    else {
        unreachable!("only open opens");
    };
    if state.status != Status::NotOpened {
        let same = state.customer == Some(customer) && state.name == name;
        return if same {
            Ok(vec![])
        } else {
            Err(Rejection::AlreadyOpened)
        };
    }
    if name.trim().is_empty() {
        return Err(Rejection::NameMissing);
    }
    if owner.trim().is_empty() {
        return Err(Rejection::OwnerMissing);
    }
    let pipeline = pipeline.unwrap_or_else(|| PIPELINE.to_owned());
    if pipeline != PIPELINE {
        return Err(Rejection::UnknownPipeline(pipeline));
    }
    let first = first.unwrap_or_else(|| crate::pipeline::STAGES[0].name.to_owned());
    let probability_bp = stage(&first)
        .ok_or_else(|| Rejection::UnknownStage(first.clone()))?
        .probability_bp;
    if amount.is_some_and(|amount| amount.minor < 0) {
        return Err(Rejection::NegativeAmount);
    }
    customer::must_be_open(customer, at)?;
    Ok(vec![Event::Opened {
        customer,
        name,
        pipeline,
        pipeline_version: PIPELINE_VERSION,
        stage: first,
        probability_bp,
        amount,
        close_date,
        owner,
        source,
    }])
}

fn check_amount(state: &State, amount: Money) -> Result<(), Rejection> {
    match state.amount {
        _ if amount.minor < 0 => Err(Rejection::NegativeAmount),
        Some(set) if set.currency != amount.currency => Err(Rejection::ForeignCurrency(set.currency, amount.currency)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod specs {
    use jiff::civil::date;

    use super::*;
    use crate::spec::{folded, given, neighbour, stranger};

    fn open_for(customer: Id<Customer>) -> Command {
        Command::Open {
            customer,
            name: "五軸加工機 2 台".into(),
            pipeline: None,
            stage: None,
            amount: Some(Money::new(120_000_000, Currency::TWD)),
            close_date: date(2026, 6, 30),
            owner: "mei".into(),
            source: Some("fair".into()),
        }
    }

    fn opened() -> Event {
        Event::Opened {
            customer: neighbour("a"),
            name: "五軸加工機 2 台".into(),
            pipeline: "default".into(),
            pipeline_version: 1,
            stage: "prospecting".into(),
            probability_bp: 1_000,
            amount: Some(Money::new(120_000_000, Currency::TWD)),
            close_date: date(2026, 6, 30),
            owner: "mei".into(),
            source: Some("fair".into()),
        }
    }

    fn won() -> Event {
        Event::Won {
            stage: "prospecting".into(),
            amount: Money::new(120_000_000, Currency::TWD),
            reason: None,
        }
    }

    fn lose() -> Command {
        Command::Lose {
            reason: "price".into(),
            competitor: None,
        }
    }

    fn active() -> customer::State {
        customer::State {
            status: customer::Status::Active,
            ..Default::default()
        }
    }

    #[test]
    fn a_deal_is_opened_for_a_customer_that_exists_and_is_open() {
        let customer = neighbour("a");
        let closed = customer::State {
            status: customer::Status::Closed,
            ..Default::default()
        };
        given::<Opportunity>([])
            .with(customer, active())
            .when(open_for(customer))
            .then([opened()]);
        given::<Opportunity>([])
            .when(open_for(customer))
            .then_rejected(customer::Unavailable::NotRegistered(customer).into());
        given::<Opportunity>([])
            .with(customer, closed)
            .when(open_for(customer))
            .then_rejected(customer::Unavailable::Closed(customer).into());
    }

    #[test]
    fn a_customer_of_another_slot_is_a_reference_that_cannot_be_checked() {
        let elsewhere = stranger("b");
        let Event::Opened {
            name,
            pipeline,
            stage,
            amount,
            close_date,
            owner,
            source,
            ..
        } = opened()
        else {
            panic!()
        };
        let opened = Event::Opened {
            customer: elsewhere,
            name,
            pipeline,
            pipeline_version: 1,
            stage,
            probability_bp: 1_000,
            amount,
            close_date,
            owner,
            source,
        };
        given::<Opportunity>([]).when(open_for(elsewhere)).then([opened]);
    }

    #[test]
    fn a_won_opportunity_cannot_be_lost() {
        given::<Opportunity>([opened(), won()])
            .when(lose())
            .then_rejected(Rejection::AlreadyWon);
    }

    #[test]
    fn a_reopened_deal_stands_where_it_was_won() {
        given::<Opportunity>([opened(), won()])
            .when(Command::Reopen {
                reason: "order cancelled".into(),
            })
            .then([Event::Reopened {
                stage: "prospecting".into(),
                reason: "order cancelled".into(),
            }]);
    }

    #[test]
    fn one_deal_has_one_currency() {
        let dollars = Command::SetAmount {
            amount: Money::new(1, Currency::USD),
        };
        given::<Opportunity>([opened()])
            .when(dollars)
            .then_rejected(Rejection::ForeignCurrency(Currency::TWD, Currency::USD));
    }

    #[test]
    fn a_stage_that_the_pipeline_does_not_have_is_refused() {
        given::<Opportunity>([opened()])
            .when(Command::ChangeStage {
                to: "closing".into(),
                reason: None,
            })
            .then_rejected(Rejection::UnknownStage("closing".into()));
    }

    #[test]
    fn a_new_stage_ends_an_overridden_probability() {
        let state = folded::<Opportunity>(&[
            opened(),
            Event::ProbabilityOverridden {
                basis_points: 9_000,
                reason: "letter of intent".into(),
            },
            Event::StageChanged {
                from: "prospecting".into(),
                to: "proposal".into(),
                pipeline_version: 1,
                probability_bp: 5_000,
                reason: None,
            },
        ]);
        assert_eq!(state.probability_override, None);
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        let customer = neighbour("a");
        given::<Opportunity>([])
            .with(customer, active())
            .same_intent_twice(open_for(customer));
        let intents = [
            Command::ChangeStage {
                to: "proposal".into(),
                reason: None,
            },
            Command::SetAmount {
                amount: Money::new(5, Currency::TWD),
            },
            Command::SetCloseDate {
                close_date: date(2026, 7, 31),
            },
            Command::SetForecastCategory {
                category: ForecastCategory::Commit,
            },
            Command::OverrideProbability {
                basis_points: 9_000,
                reason: "letter of intent".into(),
            },
            Command::Win {
                amount: None,
                reason: None,
            },
            lose(),
        ];
        for intent in intents {
            given::<Opportunity>([opened()]).same_intent_twice(intent);
        }
        given::<Opportunity>([opened(), won()]).same_intent_twice(Command::Reopen {
            reason: "cancelled".into(),
        });
    }
}
