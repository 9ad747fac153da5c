//! Answers in the form of C: structures that point into the caller's buffer.

use std::ffi::c_char;

use deputy_nss_format::{Fault, FoundAccount, FoundGroup, Space};
use libc::{group, passwd};

/// What the password fields say: no password, and no line in `shadow` or `gshadow` either.
const NO_PASSWORD: &[u8] = b"*\0";

/// The buffer of a caller of `getpwnam_r` and the like.
pub struct Buffer {
    start: *mut u8,
    length: usize,
    /// So many bytes have been written; what a caller gives may be uninitialised.
    initialised: usize,
}

impl Buffer {
    /// # Safety
    ///
    /// So many bytes can be written at `start`, and nobody else uses them while this lives.
    pub unsafe fn new(start: *mut c_char, length: usize) -> Self {
        Self { start: start.cast(), length: if start.is_null() { 0 } else { length }, initialised: 0 }
    }

    /// Writes the password field behind so many used bytes, and returns its place and its end.
    fn put_password(&mut self, used: usize) -> Result<(usize, usize), Fault> {
        let end = used.checked_add(NO_PASSWORD.len()).ok_or(Fault::NoSpace)?;
        let bytes = self.first(end).ok_or(Fault::NoSpace)?;
        bytes[used..].copy_from_slice(NO_PASSWORD);
        Ok((used, end))
    }

    /// Room for so many pointers behind so many used bytes.
    fn pointers(&mut self, used: usize, count: usize) -> Result<*mut *mut c_char, Fault> {
        let padding = self.start.wrapping_add(used).align_offset(align_of::<*mut c_char>());
        let begin = used.checked_add(padding).ok_or(Fault::NoSpace)?;
        let length = count.checked_mul(size_of::<*mut c_char>()).ok_or(Fault::NoSpace)?;
        let end = begin.checked_add(length).filter(|end| *end <= self.length).ok_or(Fault::NoSpace)?;
        debug_assert!(begin <= end);
        Ok(self.start.wrapping_add(begin).cast())
    }

    /// A pointer to a byte that has been written.
    fn at(&self, place: usize) -> *mut c_char {
        self.start.wrapping_add(place).cast()
    }

    /// Fills in an account that the reader has put here.
    ///
    /// # Safety
    ///
    /// `into` can be written.
    pub unsafe fn account(&mut self, found: &FoundAccount, into: *mut passwd) -> Result<(), Fault> {
        let (password, _) = self.put_password(found.length)?;
        let entry = passwd {
            pw_name: self.at(0),
            pw_passwd: self.at(password),
            pw_uid: found.uid,
            pw_gid: found.gid,
            pw_gecos: self.at(found.gecos),
            pw_dir: self.at(found.home),
            pw_shell: self.at(found.shell),
        };
        // SAFETY: the caller answers for the pointer.
        unsafe { into.write(entry) };
        Ok(())
    }

    /// Fills in a group that the reader has put here.
    ///
    /// # Safety
    ///
    /// `into` can be written.
    pub unsafe fn group(&mut self, found: &FoundGroup, into: *mut group) -> Result<(), Fault> {
        let (password, used) = self.put_password(found.length)?;
        let places = found.members.checked_add(1).ok_or(Fault::NoSpace)?;
        let members = self.pointers(used, places)?;
        let base = self.start;
        let texts = self.first(found.length).ok_or(Fault::NoSpace)?;
        // Each member begins behind a NUL; the last NUL has nothing behind it.
        let ends = texts.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
        let mut written = 0;
        for end in ends.take(found.members) {
            let member: *mut c_char = base.wrapping_add(end + 1).cast();
            // SAFETY: `pointers` has made sure of room for all members and one more.
            let place = unsafe { members.add(written) };
            // SAFETY: it is in the buffer, behind the texts, and aligned.
            unsafe { place.write(member) };
            written += 1;
        }
        // SAFETY: as above; at most `members` are before it.
        let place = unsafe { members.add(written) };
        // SAFETY: as above.
        unsafe { place.write(std::ptr::null_mut()) };
        let entry =
            group { gr_name: self.at(0), gr_passwd: self.at(password), gr_gid: found.gid, gr_mem: members };
        // SAFETY: the caller answers for the pointer.
        unsafe { into.write(entry) };
        Ok(())
    }
}

impl Space for Buffer {
    fn first(&mut self, length: usize) -> Option<&mut [u8]> {
        if length > self.length {
            return None;
        }
        if length > self.initialised {
            // SAFETY: both numbers are within the buffer.
            let rest = unsafe { self.start.add(self.initialised) };
            // SAFETY: from there to `length` is within the buffer, which can be written.
            unsafe { rest.write_bytes(0, length - self.initialised) };
            self.initialised = length;
        }
        if length == 0 {
            return Some(&mut []);
        }
        // SAFETY: the buffer has so many bytes, they are initialised, and the borrow of self keeps others away.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start, length) })
    }
}

