//! The sales pipeline's stages and their probabilities.

use serde::Serialize;

/// The version of the definition below; events carry it, so that a later definition does not rewrite history.
pub const PIPELINE_VERSION: u32 = 1;

/// The one pipeline there is.
pub const PIPELINE: &str = "default";

/// A stage of an open deal, in selling order. Won and lost are no stages: they end the deal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stage {
    pub name: &'static str,
    /// Traditional Chinese name.
    pub name_zh: &'static str,
    /// How likely a deal in this stage is won, in basis points.
    pub probability_bp: u16,
}

pub const STAGES: [Stage; 4] = [
    Stage {
        name: "prospecting",
        name_zh: "開發",
        probability_bp: 1_000,
    },
    Stage {
        name: "qualification",
        name_zh: "資格確認",
        probability_bp: 2_000,
    },
    Stage {
        name: "proposal",
        name_zh: "提案",
        probability_bp: 5_000,
    },
    Stage {
        name: "negotiation",
        name_zh: "議價",
        probability_bp: 8_000,
    },
];

/// `None` when the pipeline has no such stage.
pub fn stage(name: &str) -> Option<Stage> {
    STAGES.into_iter().find(|stage| stage.name == name)
}

/// Where the stage stands in selling order, from 0.
pub fn stage_order(name: &str) -> Option<usize> {
    STAGES.iter().position(|stage| stage.name == name)
}

pub fn stage_names() -> String {
    STAGES.map(|stage| stage.name).join(", ")
}
