//! A deal on its way to be won or lost (商機; Opportunity).

use jiff::Timestamp;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::pipeline::{PIPELINE, PIPELINE_VERSION, stage, stage_names};
use crate::{
    Currency, Differing, History, Home, Id, Moment, Money, Stream, StreamKind, StreamRef, UPSERT_REASON, at_the_door,
    same_beginning,
};

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
    /// Why it was won or lost was put right.
    CloseReasonSet {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_reason: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_competitor: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        competitor: Option<String>,
    },
    OwnerAssigned {
        from: String,
        to: String,
    },
    Renamed {
        from: String,
        to: String,
    },
    /// It is a deal with another customer than was thought.
    CustomerChanged {
        from: Id<Customer>,
        to: Id<Customer>,
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
        #[serde(deserialize_with = "at_the_door::day")]
        #[schemars(schema_with = "at_the_door::day_schema")]
        close_date: Date,
        owner: String,
        source: Option<String>,
    },
    ChangeStage {
        to: String,
        reason: Option<String>,
    },
    /// The amount keeps the currency that it was first given in; `change-currency` gives it another one.
    SetAmount {
        amount: Money,
    },
    /// The deal is made in another currency from now on, for this amount.
    ChangeCurrency {
        amount: Money,
    },
    SetCloseDate {
        #[serde(deserialize_with = "at_the_door::day")]
        #[schemars(schema_with = "at_the_door::day_schema")]
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
    /// Won, for `amount` if it differs from the one that was set. Said again with another reason, the reason is put right.
    Win {
        amount: Option<Money>,
        reason: Option<String>,
    },
    /// Said again with another reason or competitor, that is put right.
    Lose {
        reason: String,
        competitor: Option<String>,
    },
    /// Back to the stage from which it was won or lost.
    Reopen {
        reason: String,
    },
    AssignOwner {
        owner: String,
    },
    Rename {
        name: String,
    },
    /// It is a deal with another customer than was thought.
    ChangeCustomer {
        customer: Id<Customer>,
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
    #[error("this opportunity already exists with different data: {0}")]
    AlreadyOpened(Differing),
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
    #[error("this opportunity is in {0}, an amount in {1} does not fit; use change-currency if that is meant")]
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
    #[error("this opportunity has been {0} since {1}; that cannot be backdated, reopen it first")]
    OnlySince(&'static str, Timestamp),
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

/// A deal and its history, which reads as its latest card.
pub type State = History<Card>;

/// A deal as it stood at some time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Card {
    pub status: Status,
    pub customer: Option<Id<Customer>>,
    pub name: String,
    pub stage: String,
    /// The stage's probability in basis points, as the event recorded it.
    pub stage_probability: u16,
    pub amount: Option<Money>,
    /// The day on which it is planned to close. When it closed, `closed_at` says.
    pub close_date: Option<Date>,
    pub owner: String,
    pub source: Option<String>,
    pub category: ForecastCategory,
    /// The probability that was put in the place of the stage's, in basis points, and why.
    pub probability_override: Option<u16>,
    pub probability_reason: Option<String>,
    pub opened_at: Timestamp,
    pub stage_since: Timestamp,
    pub closed_at: Option<Timestamp>,
    /// How often the planned close date was moved to a later month.
    pub push_count: u32,
    pub close_reason: Option<String>,
    pub competitor: Option<String>,
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

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::NotOpened => "not-opened",
            Status::Open => "open",
            Status::Won => "won",
            Status::Lost => "lost",
        }
    }

    fn is_closed(self) -> bool {
        match self {
            Status::Won | Status::Lost => true,
            Status::NotOpened | Status::Open => false,
        }
    }
}

impl Event {
    /// Whether the event opens or closes the deal. Each such event is the cause of the next one.
    fn opens_or_closes(&self) -> bool {
        match self {
            Event::Opened { .. } | Event::Won { .. } | Event::Lost { .. } | Event::Reopened { .. } => true,
            Event::StageChanged { .. }
            | Event::AmountSet { .. }
            | Event::CloseDateSet { .. }
            | Event::ForecastCategorySet { .. }
            | Event::ProbabilityOverridden { .. }
            | Event::CloseReasonSet { .. }
            | Event::OwnerAssigned { .. }
            | Event::Renamed { .. }
            | Event::CustomerChanged { .. } => false,
        }
    }
}

impl crate::Card for Card {
    type Event = Event;

    fn is_cause(earlier: &Event, event: &Event) -> bool {
        match event {
            // Why it was closed is put right after it was closed.
            Event::CloseReasonSet { .. } => earlier.opens_or_closes(),
            _ => event.opens_or_closes() && earlier.opens_or_closes(),
        }
    }

