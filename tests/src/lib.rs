//! What every black-box suite stands on: a real Kafka, a real PostgreSQL and the program `crm`, started, killed and
//! brought back as often as a test wants.
//!
//! ```no_run
//! use tests::{Broker, Crm, Database};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let mut broker = Broker::start(folder.path()); // a broker of this test's own, which it may kill
//! let views = Database::create(); // a database of this test's own on the shared server
//! let log = format!("kafka://{}/{}", broker.address(), tests::unique_topic("events"));
//! let mut crm = Crm::start(&["serve"], &[("CRM_LOG", &log), ("CRM_VIEWS", views.url())]);
//! broker.kill();
//! broker.restart();
//! assert_eq!(crm.terminate(), 0);
//! ```
//!
//! The shared servers come from `scripts/test`. Without them a test fails and says so; it never skips itself.
//! Everything here blocks. From async code that is fine in a test: nothing else waits for that thread.

#![forbid(unsafe_code)]

mod child;
mod clock;
mod dice;
mod disk;
mod holder;
mod kafka;
mod port;
mod postgres;
mod preload;
mod process;
pub mod proxy;
pub mod traffic;

pub use clock::FaultyClock;
pub use dice::Dice;
pub use disk::FaultyDisk;
pub use holder::{Holder, WAITING};
pub use kafka::{Broker, shared_kafka, unique_topic};
pub use port::free_port;
pub use postgres::{Database, Server, shared_postgres};
pub use process::Crm;

/// A setting that `scripts/test` exports. Panics when it is missing: a test without its server proves nothing.
fn setting(name: &str) -> String {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| {
            panic!(
                "{name} is not set: run scripts/test, which starts Kafka and PostgreSQL and sets it, \
             for example `scripts/test -p tests --test harness`"
            )
        })
}
