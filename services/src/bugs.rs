//! Deliberate bugs: each takes one rule of the protocol out, so that the simulation can show that it finds the rule missing. Outside of
//! this crate's own tests there are none of them.

/// A rule that can be taken out, named by what goes wrong then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Answers leave when a batch is sent, not when the log has it.
    AckBeforeAppend,
    /// The judge counts records of writers that do not own the shard any more.
    NoEpochCheck,
    /// The judge counts the record after one that is missing.
    NoNumberCheck,
    /// The judge takes each event for a commit of its own.
    HalfCommitCounts,
    /// A writer does not mind that somebody else wrote in between.
    NoContiguityCheck,
    /// A claim is trusted without reading the log up to it.
    ClaimNotReadBack,
    /// The command ids of the replayed tail are not remembered.
    IdsLostAtTakeOver,
    /// A stream counts as new before all that are stored are known.
    NewBeforeAllAreKnown,
    /// What was changed since the take-over does not count as begun.
    ChangedNotBegun,
    /// The derived command ids that were remembered since the take-over do not count as recorded.
    RememberedNotRecorded,
    /// A command that stands in the pending batch, or in the one on its way, is looked up when it comes again.
    TwinLookedUp,
    /// The replay starts where the stored states stood before the claim, and evolves states that are newer than that once more.
    EventsAppliedTwice,
    /// Speculative states outlive an append that was refused.
    StatesOutliveFailedAppend,
    /// Open commands of a failed append are answered before the log has decided.
    SettledBeforeClaim,
    /// "Already so" and refusals leave without proof that the shard is still ours.
    NoBarrier,
    /// An append that was sent before the question counts as the proof.
    ProofFromTheAppendBefore,
    /// A refusal leaves although it rests on events that the log may not take.
    RefusalFromSpeculation,
    /// The writer's clock is believed when it goes back.
    TimeGoesBack,
    /// The watermark is stored first, the states after it.
    WatermarkAheadOfStates,
    /// A projector stores the checkpoint first, the rows after it.
    CheckpointBeforeRows,
    /// A projector stores the rows first, the checkpoint after them.
    RowsBeforeCheckpoint,
    /// A projector does not mind that another has moved the checkpoint.
    NoCompareAndSet,
    /// A command of the actor `system:panic` is a panic where it is decided.
    PanicsAtCommand,
}

/// Is the program to have this bug?
#[cfg(not(test))]
#[inline(always)]
pub const fn has(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub use planted::{has, with};

#[cfg(test)]
mod planted {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        /// A simulated world has one thread to itself, and this is its bug.
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub fn has(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Runs `work` with this bug in the program, on this thread.
    pub fn with<T>(bug: Option<Bug>, work: impl FnOnce() -> T) -> T {
        let before = PLANTED.replace(bug);
        let done = work();
        PLANTED.set(before);
        done
    }
}
