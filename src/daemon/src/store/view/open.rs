//! Opening the view: usable as it is, or to be made anew.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::blocks::text;
use super::{Mark, View, guarded, keys};
use crate::store::error::StoreError;
use crate::store::folder::{Folder, Lock};

/// The file that says which database is the view, and how it was left.
const STATE: &str = "state.json";

/// How often, and how far apart, sled's own lock is tried.
const LOCK_TRIES: u32 = 50;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// What sled may keep of what it read, in bytes as they are on disk; in memory that is several times as much. The
/// kernel keeps the file's pages as well.
const CACHE: u64 = 1 << 20;

/// How the view was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The folder of the database.
    database: String,
    /// The boot in which it was opened last.
    boot: String,
    /// Whether it was closed, with everything on disk.
    clean: bool,
}

/// The view's folder, locked.
#[derive(Debug)]
pub(crate) struct Place {
    folder: Arc<Folder>,
    boot: String,
    database: String,
    _lock: Lock,
}

/// What can be done with the view that is there.
pub(crate) enum Usable {
    /// It is sound, up to its mark.
    Yes(Box<View>),
    /// It has to be made anew.
    No(String),
}

impl Place {
    /// Opens and locks the folder. `boot` tells this boot of the machine from others.
    pub fn open(path: &Path, boot: &str) -> Result<Self, StoreError> {
        let folder = Folder::open(path, true)?;
        let lock = folder.lock()?;
        Ok(Self { folder: Arc::new(folder), boot: boot.to_owned(), database: String::new(), _lock: lock })
    }

    /// Opens the view that is there. Up to `check_rows` rows are read and compared with the mark.
    pub fn existing(&mut self, check_rows: u64) -> Result<Usable, StoreError> {
        let state: State = match self.folder.read_small(STATE)?.map(|bytes| serde_json::from_slice(&bytes)) {
            None => return Ok(Usable::No("there was none".to_owned())),
            Some(Err(_)) => return Ok(Usable::No("its state file cannot be read".to_owned())),
            Some(Ok(state)) => state,
        };
        if !state.clean && state.boot != self.boot {
            // The machine went down with the view open. What sled wrote may be anything: it is not even opened.
            return Ok(Usable::No("the machine went down while it was open".to_owned()));
        }
        let path = self.folder.path().join(&state.database);
        if !is_database_name(&state.database) || !path.join("db").is_file() {
            return Ok(Usable::No("its database is not there".to_owned()));
        }
        self.database = state.database;
        self.set_state(false)?;
        let opened = guarded(|| {
            let db = open_database(&path).map_err(text)?;
            let mark = db.get(keys::MARK).map_err(text)?.and_then(|bytes| Mark::decode(&bytes));
            Ok((db, mark))
        });
        let (db, mark) = match opened {
            Ok((db, Some(mark))) => (db, mark),
            Ok((_, None)) => return Ok(Usable::No("it has no mark of this version".to_owned())),
            Err(why) => return Ok(Usable::No(why)),
        };
        let view = View::new(db, mark, Arc::clone(&self.folder));
        if mark.rows <= check_rows
            && let Err(why) = view.check()
        {
            return Ok(Usable::No(why));
        }
        Ok(Usable::Yes(Box::new(view)))
    }

    /// Makes an empty database beside the present one. It becomes the view with [`Place::adopt`].
    pub fn fresh(&mut self, identity: [u8; 16]) -> Result<View, StoreError> {
        let names = self.folder.names()?;
        let name = (0..u32::MAX)
            .map(|n| format!("db-{n}"))
            .find(|name| !names.contains(name))
            .expect("some number is free");
        let db = guarded(|| open_database(&self.folder.path().join(&name)).map_err(text))
            .map_err(StoreError::View)?;
        self.database = name;
        Ok(View::new(db, Mark::empty(identity), Arc::clone(&self.folder)))
    }

    /// Makes the fresh database the view, and removes all others.
    pub fn adopt(&self) -> Result<(), StoreError> {
        self.set_state(false)?;
        for name in self.folder.names()? {
            if is_database_name(&name) && name != self.database {
                let path = self.folder.path().join(&name);
                std::fs::remove_dir_all(&path).map_err(|e| StoreError::io(path, e))?;
            }
        }
        Ok(())
    }

    /// Closes the view, and says so where the next start looks.
    pub fn close(&self, view: &View) -> Result<(), StoreError> {
        view.shut()?;
        // sled's flush does not make durable what it wrote.
        sync_tree(&self.folder.path().join(&self.database))?;
        self.set_state(true)?;
        // Whoever read a row before the database was shut may find only now that it is no record.
        if view.failure().is_some() { self.forget() } else { Ok(()) }
    }

    /// Forgets the view that is there: the next opening makes it anew.
    pub fn forget(&self) -> Result<(), StoreError> {
        forget(&self.folder)
    }

    fn set_state(&self, clean: bool) -> Result<(), StoreError> {
        let state = State { database: self.database.clone(), boot: self.boot.clone(), clean };
        self.folder.replace(STATE, &serde_json::to_vec(&state).expect("the state is plain data"))
    }
}

/// Removes what says which database is the view, for good.
pub(super) fn forget(folder: &Folder) -> Result<(), StoreError> {
    folder.remove(STATE)?;
    folder.sync()
}

fn is_database_name(name: &str) -> bool {
    name.strip_prefix("db-").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn open_database(path: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::default()
        .path(path)
        .cache_capacity(CACHE)
        // In the background, and never by a request: a view that was not flushed is caught up from the ledger.
        .flush_every_ms(Some(1000))
        .mode(sled::Mode::HighThroughput);
    for _ in 0..LOCK_TRIES {
        match config.open() {
            // The folder's lock is ours, so whoever has sled's own is on his way out: an earlier handle's threads, or
            // a child between fork and exec.
            Err(sled::Error::Io(error)) if error.to_string().contains("lock") => {
                std::thread::sleep(LOCK_WAIT);
            }
            result => return result,
        }
    }
    config.open()
}

/// Puts every file below `path` on disk.
fn sync_tree(path: &PathBuf) -> Result<(), StoreError> {
    let io = |e| StoreError::io(path, e);
    for entry in std::fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())
                .and_then(|file| file.sync_all())
                .map_err(|e| StoreError::io(entry.path(), e))?;
        }
    }
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io)
}