    /// A closed deal stands still: stage, amount, plans and chances are those that it was closed with. What was entered
    /// earlier and is dated after the end says nothing about it.
    fn after(mut self, event: &Event, at: Timestamp) -> Card {
        let stands_still = self.status.is_closed();
        match event {
            Event::Opened {
                customer,
                name,
                stage,
                probability_bp,
                amount,
                close_date,
                owner,
                source,
                ..
            } => {
                self.status = Status::Open;
                self.customer = Some(*customer);
                self.name = name.clone();
                self.stage = stage.clone();
                self.stage_probability = *probability_bp;
                self.amount = *amount;
                self.close_date = Some(*close_date);
                self.owner = owner.clone();
                self.source = source.clone();
                (self.opened_at, self.stage_since) = (at, at);
            }
            Event::StageChanged { .. }
            | Event::AmountSet { .. }
            | Event::CloseDateSet { .. }
            | Event::ForecastCategorySet { .. }
            | Event::ProbabilityOverridden { .. }
                if stands_still => {}
            Event::StageChanged { to, probability_bp, .. } => {
                if self.stage != *to {
                    self.stage_since = at;
                }
                self.stage = to.clone();
                self.stage_probability = *probability_bp;
                self.probability_override = None;
                self.probability_reason = None;
            }
            Event::AmountSet { to, .. } => self.amount = Some(*to),
            Event::CloseDateSet { to, .. } => {
                if self
                    .close_date
                    .is_some_and(|from| to.first_of_month() > from.first_of_month())
                {
                    self.push_count += 1;
                }
                self.close_date = Some(*to);
            }
            Event::ForecastCategorySet { to, .. } => self.category = *to,
            Event::ProbabilityOverridden { basis_points, reason } => {
                self.probability_override = Some(*basis_points);
                self.probability_reason = Some(reason.clone());
            }
            Event::Won { amount, reason, .. } => {
                self.status = Status::Won;
                self.amount = Some(*amount);
                self.closed_at = Some(at);
                self.close_reason = reason.clone();
                self.competitor = None;
            }
            Event::Lost { reason, competitor, .. } => {
                self.status = Status::Lost;
                self.closed_at = Some(at);
                self.close_reason = Some(reason.clone());
                self.competitor = competitor.clone();
            }
            Event::Reopened { stage: back_to, .. } => {
                self.status = Status::Open;
                self.closed_at = None;
                self.close_reason = None;
                self.competitor = None;
                self.stage_since = at;
                if self.stage != *back_to {
                    self.stage_probability =
                        stage(back_to).map_or(self.stage_probability, |known| known.probability_bp);
                    self.stage = back_to.clone();
                }
            }
            Event::CloseReasonSet { .. } if !stands_still => {}
            Event::CloseReasonSet { reason, competitor, .. } => {
                self.close_reason = reason.clone();
                self.competitor = competitor.clone();
            }
            Event::OwnerAssigned { to, .. } => self.owner = to.clone(),
            Event::Renamed { to, .. } => self.name = to.clone(),
            Event::CustomerChanged { to, .. } => self.customer = Some(*to),
        }
        self
    }
}

#[derive(Debug)]
pub struct Opportunity;

