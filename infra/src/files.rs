//! The data folder and the files in it. Only the user that runs the program may read them, and while a program uses them they must stay
//! the files that it opened.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// What everybody but the owner may do.
const OTHERS: u32 = 0o077;
/// The files of a data folder. A folder that holds nothing else is ours.
const OURS: [&str; 8] = [
    "log.db",
    "log.db-wal",
    "log.db-shm",
    "log.lock",
    "log.acked",
    "views.db",
    "views.db-wal",
    "views.db-shm",
];

/// Makes the folder, when it is not there, for its owner only.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    // A power cut must not take the folder along: its name stands in its parent.
    let parent = folder.canonicalize()?.parent().map(Path::to_owned);
    parent.map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Makes a file for its owner only, when it is not there. What SQLite makes beside a database has the same permissions.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make_file(path: &Path) -> io::Result<()> {
    // A file that exists is not opened: closing it again would take away the locks that SQLite has on it.
    match private().create_new(true).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Opens a file to write, and makes it for its owner only when it is not there.
///
/// # Errors
/// When it can be neither opened nor made.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    private().create(true).truncate(false).open(path)
}

fn private() -> OpenOptions {
    let mut options = File::options();
    options.write(true).mode(FILE_MODE);
    options
}

/// Takes the permissions away that other users have on the files of a data folder, and on the folder when it holds nothing else. A folder
/// with other files in it stays as it is: its owner may have reasons.
pub(crate) fn keep_private(folder: &Path) {
    for name in OURS {
        tighten(&folder.join(name), FILE_MODE);
    }
    let Ok(mut entries) = std::fs::read_dir(folder) else {
        return;
    };
    let is_ours = |name: &std::ffi::OsStr| OURS.iter().any(|known| name == *known);
    if entries.all(|entry| entry.is_ok_and(|entry| is_ours(&entry.file_name()))) {
        tighten(folder, FOLDER_MODE);
    }
}

fn tighten(path: &Path, mode: u32) {
    let Ok(found) = std::fs::metadata(path) else { return };
    if found.mode() & OTHERS == 0 {
        return;
    }
    match std::fs::set_permissions(path, Permissions::from_mode(mode)) {
        Ok(()) => tracing::warn!(
            "{} was open to other users of this machine; from now on only its owner may use it",
            path.display()
        ),
        Err(error) => tracing::warn!(
            "{} is open to other users of this machine, and that cannot be changed: {error}",
            path.display()
        ),
    }
}

/// Files that a program has open, and whether they still stand under their names. A file that was deleted goes on to take what is written
/// to it, and all of it is lost with the process.
pub(crate) struct Identity(Vec<(PathBuf, Inode)>);

/// Device and number.
type Inode = (u64, u64);

impl Identity {
    /// # Errors
    /// When one of the files cannot be looked at.
    pub(crate) fn of(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Identity> {
        let known = paths.into_iter().map(|path| Ok((path.clone(), inode(&path)?)));
        Ok(Identity(known.collect::<io::Result<_>>()?))
    }

    /// # Errors
    /// What became of a file that does not stand under its name any more, as half a sentence.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (path, known) in &self.0 {
            let what = match inode(path) {
                Ok(found) if found == *known => continue,
                Ok(_) => "was replaced by another file while the program used it".to_owned(),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    "was deleted or moved away while the program used it".to_owned()
                }
                Err(error) => format!("cannot be looked at: {error}"),
            };
            return Err(format!("{} {what}", path.display()));
        }
        Ok(())
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// The database and what SQLite keeps beside it while it is open.
pub(crate) fn database_files(database: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut name = database.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    })
}

/// Opens a database to read only, also where nobody may write.
///
/// # Errors
/// When it is not there, or cannot be read.
pub(crate) fn open_to_read(database: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    let looked = connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0));
    let Err(error) = looked else { return Ok(connection) };
    let [_, wal, _] = database_files(database);
    let is_complete = std::fs::metadata(wal).map_or(true, |wal| wal.len() == 0);
    match error.sqlite_error_code() {
        // SQLite may not make its files beside the database. Without them nobody writes either, and the database has everything.
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) if is_complete => {
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("file:{}?immutable=1", in_uri(database)), flags)
        }
        _ => Err(error),
    }
}

fn in_uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes().iter();
    bytes
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => char::from(*byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod specs {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_its_owners_and_what_was_open_to_others_is_closed() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("a/b");
        make_folder(&folder).unwrap();
        assert_eq!((mode(&folder), mode(&outer.path().join("a"))), (0o700, 0o700));
        make_file(&folder.join("log.db")).unwrap();
        open_file(&folder.join("log.lock")).unwrap();
        assert_eq!(
            (mode(&folder.join("log.db")), mode(&folder.join("log.lock"))),
            (0o600, 0o600)
        );

        let open = |name: &str, mode| {
            std::fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
        };
        open("log.db", 0o644);
        open("", 0o755);
        keep_private(&folder);
        assert_eq!((mode(&folder), mode(&folder.join("log.db"))), (0o700, 0o600));
        // With other files in it the folder is not ours alone.
        std::fs::write(folder.join("notes.txt"), "").unwrap();
        open("notes.txt", 0o644);
        open("log.db", 0o664);
        open("", 0o755);
        keep_private(&folder);
        assert_eq!(mode(&folder), 0o755);
        assert_eq!(
            (mode(&folder.join("log.db")), mode(&folder.join("notes.txt"))),
            (0o600, 0o644)
        );
    }

    #[test]
    fn a_file_that_was_deleted_moved_or_replaced_is_not_the_one_that_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let held = open_file(&path).unwrap();
        let identity = Identity::of([path.clone()]).unwrap();
        assert_eq!(identity.check(), Ok(()));
        let moved = folder.path().join("moved");
        std::fs::rename(&path, &moved).unwrap();
        let gone = format!("{} was deleted or moved away while the program used it", path.display());
        assert_eq!(identity.check(), Err(gone));
        make_file(&path).unwrap();
        let other = format!(
            "{} was replaced by another file while the program used it",
            path.display()
        );
        assert_eq!(identity.check(), Err(other));
        std::fs::rename(&moved, &path).unwrap();
        assert_eq!(identity.check(), Ok(()));
        drop(held);
    }
}
