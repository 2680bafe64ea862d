//! What the CRM knows and decides: one file per stream, and the values they share.
//!
//! Nothing here does I/O, is async, reads a clock or throws dice: time, ids and luck come in as arguments, so a spec is a
//! sentence and a replay is exact. Each stream file reads in the same order: events, commands, rejections, state, `decide`,
//! `evolve`, specs.

mod kernel;

pub mod case;
pub mod customer;
pub mod equipment;
pub mod inspection;
pub mod interaction;
pub mod job;
pub mod lead;
pub mod link;
pub mod loyalty;
pub mod opportunity;
pub mod pipeline;
pub mod purchase;

pub use kernel::*;

streams! {
    Customer => customer,
    Lead => lead,
    Opportunity => opportunity,
    Interaction => interaction,
    Case => case,
    Equipment => equipment,
    Inspection => inspection,
    Job => job,
    Purchase => purchase,
    Loyalty => loyalty,
    Link => link,
}