impl Stream for Opportunity {
    const NAME: &'static str = "opportunity";
    const KIND: StreamKind = StreamKind::Opportunity;
    const BEGINS: &'static str = "open";
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
            Command::Open { customer, .. } | Command::ChangeCustomer { customer, .. } => customer::companion(*customer),
            _ => vec![],
        }
    }

    /// Each command is decided on the deal as it stood at the command's own time, so that a late one is "already so" only
    /// if it was so then, and `from` is what was true just before.
    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        if let Command::Open { .. } = command {
            return open(state, command, at);
        }
        if state.status == Status::NotOpened {
            return Err(Rejection::NotOpened);
        }
        let time = match command {
            Command::Win { .. } | Command::Lose { .. } | Command::Reopen { .. } => {
                state.not_before_cause(at.effective_at, Event::opens_or_closes)
            }
            _ => state.not_before_beginning(at.effective_at),
        };
        let card = &*state.at(time);
        match (card.status, &command) {
            (_, Command::AssignOwner { .. } | Command::Rename { .. } | Command::ChangeCustomer { .. }) => {}
            (Status::NotOpened | Status::Open, _) => {}
            (Status::Won, Command::Win { .. } | Command::Reopen { .. }) => {}
            (Status::Won, _) => return Err(Rejection::AlreadyWon),
            (Status::Lost, Command::Lose { .. } | Command::Reopen { .. }) => {}
            (Status::Lost, _) => return Err(Rejection::AlreadyLost),
        }
        Ok(match command {
            Command::Open { .. } => unreachable!("decided above"),
            Command::ChangeStage { to, .. } if to == card.stage => vec![],
            Command::ChangeStage { to, reason } => {
                let probability_bp = stage(&to)
                    .ok_or_else(|| Rejection::UnknownStage(to.clone()))?
                    .probability_bp;
                let from = card.stage.clone();
                vec![Event::StageChanged {
                    from,
                    to,
                    pipeline_version: PIPELINE_VERSION,
                    probability_bp,
                    reason,
                }]
            }
            Command::SetAmount { amount } => {
                check_amount(card, amount)?;
                set_amount(card, amount)
            }
            Command::ChangeCurrency { amount } if amount.minor < 0 => return Err(Rejection::NegativeAmount),
            Command::ChangeCurrency { amount } => set_amount(card, amount),
            Command::SetCloseDate { close_date } => match card.close_date {
                Some(from) if from != close_date => vec![Event::CloseDateSet { from, to: close_date }],
                _ => vec![],
            },
            Command::SetForecastCategory { category } if category == card.category => vec![],
            Command::SetForecastCategory { category } => {
                vec![Event::ForecastCategorySet {
                    from: card.category,
                    to: category,
                }]
            }
            Command::OverrideProbability { basis_points, .. } if basis_points > 10_000 => {
                return Err(Rejection::ProbabilityOutOfRange);
            }
            Command::OverrideProbability { reason, .. } if reason.trim().is_empty() => {
                return Err(Rejection::ReasonMissing);
            }
            Command::OverrideProbability { basis_points, reason } => {
                let is_so = card.probability_override == Some(basis_points);
                if is_so && card.probability_reason.as_ref() == Some(&reason) {
                    vec![]
                } else {
                    vec![Event::ProbabilityOverridden { basis_points, reason }]
                }
            }
            Command::Win { amount, reason } if card.status == Status::Won => {
                if amount.is_some_and(|amount| Some(amount) != card.amount) {
                    return Err(Rejection::AlreadyWon);
                }
                already_so(state, card, at)?;
                put_reason_right(card, reason.or_else(|| card.close_reason.clone()), None)
            }
            Command::Win { amount, reason } => {
                let amount = amount.or(card.amount).ok_or(Rejection::AmountMissing)?;
                check_amount(card, amount)?;
                vec![Event::Won {
                    stage: card.stage.clone(),
                    amount,
                    reason,
                }]
            }
            Command::Lose { reason, .. } if reason.trim().is_empty() => return Err(Rejection::ReasonMissing),
            Command::Lose { reason, competitor } if card.status == Status::Lost => {
                already_so(state, card, at)?;
                put_reason_right(card, Some(reason), competitor.or_else(|| card.competitor.clone()))
            }
            Command::Lose { reason, competitor } => vec![Event::Lost {
                stage: card.stage.clone(),
                reason,
                competitor,
            }],
            Command::Reopen { reason } if reason.trim().is_empty() => return Err(Rejection::ReasonMissing),
            Command::Reopen { .. } if card.status == Status::Open => {
                already_so(state, card, at)?;
                vec![]
            }
            Command::Reopen { reason } => vec![Event::Reopened {
                stage: card.stage.clone(),
                reason,
            }],
            Command::AssignOwner { owner } if owner.trim().is_empty() => return Err(Rejection::OwnerMissing),
            Command::AssignOwner { owner } if owner == card.owner => vec![],
            Command::AssignOwner { owner } => vec![Event::OwnerAssigned {
                from: card.owner.clone(),
                to: owner,
            }],
            Command::Rename { name } if name.trim().is_empty() => return Err(Rejection::NameMissing),
            Command::Rename { name } if name == card.name => vec![],
            Command::Rename { name } => vec![Event::Renamed {
                from: card.name.clone(),
                to: name,
            }],
            Command::ChangeCustomer { reason, .. } if reason.trim().is_empty() => {
                return Err(Rejection::ReasonMissing);
            }
            Command::ChangeCustomer { customer, reason } => match card.customer {
                Some(from) if from != customer => {
                    customer::must_be_open(customer, at)?;
                    vec![Event::CustomerChanged {
                        from,
                        to: customer,
                        reason,
                    }]
                }
                _ => vec![],
            },
        })
    }

    fn upsert(state: &State, command: Command, at: &Moment<'_>) -> Vec<Command> {
        let (
            Command::Open {
                customer,
                name,
                pipeline,
                stage,
                amount,
                close_date,
                owner,
                source,
            },
            Some(Event::Opened {
                customer: first_customer,
                name: first_name,
                pipeline: first_pipeline,
                stage: first_stage,
                amount: first_amount,
                close_date: first_close_date,
                owner: first_owner,
                source: first_source,
                ..
            }),
        ) = (&command, state.begun())
        else {
            return vec![command];
        };
        let card = &*state.as_of(at.effective_at);
        let mut commands = vec![Command::Open {
            customer: *first_customer,
            name: first_name.clone(),
            pipeline: pipeline.clone().or_else(|| Some(first_pipeline.clone())),
            stage: Some(first_stage.clone()),
            amount: *first_amount,
            close_date: *first_close_date,
            owner: first_owner.clone(),
            source: source.clone().or_else(|| first_source.clone()),
        }];
        if *name != card.name {
            commands.push(Command::Rename { name: name.clone() });
        }
        if Some(*customer) != card.customer {
            commands.push(Command::ChangeCustomer {
                customer: *customer,
                reason: UPSERT_REASON.to_owned(),
            });
        }
        if let Some(to) = stage.clone().filter(|stage| *stage != card.stage) {
            commands.push(Command::ChangeStage { to, reason: None });
        }
        if let Some(amount) = amount.filter(|amount| card.amount != Some(*amount)) {
            commands.push(match card.amount {
                Some(set) if set.currency != amount.currency => Command::ChangeCurrency { amount },
                Some(_) | None => Command::SetAmount { amount },
            });
        }
        if Some(*close_date) != card.close_date {
            commands.push(Command::SetCloseDate {
                close_date: *close_date,
            });
        }
        if *owner != card.owner {
            commands.push(Command::AssignOwner { owner: owner.clone() });
        }
        commands
    }

    fn evolve(state: State, event: &Event, at: Timestamp) -> State {
        state.record(event, at)
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
    let pipeline = pipeline.unwrap_or_else(|| PIPELINE.to_owned());
    let first = first.unwrap_or_else(|| crate::pipeline::STAGES[0].name.to_owned());
    let probability_bp = stage(&first).map(|stage| stage.probability_bp);
    let opened = Event::Opened {
        customer,
        name,
        pipeline,
        pipeline_version: PIPELINE_VERSION,
        stage: first,
        probability_bp: probability_bp.unwrap_or_default(),
        amount,
        close_date,
        owner,
        source,
    };
    if state.status != Status::NotOpened {
        let derived = ["pipeline_version", "probability_bp"];
        same_beginning(state.begun(), &opened, &derived).map_err(Rejection::AlreadyOpened)?;
        return Ok(vec![]);
    }
    let Event::Opened {
        name,
        owner,
        pipeline,
        stage: first,
        ..
    } = &opened
    else {
        unreachable!("it was just made");
    };
    if name.trim().is_empty() {
        return Err(Rejection::NameMissing);
    }
    if owner.trim().is_empty() {
        return Err(Rejection::OwnerMissing);
    }
    if pipeline != PIPELINE {
        return Err(Rejection::UnknownPipeline(pipeline.clone()));
    }
    if probability_bp.is_none() {
        return Err(Rejection::UnknownStage(first.clone()));
    }
    if amount.is_some_and(|amount| amount.minor < 0) {
        return Err(Rejection::NegativeAmount);
    }
    customer::must_be_open(customer, at)?;
    Ok(vec![opened])
}

