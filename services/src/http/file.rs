//! A read model is answered as a file where its path has an ending: `/api/customers.csv` is the file of `/api/customers`.

use projections::ReadModel;

const ENDING: &str = ".csv";

/// The read model of a name in a path, and whether the name is that of its file.
pub fn named(name: &str) -> Option<(&'static ReadModel, bool)> {
    let stem = name.strip_suffix(ENDING);
    let model = ReadModel::find(stem.unwrap_or(name))?;
    Some((model, stem.is_some()))
}
