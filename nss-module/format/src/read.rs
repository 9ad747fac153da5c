//! The reader. It allocates nothing, holds nothing, and believes no byte before its checksum.

use std::ops::ControlFlow;

use crate::layout::{
    BadHeader, HEADER, Header, Keyed, Kind, PAGE, Page, RECORD_HEAD, RecordHead, Table, keyed, u32_at,
};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The system call failed, with this errno.
    Io(i32),
    /// The file is not what the writer wrote.
    Damaged,
    /// The file has another version.
    Version,
    /// The file is not root's, or others can write it, or it is no file.
    Foreign,
    /// The caller's buffer is too small.
    NoSpace,
}

/// Bytes of an account's or group's name at most, and a NUL.
pub const MAX_NAME: usize = 65;

/// Where the map's bytes come from.
pub trait Source {
    /// Fills the whole buffer from this offset; a file that ends before is [`Fault::Damaged`].
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault>;
}

impl Source for [u8] {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault> {
        let start = usize::try_from(offset).map_err(|_| Fault::Damaged)?;
        let bytes = self.get(start..).and_then(|rest| rest.get(..into.len())).ok_or(Fault::Damaged)?;
        into.copy_from_slice(bytes);
        Ok(())
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault> {
        (**self).read_at(offset, into)
    }
}

/// The caller's buffer.
pub trait Space {
    /// Its first bytes, or `None` if there are not so many.
    fn first(&mut self, length: usize) -> Option<&mut [u8]>;
}

impl Space for [u8] {
    fn first(&mut self, length: usize) -> Option<&mut [u8]> {
        self.get_mut(..length)
    }
}

/// An account; the rest are places in the buffer, each with a NUL behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundAccount {
    /// The uid.
    pub uid: u32,
    /// The primary gid.
    pub gid: u32,
    /// Bytes of the buffer that are used. The name begins at 0.
    pub length: usize,
    /// Where the gecos field begins.
    pub gecos: usize,
    /// Where the home folder begins.
    pub home: usize,
    /// Where the shell begins.
    pub shell: usize,
}

/// A group; its name is at the buffer's beginning, then its members, each with a NUL behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundGroup {
    /// The gid.
    pub gid: u32,
    /// How many members it has.
    pub members: usize,
    /// Bytes of the buffer that are used.
    pub length: usize,
}

/// How far an enumeration has come: the least id that is not passed yet, and the page where it may be.
///
/// It means the same in every map: an enumeration goes on where it was when the map is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// 33 bits: the id after the last one is past the end.
    next: u64,
    page: u32,
}

impl Cursor {
    /// Before the first id that may be answered.
    pub fn at(id: u32) -> Self {
        Self { next: u64::from(id), page: 0 }
    }

    /// The same, but not before this id.
    #[must_use]
    pub fn not_before(self, id: u32) -> Self {
        if self.next < u64::from(id) { Self::at(id) } else { self }
    }

    /// Behind this id.
    fn behind(id: u32, page: u64) -> Self {
        Self { next: u64::from(id) + 1, page: u32::try_from(page).unwrap_or(0) & 0x7fff_ffff }
    }

    /// As one number, which can be changed in one step.
    pub fn pack(self) -> u64 {
        self.next << 31 | u64::from(self.page)
    }

    /// The reverse.
    pub fn unpack(packed: u64) -> Self {
        Self { next: packed >> 31, page: (packed & 0x7fff_ffff) as u32 }
    }
}

/// An open map.
#[derive(Debug)]
pub struct Map<S> {
    source: S,
    header: Header,
}

impl<S: Source> Map<S> {
    /// Reads the header of a file of this length.
    pub fn open(source: S, length: u64) -> Result<Self, Fault> {
        let mut bytes = [0; HEADER];
        source.read_at(0, &mut bytes)?;
        match Header::decode(&bytes, length) {
            Ok(header) => Ok(Self { source, header }),
            Err(BadHeader::Version) => Err(Fault::Version),
            Err(BadHeader::Damaged) => Err(Fault::Damaged),
        }
    }

