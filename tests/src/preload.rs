//! Libraries that are loaded in front of the C library, so that a healthy machine has faults on demand.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles a source of this crate, which lies beside this file, into `folder`. Needs the C compiler that the build needs too.
pub fn compile(source: &str, folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(source);
    let library = folder.join(source.with_extension("so").file_name().expect("a source has a name"));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .expect("cc runs");
    let errors = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "the library does not compile: {errors}");
    library
}
