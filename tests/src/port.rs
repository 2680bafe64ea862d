//! Ports that stay free while their owner is dead.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

// The kernel hands out 32768 and up to outgoing connections. A server that is killed and restarted would find its port
// taken by one of them now and then, so servers live below.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port on loopback that nobody listens on and that this process gives out once.
pub fn free_port() -> u16 {
    static GIVEN_OUT: AtomicU16 = AtomicU16::new(0);

    // Suites that run at the same time start far apart.
    let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = GIVEN_OUT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT - 1);
}