    /// What the file says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The account of this name, in the buffer.
    pub fn account_by_name<B: Space + ?Sized>(
        &self,
        name: &[u8],
        space: &mut B,
    ) -> Result<Option<FoundAccount>, Fault> {
        self.find(Table::AccountNames, name, |offset| {
            let (head, body) = self.record(offset, Kind::Account, space)?;
            if is_text(body, 0, name) { account(head, body).map(Some) } else { Ok(None) }
        })
    }

    /// The account of this uid, in the buffer.
    pub fn account_by_uid<B: Space + ?Sized>(
        &self,
        uid: u32,
        space: &mut B,
    ) -> Result<Option<FoundAccount>, Fault> {
        self.find(Table::AccountIds, &uid.to_le_bytes(), |offset| {
            let (head, body) = self.record(offset, Kind::Account, space)?;
            if head.first == uid { account(head, body).map(Some) } else { Ok(None) }
        })
    }

    /// The group of this name, in the buffer.
    pub fn group_by_name<B: Space + ?Sized>(
        &self,
        name: &[u8],
        space: &mut B,
    ) -> Result<Option<FoundGroup>, Fault> {
        self.find(Table::GroupNames, name, |offset| {
            let (head, body) = self.record(offset, Kind::Group, space)?;
            if is_text(body, 0, name) { group(head, body).map(Some) } else { Ok(None) }
        })
    }

    /// The group of this gid, in the buffer.
    pub fn group_by_gid<B: Space + ?Sized>(
        &self,
        gid: u32,
        space: &mut B,
    ) -> Result<Option<FoundGroup>, Fault> {
        self.find(Table::GroupIds, &gid.to_le_bytes(), |offset| {
            let (head, body) = self.record(offset, Kind::Group, space)?;
            if head.first == gid { group(head, body).map(Some) } else { Ok(None) }
        })
    }

    /// The account of the least uid at or behind the cursor, and the cursor behind it.
    pub fn next_account<B: Space + ?Sized>(
        &self,
        cursor: Cursor,
        space: &mut B,
    ) -> Result<Option<(FoundAccount, Cursor)>, Fault> {
        let Some((id, offset, page)) = self.at_or_behind(Table::AccountOrder, cursor)? else {
            return Ok(None);
        };
        let (head, body) = self.record(offset, Kind::Account, space)?;
        if head.first != id {
            return Err(Fault::Damaged);
        }
        Ok(Some((account(head, body)?, Cursor::behind(id, page))))
    }

    /// The group of the least gid at or behind the cursor, and the cursor behind it.
    pub fn next_group<B: Space + ?Sized>(
        &self,
        cursor: Cursor,
        space: &mut B,
    ) -> Result<Option<(FoundGroup, Cursor)>, Fault> {
        let Some((id, offset, page)) = self.at_or_behind(Table::GroupOrder, cursor)? else { return Ok(None) };
        let (head, body) = self.record(offset, Kind::Group, space)?;
        if head.first != id {
            return Err(Fault::Damaged);
        }
        Ok(Some((group(head, body)?, Cursor::behind(id, page))))
    }

    /// The name of the group of this gid, without its members: so many of the bytes.
    pub fn group_name(&self, gid: u32, into: &mut [u8; MAX_NAME]) -> Result<Option<usize>, Fault> {
        self.find(Table::GroupIds, &gid.to_le_bytes(), |offset| {
            let head = self.head(offset, Kind::Group)?;
            if head.first != gid {
                return Ok(None);
            }
            if !self.is_good(offset, &head)? {
                return Err(Fault::Damaged);
            }
            let start = &mut into[..MAX_NAME.min(head.body as usize)];
            self.source.read_at(offset + RECORD_HEAD as u64, start)?;
            start.iter().position(|byte| *byte == 0).map(Some).ok_or(Fault::Damaged)
        })
    }

