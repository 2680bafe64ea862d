//! A machine's clock that is put back or ahead on demand.

use std::fs::File;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use crate::preload;

/// The clock of the programs that use it. Time passes for them as it does for all; only what time it is may be wrong.
pub struct FaultyClock {
    folder: TempDir,
    wrong_by: File,
}

impl FaultyClock {
    /// One that is right.
    pub fn new() -> FaultyClock {
        let folder = tempfile::tempdir().expect("create a folder for the clock");
        preload::compile("faulty_clock.c", folder.path());
        let wrong_by = File::create(folder.path().join("wrong_by")).expect("create the clock's file");
        let clock = FaultyClock { folder, wrong_by };
        clock.put(0);
        clock
    }

    /// The environment of a program that is to use it.
    pub fn env(&self) -> [(&'static str, String); 2] {
        let text = |name: &str| self.folder.path().join(name).display().to_string();
        [
            ("LD_PRELOAD", text("faulty_clock.so")),
            ("CRM_FAULTY_CLOCK", text("wrong_by")),
        ]
    }

    /// From now on it is ahead by so many seconds, or behind.
    pub fn put(&self, seconds: i64) {
        let bytes = seconds.to_ne_bytes();
        self.wrong_by.write_all_at(&bytes, 0).expect("set the clock");
    }
}

impl Default for FaultyClock {
    fn default() -> FaultyClock {
        FaultyClock::new()
    }
}
