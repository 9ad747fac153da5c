//! What may be answered: the map, held against the ranges and against `files`.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read as _};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};

use deputy_nss_format::range::MAX_RANGE_FILE;
use deputy_nss_format::read::MAX_NAME;
use deputy_nss_format::{
    Cursor, Fault, FilesIdentity, FoundAccount, FoundGroup, MAP, Map, RANGE, Ranges, Scan, Source, Space,
};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Writable by the group or by everybody.
const OTHERS_WRITE: u32 = 0o022;

/// The map's descriptor.
pub struct Opened(File);

impl Source for Opened {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.0.read_exact_at(into, offset).map_err(|error| fault(&error))
    }
}

/// What one call works with; open for that call only.
pub struct Lookup {
    map: Map<Opened>,
    ranges: Ranges,
}

impl Lookup {
    /// Opens both files and looks at their beginnings.
    pub fn open() -> Result<Self, Fault> {
        let ranges = ranges()?;
        let (file, metadata) = open_as_roots(MAP)?;
        Ok(Self { map: Map::open(Opened(file), metadata.len())?, ranges })
    }

    /// The account of this name.
    pub fn account_by_name<B: Space>(
        &self,
        name: &[u8],
        space: &mut B,
    ) -> Result<Option<FoundAccount>, Fault> {
        let found = self.map.account_by_name(name, space)?;
        self.account_if_allowed(found, space)
    }

    /// The account of this uid.
    pub fn account_by_uid<B: Space>(&self, uid: u32, space: &mut B) -> Result<Option<FoundAccount>, Fault> {
        let found = self.map.account_by_uid(uid, space)?;
        self.account_if_allowed(found, space)
    }

    /// The group of this name.
    pub fn group_by_name<B: Space>(&self, name: &[u8], space: &mut B) -> Result<Option<FoundGroup>, Fault> {
        let found = self.map.group_by_name(name, space)?;
        self.group_if_allowed(found, space)
    }

    /// The group of this gid.
    pub fn group_by_gid<B: Space>(&self, gid: u32, space: &mut B) -> Result<Option<FoundGroup>, Fault> {
        let found = self.map.group_by_gid(gid, space)?;
        self.group_if_allowed(found, space)
    }

    /// The next account of an enumeration, and where it goes on.
    pub fn next_account<B: Space>(
        &self,
        mut cursor: Cursor,
        space: &mut B,
    ) -> Result<Option<(FoundAccount, Cursor)>, Fault> {
        cursor = cursor.not_before(self.ranges.uid.first());
        while let Some((found, behind)) = self.map.next_account(cursor, space)? {
            if found.uid > self.ranges.uid.last() {
                break;
            }
            if let Some(allowed) = self.account_if_allowed(Some(found), space)? {
                return Ok(Some((allowed, behind)));
            }
            cursor = behind;
        }
        Ok(None)
    }

    /// The next group of an enumeration, and where it goes on.
    pub fn next_group<B: Space>(
        &self,
        mut cursor: Cursor,
        space: &mut B,
    ) -> Result<Option<(FoundGroup, Cursor)>, Fault> {
        cursor = cursor.not_before(self.ranges.gid.first());
        while let Some((found, behind)) = self.map.next_group(cursor, space)? {
            if found.gid > self.ranges.gid.last() {
                break;
            }
            if let Some(allowed) = self.group_if_allowed(Some(found), space)? {
                return Ok(Some((allowed, behind)));
            }
            cursor = behind;
        }
        Ok(None)
    }