    /// Shows the gid of each group that has this member, until told to stop. Whether there is any.
    pub fn groups_of(
        &self,
        member: &[u8],
        mut show: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<bool, Fault> {
        let found = self.find(Table::Members, member, |offset| {
            let head = self.head(offset, Kind::Member)?;
            if !self.is_good(offset, &head)? {
                return Err(Fault::Damaged);
            }
            let (body, gids) = (offset + RECORD_HEAD as u64, u64::from(head.first) * 4);
            if u64::from(head.body) != gids + member.len() as u64 + 1 {
                return Ok(None);
            }
            Ok(self.has_text(body + gids, member)?.then_some((body, gids)))
        })?;
        let Some((body, gids)) = found else { return Ok(false) };
        let mut enough = false;
        self.each_piece(body, gids, |piece| {
            for four in piece.chunks_exact(4) {
                enough = enough || show(u32_at(four, 0)).is_break();
            }
        })?;
        Ok(gids > 0)
    }

    /// Goes through the slots that a name or an id can be in.
    fn find<T>(
        &self,
        table: Table,
        bytes: &[u8],
        mut look: impl FnMut(u64) -> Result<Option<T>, Fault>,
    ) -> Result<Option<T>, Fault> {
        let (hash, key) = table.hash(&self.header.seed, bytes);
        let pages = self.header.table(table).pages;
        let mut number = hash % pages;
        // Each page at most once, should all of them claim to be full.
        for _ in 0..pages {
            let page = self.page(table, number)?;
            for slot in page.filled().iter().filter(|slot| slot.key == key) {
                if let Some(found) = look(u64::from(slot.reference) * 8)? {
                    return Ok(Some(found));
                }
            }
            if !page.is_full() {
                return Ok(None);
            }
            number = (number + 1) % pages;
        }
        Ok(None)
    }

    /// The least id at or behind the cursor, its record, and the page that has it.
    fn at_or_behind(&self, table: Table, cursor: Cursor) -> Result<Option<(u32, u64, u64)>, Fault> {
        let pages = self.header.table(table).pages;
        let first = |page: &Page| page.filled().first().map_or(u64::MAX, |slot| u64::from(slot.key));
        let last = |page: &Page| page.filled().last().map_or(u64::MAX, |slot| u64::from(slot.key));
        let mut found = None;
        if u64::from(cursor.page) < pages {
            let page = self.page(table, u64::from(cursor.page))?;
            if first(&page) <= cursor.next && cursor.next <= last(&page) {
                found = Some((page, u64::from(cursor.page)));
            }
        }
        if found.is_none() {
            let (mut low, mut high) = (0, pages);
            while low < high {
                let middle = low + (high - low) / 2;
                if last(&self.page(table, middle)?) < cursor.next { low = middle + 1 } else { high = middle }
            }
            if low == pages {
                return Ok(None);
            }
            found = Some((self.page(table, low)?, low));
        }
        let Some((page, number)) = found else { return Ok(None) };
        let slot = page.filled().iter().find(|slot| u64::from(slot.key) >= cursor.next);
        Ok(slot.map(|slot| (slot.key, u64::from(slot.reference) * 8, number)))
    }

    fn page(&self, table: Table, number: u64) -> Result<Page, Fault> {
        // The header's check has shown that the table lies within the file.
        let offset = self.header.table(table).offset + number * PAGE as u64;
        let mut bytes = [0; PAGE];
        self.source.read_at(offset, &mut bytes)?;
        Page::decode(&bytes, &self.header.seed, offset).ok_or(Fault::Damaged)
    }

    fn head(&self, offset: u64, kind: Kind) -> Result<RecordHead, Fault> {
        let mut bytes = [0; RECORD_HEAD];
        self.source.read_at(offset, &mut bytes)?;
        RecordHead::decode(&bytes, &self.header.seed, offset, kind).ok_or(Fault::Damaged)
    }

    /// A record whose body is text, in the buffer. Most are short, and read at once.
    fn record<'a, B: Space + ?Sized>(
        &self,
        offset: u64,
        kind: Kind,
        space: &'a mut B,
    ) -> Result<(RecordHead, &'a [u8]), Fault> {
        let mut buffer = [0; 256];
        let left = self.header.file_length.saturating_sub(offset);
        let there = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.source.read_at(offset, &mut buffer[..there])?;
        let (head, read) = buffer[..there].split_first_chunk::<RECORD_HEAD>().ok_or(Fault::Damaged)?;
        let head = RecordHead::decode(head, &self.header.seed, offset, kind).ok_or(Fault::Damaged)?;
        let body = space.first(head.body as usize).ok_or(Fault::NoSpace)?;
        match read.get(..body.len()) {
            Some(read) => body.copy_from_slice(read),
            None => self.source.read_at(offset + RECORD_HEAD as u64, body)?,
        }
        let good = keyed(&self.header.seed, offset, body) == head.body_sum && body.last() == Some(&0);
        if good { Ok((head, body)) } else { Err(Fault::Damaged) }
    }

