//! A disk on demand: full, or one whose fsync fails and loses what was written. For faults that a healthy machine cannot be made to have.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::preload;

/// Stands between a program and the files of one folder.
pub struct FaultyDisk {
    folder: PathBuf,
    switches: TempDir,
    library: PathBuf,
}

impl FaultyDisk {
    /// For the files in `folder`.
    pub fn new(folder: &Path) -> FaultyDisk {
        let switches = tempfile::tempdir().expect("create a folder for the switches");
        let library = preload::compile("faulty_disk.c", switches.path());
        FaultyDisk {
            folder: folder.to_owned(),
            switches,
            library,
        }
    }

    /// The environment of a program that is to use it.
    pub fn env(&self) -> [(&'static str, String); 3] {
        let text = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("CRM_FAULTY_FOLDER", text(&self.folder)),
            ("CRM_FAULTY_SWITCHES", text(self.switches.path())),
        ]
    }

    /// From now on there is no room (`true`), or there is again. A write that finds none takes a part of what it was given.
    pub fn set_full(&self, full: bool) {
        self.switch("full", full);
    }

    /// From now on nothing can be made durable (`true`), or it can again. What could not be made durable in the log's files is gone.
    pub fn set_fsync_fails(&self, fails: bool) {
        self.switch("fsync", fails);
    }

    fn switch(&self, name: &str, on: bool) {
        let file = self.switches.path().join(name);
        match on {
            true => std::fs::write(file, "").expect("set a switch"),
            false => std::fs::remove_file(file).expect("the switch was set"),
        }
    }
}