/// The list of gids of `initgroups_dyn(3)`: glibc's, on its heap, to be grown as needed.
pub struct Gids {
    start: *mut libc::c_long,
    size: *mut libc::c_long,
    list: *mut *mut libc::gid_t,
    limit: libc::c_long,
}

/// Whether one more gid could be put into a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is in.
    Done,
    /// The caller wants no more.
    Full,
    /// The heap is exhausted.
    NoMemory,
}

impl Gids {
    /// # Safety
    ///
    /// All three point to what `initgroups_dyn` gets: `*list` is from `malloc`, has `*size` places of which `*start` are
    /// used, and nobody else uses it meanwhile. `limit` is the most there may be, if positive.
    pub unsafe fn new(
        start: *mut libc::c_long,
        size: *mut libc::c_long,
        list: *mut *mut libc::gid_t,
        limit: libc::c_long,
    ) -> Self {
        Self { start, size, list, limit }
    }

    /// Adds one gid.
    pub fn put(&mut self, gid: libc::gid_t) -> Put {
        // SAFETY: `new`'s caller answers for the pointer.
        let used = unsafe { *self.start };
        // SAFETY: likewise.
        let size = unsafe { *self.size };
        if self.limit > 0 && used >= self.limit {
            return Put::Full;
        }
        if used >= size && !self.grow(size) {
            return Put::NoMemory;
        }
        let Ok(place) = usize::try_from(used) else { return Put::NoMemory };
        // SAFETY: likewise; it may have moved by growing.
        let list = unsafe { *self.list };
        // SAFETY: the list has more places than are used.
        let place = unsafe { list.add(place) };
        // SAFETY: likewise.
        unsafe { place.write(gid) };
        // SAFETY: as above.
        unsafe { *self.start = used + 1 };
        Put::Done
    }

    fn grow(&mut self, size: libc::c_long) -> bool {
        let doubled = size.max(8).saturating_mul(2);
        let larger = if self.limit > 0 { doubled.min(self.limit) } else { doubled };
        let bytes = usize::try_from(larger).ok().and_then(|n| n.checked_mul(size_of::<libc::gid_t>()));
        let Some(bytes) = bytes.filter(|_| larger > size) else { return false };
        // SAFETY: `new`'s caller answers for the pointer.
        let old = unsafe { *self.list };
        // SAFETY: the list is from malloc; on failure it stays as it is.
        let new: *mut libc::gid_t = unsafe { libc::realloc(old.cast(), bytes) }.cast();
        if new.is_null() {
            return false;
        }
        // SAFETY: as above.
        unsafe { *self.list = new };
        // SAFETY: as above.
        unsafe { *self.size = larger };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list with one place, which is used; then so many puts of 7, 8, ... What each said, and the list.
    fn put(count: u32, limit: libc::c_long) -> (Vec<Put>, Vec<u32>) {
        // SAFETY: malloc has no preconditions; the memory is big enough for one gid.
        let mut list: *mut libc::gid_t = unsafe { libc::malloc(size_of::<libc::gid_t>()) }.cast();
        assert!(!list.is_null());
        // SAFETY: it has room for one.
        unsafe { list.write(6) };
        let (mut start, mut size) = (1, 1);
        // SAFETY: all three are local, and say what the list is.
        let mut gids = unsafe { Gids::new(&raw mut start, &raw mut size, &raw mut list, limit) };
        let said = (0..count).map(|n| gids.put(7 + n)).collect();
        assert!(start <= size && (limit <= 0 || size <= limit.max(1)), "{start} {size} {limit}");
        // SAFETY: so many are written.
        let found = unsafe { std::slice::from_raw_parts(list, usize::try_from(start).unwrap()) }.to_vec();
        // SAFETY: it is from malloc or realloc.
        unsafe { libc::free(list.cast()) };
        (said, found)
    }

    #[test]
    fn a_list_of_gids_grows_as_far_as_its_limit() {
        let (said, found) = put(3000, 0);
        assert!(said.iter().all(|put| *put == Put::Done));
        assert_eq!(found, (6..3007).collect::<Vec<u32>>());
        for limit in [1_u32, 2, 3, 16, 17, 100] {
            let (said, found) = put(100, limit.into());
            assert_eq!(found, (6..6 + limit).collect::<Vec<u32>>());
            assert_eq!(said.iter().filter(|put| **put == Put::Full).count(), 101 - limit as usize);
        }
    }
}