    /// Whether a body is what its head says.
    fn is_good(&self, offset: u64, head: &RecordHead) -> Result<bool, Fault> {
        let mut sum = Keyed::new(&self.header.seed, offset);
        self.each_piece(offset + RECORD_HEAD as u64, u64::from(head.body), |piece| sum.add(piece))?;
        Ok(sum.end() == head.body_sum)
    }

    /// Whether the file has this text, and a NUL behind it, at this offset.
    fn has_text(&self, offset: u64, text: &[u8]) -> Result<bool, Fault> {
        let mut at = 0;
        let mut same = true;
        self.each_piece(offset, text.len() as u64 + 1, |piece| {
            for &byte in piece {
                same = same && byte == text.get(at).copied().unwrap_or(0);
                at += 1;
            }
        })?;
        Ok(same)
    }

    /// Reads a stretch of the file in pieces of a multiple of 8 bytes, but for the last.
    fn each_piece(&self, mut offset: u64, mut length: u64, mut take: impl FnMut(&[u8])) -> Result<(), Fault> {
        let mut buffer = [0; 512];
        while length > 0 {
            let now = length.min(buffer.len() as u64);
            let piece = &mut buffer[..usize::try_from(now).map_err(|_| Fault::Damaged)?];
            self.source.read_at(offset, piece)?;
            take(piece);
            offset += now;
            length -= now;
        }
        Ok(())
    }
}

/// Whether the text at a place of the body is this one, with a NUL behind it.
fn is_text(body: &[u8], at: usize, text: &[u8]) -> bool {
    body.get(at..).and_then(|rest| rest.strip_prefix(text)).is_some_and(|rest| rest.first() == Some(&0))
}

fn account(head: RecordHead, body: &[u8]) -> Result<FoundAccount, Fault> {
    // Where the four texts begin, and where a fifth would.
    let mut starts = [0; 5];
    let mut count = 0;
    for (at, _) in body.iter().enumerate().filter(|(_, byte)| **byte == 0) {
        count += 1;
        *starts.get_mut(count).ok_or(Fault::Damaged)? = at + 1;
    }
    if count != 4 {
        return Err(Fault::Damaged);
    }
    let [_, gecos, home, shell, length] = starts;
    Ok(FoundAccount { uid: head.first, gid: head.second, length, gecos, home, shell })
}

fn group(head: RecordHead, body: &[u8]) -> Result<FoundGroup, Fault> {
    let members = head.second as usize;
    // The name's NUL and each member's.
    let texts = body.split(|byte| *byte == 0).count() - 1;
    if texts != members.saturating_add(1) {
        return Err(Fault::Damaged);
    }
    Ok(FoundGroup { gid: head.first, members, length: body.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_being_packed() {
        for (id, page) in [(0, 0), (u32::MAX, 0x7fff_ffff), (60_000, 12)] {
            let cursor = Cursor::behind(id, page);
            assert_eq!(Cursor::unpack(cursor.pack()), cursor);
        }
        assert_eq!(Cursor::unpack(0), Cursor::at(0));
    }
}