/// "Already so" holds at the command's own time, too: who says that it was so earlier is told since when it is.
fn already_so(state: &State, card: &Card, at: &Moment<'_>) -> Result<(), Rejection> {
    let was_so = state.at(at.effective_at).status == card.status;
    if was_so || at.effective_at == at.now {
        return Ok(());
    }
    let since = card.closed_at.unwrap_or(card.stage_since);
    Err(Rejection::OnlySince(card.status.name(), since))
}

fn set_amount(card: &Card, amount: Money) -> Vec<Event> {
    match card.amount {
        Some(set) if set == amount => vec![],
        from => vec![Event::AmountSet { from, to: amount }],
    }
}

fn put_reason_right(card: &Card, reason: Option<String>, competitor: Option<String>) -> Vec<Event> {
    if reason == card.close_reason && competitor == card.competitor {
        return vec![];
    }
    vec![Event::CloseReasonSet {
        from_reason: card.close_reason.clone(),
        from_competitor: card.competitor.clone(),
        reason,
        competitor,
    }]
}

fn check_amount(card: &Card, amount: Money) -> Result<(), Rejection> {
    match card.amount {
        _ if amount.minor < 0 => Err(Rejection::NegativeAmount),
        Some(set) if set.currency != amount.currency => Err(Rejection::ForeignCurrency(set.currency, amount.currency)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod specs;
