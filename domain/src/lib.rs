//! What the CRM knows and decides: one file per stream, and the values they share.
//!
//! Nothing here does I/O, is async, reads a clock or throws dice: time, ids and luck come in as arguments, so a spec is a
//! sentence and a replay is exact. Each stream file reads in the same order: events, commands, rejections, state, `decide`,
//! `evolve`, specs.

mod kernel;

pub mod customer;
pub mod link;
pub mod opportunity;
pub mod pipeline;

pub use kernel::*;

streams! {
    Customer => customer,
    Opportunity => opportunity,
    Link => link,
}
