//! The rules of the claim protocol, one by one, so that each can be left out: what happens then is the reason for the rule.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A writer acks only when its records stand at exactly the offsets that it expected.
    OffsetsAreContiguous,
    /// A record of another epoch than the one in force is void.
    OnlyTheEpochInForceCounts,
    /// `ce_n`: a record counts only if it is the next of its epoch.
    RecordsAreNumbered,
    /// A claimant reads up to its own claim and finds whether it is valid, before it acts on it.
    AClaimIsReadBack,
    /// What became of the open commands is read after the own claim stands, not before.
    OpenCommandsAreSettledAfterTheClaim,
    /// "It is so already" is said only when a record of the writer stood after the question.
    ANoOpWaitsForABarrier,
    /// "No" as well: it may be the answer to a retry of a command that another owner has applied.
    ARefusalWaitsForABarrier,
    /// That record must be sent after the question: one that was on its way before proves an ownership of before.
    ABarrierIsSentAfterTheQuestion,
    /// Who stands by does not call a command "not accepted" whose records it has sent.
    StandingByLeavesTheOutcomeOpen,
    /// A valid claim cuts a commit that is not complete.
    AClaimCutsTheOpenCommit,
}

impl Rule {
    pub const ALL: [Rule; 10] = [
        Rule::OffsetsAreContiguous,
        Rule::OnlyTheEpochInForceCounts,
        Rule::RecordsAreNumbered,
        Rule::AClaimIsReadBack,
        Rule::OpenCommandsAreSettledAfterTheClaim,
        Rule::ANoOpWaitsForABarrier,
        Rule::ARefusalWaitsForABarrier,
        Rule::ABarrierIsSentAfterTheQuestion,
        Rule::StandingByLeavesTheOutcomeOpen,
        Rule::AClaimCutsTheOpenCommit,
    ];
}

/// All rules, but for at most one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    without: Option<Rule>,
}

impl Rules {
    pub const ALL: Rules = Rules { without: None };

    pub fn without(rule: Rule) -> Rules {
        Rules { without: Some(rule) }
    }

    pub fn keep(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}