    /// Shows the gids of a member's groups, until told to stop. Whether he has any.
    pub fn groups_of(
        &self,
        member: &[u8],
        mut show: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<bool, Fault> {
        let changed = has_changed(GROUP, self.map.header().group_file)?;
        let mut failed = None;
        let mut any = false;
        self.map.groups_of(member, |gid| {
            if !self.ranges.gid.has(gid) {
                return ControlFlow::Continue(());
            }
            // The record has no names: the group itself has to be looked at.
            if changed {
                match self.is_answered(gid) {
                    Ok(true) => {}
                    Ok(false) => return ControlFlow::Continue(()),
                    Err(fault) => {
                        failed = Some(fault);
                        return ControlFlow::Break(());
                    }
                }
            }
            any = true;
            show(gid)
        })?;
        failed.map_or(Ok(any), Err)
    }

    /// Whether the group of this gid is one that would be answered.
    fn is_answered(&self, gid: u32) -> Result<bool, Fault> {
        let mut name = [0; MAX_NAME];
        let Some(length) = self.map.group_name(gid, &mut name)? else { return Ok(false) };
        Ok(!is_in(GROUP, &name[..length], gid)?)
    }

    fn account_if_allowed<B: Space>(
        &self,
        found: Option<FoundAccount>,
        space: &mut B,
    ) -> Result<Option<FoundAccount>, Fault> {
        let Some(account) = found else { return Ok(None) };
        if !self.ranges.uid.has(account.uid) || !self.ranges.gid.has(account.gid) {
            return Ok(None);
        }
        let of = self.map.header().passwd_file;
        Ok((!is_taken(PASSWD, of, account.length, account.uid, space)?).then_some(account))
    }

    fn group_if_allowed<B: Space>(
        &self,
        found: Option<FoundGroup>,
        space: &mut B,
    ) -> Result<Option<FoundGroup>, Fault> {
        let Some(group) = found.filter(|group| self.ranges.gid.has(group.gid)) else { return Ok(None) };
        let of = self.map.header().group_file;
        Ok((!is_taken(GROUP, of, group.length, group.gid, space)?).then_some(group))
    }
}

/// Whether `files` has the name at the buffer's beginning, or the id.
///
/// The writer has looked, and noted which file it looked at. While that is still the file, its word holds; else the
/// file is read, as glibc's own `files` does at each look-up.
fn is_taken<B: Space>(
    path: &str,
    looked_at: FilesIdentity,
    length: usize,
    id: u32,
    space: &mut B,
) -> Result<bool, Fault> {
    if !has_changed(path, looked_at)? {
        return Ok(false);
    }
    let text = space.first(length).ok_or(Fault::NoSpace)?;
    let name = text.split(|byte| *byte == 0).next().unwrap_or_default();
    is_in(path, name, id)
}

/// Whether this is another file than the one that the writer looked at.
fn has_changed(path: &str, looked_at: FilesIdentity) -> Result<bool, Fault> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(!looked_at.is(&metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(fault(&error)),
    }
}

/// Whether a line of the file has this name or this id. A file that is not there has none.
fn is_in(path: &str, name: &[u8], id: u32) -> Result<bool, Fault> {
    let mut file = match open_plainly(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(fault(&error)),
    };
    let mut scan = Scan::new(name, id);
    let mut buffer = [0; 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(scan.found()),
            Ok(length) => scan.add(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(fault(&error)),
        }
    }
}

/// The ranges, from root's file.
fn ranges() -> Result<Ranges, Fault> {
    let (file, metadata) = open_as_roots(RANGE)?;
    let mut bytes = [0; MAX_RANGE_FILE];
    let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let text = bytes.get_mut(..length).ok_or(Fault::Damaged)?;
    Opened(file).read_at(0, text)?;
    Ranges::decode(text).ok_or(Fault::Damaged)
}

/// Opens a file that must be root's, and nobody else's to write.
fn open_as_roots(path: &str) -> Result<(File, Metadata), Fault> {
    let file = open_plainly(path).map_err(|error| fault(&error))?;
    let metadata = file.metadata().map_err(|error| fault(&error))?;
    let good = metadata.is_file() && metadata.uid() == 0 && metadata.mode() & OTHERS_WRITE == 0;
    if good { Ok((file, metadata)) } else { Err(Fault::Foreign) }
}

/// Opens for reading; never waits, not even for the other end of a pipe that lies there.
fn open_plainly(path: &str) -> Result<File, Error> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn fault(error: &Error) -> Fault {
    match error.kind() {
        // The file ended before what it says it has.
        ErrorKind::UnexpectedEof => Fault::Damaged,
        _ => Fault::Io(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}
