//! The name service's map, written anew from the pool's records.
//!
//! Whoever waits for the turn meanwhile often finds that the map has his entry by then: many leases at once share one
//! writing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::SystemTime;

use deputy_core::denial::{Code, Denial};
use deputy_core::job::OsIdentity;
use deputy_core::pool::{PoolRecord, PoolSettings, PoolState};
use deputy_nss_format::{
    Account, Content, FOLDER, Fault, FilesIdentity, Group, MAP, Map, RANGE, Range, Ranges, Refusal, Source,
    Taken, image,
};

use super::{groups, records};
use crate::paths::MAPPING;
use crate::{durable, request};

/// Makes sure that the map has an OS account.
pub fn ensure(pool: &PoolSettings, identity: &OsIdentity) -> Result<(), Denial> {
    let _turn = records::turn_at(MAPPING)?;
    let ranges = ranges(pool)?;
    if are(ranges) && has(identity) { Ok(()) } else { write(pool, ranges, Some(identity)) }
}

/// Makes sure that there is a map with the pool's ranges: without one the name service cannot say that a name or number
/// is nobody's.
pub fn ensure_there(pool: &PoolSettings) -> Result<(), Denial> {
    let _turn = records::turn_at(MAPPING)?;
    let ranges = ranges(pool)?;
    if are(ranges) && is_readable() { Ok(()) } else { write(pool, ranges, None) }
}

/// Writes the map from the records as they are now.
pub fn renew(pool: &PoolSettings) -> Result<(), Denial> {
    let _turn = records::turn_at(MAPPING)?;
    write(pool, ranges(pool)?, None)
}

fn ranges(pool: &PoolSettings) -> Result<Ranges, Denial> {
    let range = |first, last| {
        Range::new(first, last).ok_or_else(|| {
            Denial::new(Code::SettingsInvalid, "deputy.toml: pool", "the pool's range is none")
                .remedy("correct the range in deputy.toml")
        })
    };
    Ok(Ranges { uid: range(pool.uid_min, pool.uid_max)?, gid: range(pool.gid_min, pool.gid_max)? })
}

/// Whether these are the ranges that the name service answers.
fn are(ranges: Ranges) -> bool {
    fs::read(RANGE).is_ok_and(|text| Ranges::decode(&text) == Some(ranges))
}

/// An open map, read where it is needed.
struct OnDisk(File);

impl Source for OnDisk {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.0.read_exact_at(into, offset).map_err(|error| Fault::Io(error.raw_os_error().unwrap_or(0)))
    }
}

fn open() -> Option<Map<OnDisk>> {
    let file = File::open(MAP).ok()?;
    let length = file.metadata().ok()?.len();
    Map::open(OnDisk(file), length).ok()
}

fn is_readable() -> bool {
    open().is_some()
}

/// Whether the map has exactly this account. One that cannot be read has it not.
fn has(identity: &OsIdentity) -> bool {
    let look = || -> Option<bool> {
        let map = open()?;
        let mut space = vec![0; 4096];
        let found = map.account_by_uid(identity.uid.raw(), &mut space[..]).ok()??;
        let name = space.split(|byte| *byte == 0).next()?;
        Some(name == identity.name.as_str().as_bytes() && found.gid == identity.gid.raw())
    };
    look().unwrap_or(false)
}

fn write(pool: &PoolSettings, ranges: Ranges, needed: Option<&OsIdentity>) -> Result<(), Denial> {
    let leased: Vec<PoolRecord> =
        records::all()?.into_iter().filter(|record| record.state == PoolState::Leased).collect();
    let failed = |what: &str, error: io::Error| {
        Denial::new(
            Code::Disk,
            FOLDER,
            format!("the name service's map could not be written: {what}: {error}"),
        )
        .remedy("make room on the file system of /var/lib/deputy, then ask again")
    };
    let of_projects = groups::all()?;
    let mut content = Content {
        accounts: leased.iter().map(|record| entry(pool, record)).collect(),
        groups: leased
            .iter()
            .map(|record| own_group(&record.os_account))
            .chain(of_projects.iter().map(groups::entry))
            .collect(),
        taken_accounts: taken("/etc/passwd").map_err(|error| failed("/etc/passwd", error))?,
        taken_groups: taken("/etc/group").map_err(|error| failed("/etc/group", error))?,
    };
    let bytes = without_refused(&mut content, &ranges)?;
    if let Some(identity) = needed
        && !content.accounts.iter().any(|account| account.uid == identity.uid.raw())
    {
        return Err(Denial::new(
            Code::OsAccountUnknown,
            "deputy.toml: pool",
            format!("{identity} is leased, but outside the pool's range, or /etc/passwd or /etc/group has its name or number"),
        )
        .remedy("take the other entry away, or let the range have all leases: deputyctl pool list"));
    }
    let folder = Path::new(FOLDER);
    durable::replace_for_all(folder, "range", ranges.encode().as_bytes())
        .and_then(|()| durable::replace_for_all(folder, "map", &bytes))
        .map_err(|error| failed(FOLDER, error))
}

/// The map's bytes. An entry that the writer refuses, because `files` has its name or number by now, or the range no
/// longer has it, is left out: it must not keep all others from being named.
fn without_refused(content: &mut Content, ranges: &Ranges) -> Result<Vec<u8>, Denial> {
    let mut refused = HashSet::new();
    loop {
        let refusal = match image(content, ranges, request::random()?) {
            Ok(bytes) => return Ok(bytes),
            Err(refusal) => refusal,
        };
        let name = match &refusal {
            Refusal::Name(name)
            | Refusal::Field(name)
            | Refusal::OutOfRange(name)
            | Refusal::InFiles(name)
            | Refusal::Twice(name) => name.clone(),
            Refusal::TooLarge => return Err(Denial::internal(refusal.to_string())),
        };
        tracing::warn!(event = "pool_account_not_named", os_user = %name, error = %refusal);
        if !refused.insert(name.clone()) {
            return Err(Denial::internal(refusal.to_string()));
        }
        content.accounts.retain(|account| account.name != name);
        content.groups.retain(|group| group.name != name);
    }
}

/// An account as the name service gives it. Whose it is stands in the records alone: everybody reads the map.
fn entry(pool: &PoolSettings, record: &PoolRecord) -> Account {
    let OsIdentity { name, uid, gid } = &record.os_account;
    Account {
        name: name.as_str().to_owned(),
        uid: uid.raw(),
        gid: gid.raw(),
        gecos: String::new(),
        home: record.home.clone(),
        shell: pool.shell.clone(),
    }
}

fn own_group(identity: &OsIdentity) -> Group {
    Group { name: identity.name.as_str().to_owned(), gid: identity.gid.raw(), members: Vec::new() }
}

/// What `files` has.
fn taken(path: &str) -> io::Result<Taken> {
    let mut file = File::open(path)?;
    let identity = FilesIdentity::settled(&file.metadata()?, SystemTime::now());
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(Taken::from_text(&text, identity))
}
