//! Opening the store: the ledger's end, its marks, and a view that has seen all of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::change::{Actor, Change};
use super::error::{Damage, StoreError};
use super::folder::Folder;
use super::ledger::{self, Found, SharedIndex, Tip};
use super::view::{Place, Usable, View};
use super::writer::Writer;
use super::{Directories, Inner, OpenReport, Options, replay, strangers};

/// The file in the ledger's folder that tells its end at the last orderly close.
pub(crate) const CLEAN_MARK: &str = "clean.json";
/// The file that stands in the ledger's folder while an import is not finished.
pub(crate) const IMPORTING: &str = "import.unfinished";

/// A store that is open, before its thread runs.
pub(crate) struct Prepared {
    pub writer: Writer,
    /// The oldest segments of the ledger, which were left to be verified in the background.
    pub unchecked: Vec<ledger::Span>,
    pub report: OpenReport,
}

/// Opens the ledger and the view.
pub(crate) fn prepare(directories: &Directories, options: Options) -> Result<Prepared, StoreError> {
    let folder = Arc::new(Folder::open(&directories.ledger, true)?);
    let ledger_lock = folder.lock()?;
    let mut place = Place::open(&directories.view, &options.boot)?;
    if folder.read_small(IMPORTING)?.is_some() {
        let why = "an import did not finish: empty the folder and import again";
        return Err(StoreError::Untrusted { path: directories.ledger.join(IMPORTING), why });
    }
    let clean = CleanMark::read(&folder)?;
    let found = ledger::inspect(&folder, options.check_bytes, |_| Ok(()))?;
    let existing = place.existing(options.check_rows)?;
    let created = found.is_none();
    let found = match found {
        Some(found) => found,
        None => new_ledger(&folder, clean.as_ref(), &existing)?,
    };
    if let Some(clean) = clean.filter(|_| !created) {
        clean.check(&found)?;
    }
    if let Usable::Yes(view) = &existing {
        let mark = view.mark();
        if mark.identity == found.identity && mark.number > found.tip.number {
            found.check_mark("the view", mark.number, &mark.hash)?;
        }
    }
    let unchecked = found.spans[..found.unchecked].to_vec();
    let (appender, index, cut) = found.open(Arc::clone(&folder), options.segment_bytes)?;
    let (view, view_rebuilt, caught_up) = ready_view(&mut place, existing, &folder, &index)?;
    let inner = Arc::new(Inner {
        folder,
        index,
        view,
        strangers: strangers::Strangers::default(),
        clock: options.clock,
        boot: options.boot.clone(),
        stopped: Mutex::new(None),
        check_stop: AtomicBool::new(false),
    });
    let mut writer = Writer {
        inner,
        appender,
        place,
        strangers_every: options.strangers_every,
        gather: options.gather,
        _ledger_lock: ledger_lock,
    };
    if let Some(cut) = &cut {
        let change = Change::TailCut { bytes: cut.bytes, kept: cut.kept.clone().unwrap_or_default() };
        writer.commit_own(change, Actor::daemon("open"))?;
    }
    let last_number = writer.appender.tip().number;
    let cut_tail = cut.map(|cut| (cut.bytes, cut.kept));
    let report = OpenReport { created, last_number, cut_tail, view_rebuilt, caught_up };
    Ok(Prepared { writer, unchecked, report })
}

/// The ledger's end, as an orderly close left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CleanMark {
    identity: [u8; 16],
    number: u64,
    hash: ledger::frame::Hash,
}

impl CleanMark {
    pub fn new(identity: [u8; 16], tip: &Tip) -> Self {
        Self { identity, number: tip.number, hash: tip.hash }
    }

    pub fn read(folder: &Folder) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = folder.read_small(CLEAN_MARK)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            StoreError::Damaged(Damage {
                segment: CLEAN_MARK.to_owned(),
                record: 0,
                offset: 0,
                what: format!("the mark of the last orderly close cannot be read ({e})"),
            })
        })
    }

    /// Checks a folder without a ledger.
    pub fn check_empty(&self) -> Result<(), StoreError> {
        if self.number == 0 { Ok(()) } else { Err(lost_ledger(self.number)) }
    }

    /// Checks that the ledger has all that it had when it was closed.
    pub fn check(&self, found: &Found) -> Result<(), StoreError> {
        if self.identity != found.identity {
            return Err(StoreError::Damaged(Damage {
                segment: CLEAN_MARK.to_owned(),
                record: 0,
                offset: 0,
                what: "the last orderly close was of another ledger than the one that is here".to_owned(),
            }));
        }
        found.check_mark("the mark of the last orderly close", self.number, &self.hash)
    }
}

/// Makes a ledger, unless something shows that there was one.
fn new_ledger(folder: &Folder, clean: Option<&CleanMark>, existing: &Usable) -> Result<Found, StoreError> {
    let seen = match existing {
        Usable::Yes(view) => view.mark().number,
        Usable::No(_) => 0,
    };
    let seen = seen.max(clean.map_or(0, |mark| mark.number));
    if seen > 0 {
        return Err(lost_ledger(seen));
    }
    // A mark without records, of a ledger that is gone, would stand in the way of the new one.
    folder.remove(CLEAN_MARK)?;
    Found::create(folder)
}

/// The error for a ledger of which nothing is left.
fn lost_ledger(seen: u64) -> StoreError {
    StoreError::Damaged(Damage {
        segment: ledger::name_of(1),
        record: 1,
        offset: 0,
        what: format!("the ledger has no segment, but record {seen} was on disk"),
    })
}

/// Makes the view ready: as it is, caught up, or anew.
fn ready_view(
    place: &mut Place,
    existing: Usable,
    folder: &Arc<Folder>,
    index: &SharedIndex,
) -> Result<(View, Option<String>, u64), StoreError> {
    let last = index.read().tip.number;
    let why = match existing {
        Usable::No(why) => why,
        Usable::Yes(view) => {
            let seen = view.mark().number;
            match replay::catch_up(folder, index, &view) {
                Ok(true) => return Ok((*view, None, last - seen)),
                Ok(false) => "it is the view of another ledger".to_owned(),
                // Whose fault that is, the new view will tell.
                Err(StoreError::View(why)) => why,
                Err(StoreError::Damaged(damage)) => damage.what,
                Err(error) => return Err(error),
            }
        }
    };
    let identity = index.read().identity;
    let view = place.fresh(identity)?;
    replay::catch_up(folder, index, &view)?;
    place.adopt()?;
    Ok((view, Some(why), last))
}

/// Verifies the segments that were not read at the start.
pub(crate) fn check_older(inner: &Inner, spans: &[ledger::Span]) {
    let result = ledger::check_chain(&inner.folder, spans, Some(Tip::default()), None, |_| {
        // The error only ends the check; nobody sees it.
        if inner.check_stop.load(Ordering::Relaxed) { Err(StoreError::Closed) } else { Ok(()) }
    });
    match result {
        Ok((tip, _)) => {
            // The segment after these was checked from its head on, at the start: they have to meet.
            let next = inner.index.read().spans[spans.len()];
            let met = ledger::Scan::open(&inner.folder, &ledger::name_of(next.first), None)
                .is_ok_and(|scan| Some(scan.head().before) == tip);
            if !met {
                inner.stop(format!(
                    "{}: the segment does not continue the one before",
                    ledger::name_of(next.first)
                ));
            }
        }
        Err(StoreError::Closed) => {}
        Err(error) => inner.stop(error.to_string()),
    }
}
