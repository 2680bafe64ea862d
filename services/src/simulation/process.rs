//! A process of a simulated world: it runs, is paused, or is dead; and it has a clock of its own.
//!
//! Code cannot be stopped between two of its lines in one thread. What it does to the world, it does through ports; a process that is
//! paused stands still at the next port that it comes to, on its way in or out, and goes on from there when it wakes: with all that it
//! remembers, and in a world that has moved on.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::world::World;
use crate::clock::Clock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Running,
    Paused,
    Dead,
}

pub struct Process {
    pub world: Arc<World>,
    pub name: String,
    life: Mutex<Life>,
    /// Not a watch channel: that one wakes those who wait in an order of its own, which no seed gives.
    woken: Notify,
    clock_skew_ms: AtomicI64,
}

impl Process {
    pub fn new(world: Arc<World>, name: String) -> Process {
        Process {
            world,
            name,
            life: Mutex::new(Life::Running),
            woken: Notify::new(),
            clock_skew_ms: AtomicI64::new(0),
        }
    }

    /// Waits while the process is paused; for ever when it is dead.
    pub async fn pass(&self) {
        loop {
            let woken = self.woken.notified();
            match self.life() {
                Life::Running => return,
                Life::Paused => woken.await,
                Life::Dead => std::future::pending().await,
            }
        }
    }

    fn life(&self) -> Life {
        *self.life.lock().expect("no panic under the lock")
    }

    pub fn is_dead(&self) -> bool {
        self.life() == Life::Dead
    }

    pub fn pause(&self) {
        self.change(Life::Running, Life::Paused);
    }

    pub fn resume(&self) {
        self.change(Life::Paused, Life::Running);
    }

    pub fn die(&self) {
        *self.life.lock().expect("no panic under the lock") = Life::Dead;
        self.woken.notify_waiters();
    }

    fn change(&self, from: Life, to: Life) {
        let mut life = self.life.lock().expect("no panic under the lock");
        if *life == from {
            *life = to;
            self.woken.notify_waiters();
        }
    }

    pub fn set_clock(&self, skew_ms: i64) {
        self.clock_skew_ms.store(skew_ms, Ordering::Relaxed);
    }
}

impl Clock for Process {
    fn now(&self) -> Timestamp {
        self.world.time() + SignedDuration::from_millis(self.clock_skew_ms.load(Ordering::Relaxed))
    }
}
