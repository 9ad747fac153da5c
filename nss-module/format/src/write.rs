//! The writer: accounts and groups to the bytes of a map. What it does not like it refuses as a whole.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::identity::FilesIdentity;
use crate::layout::{
    HEADER, Header, Kind, MAX_BODY, PAGE, Page, RECORD_HEAD, RecordHead, SLOTS, Seed, Slot, TABLES, Table,
    TableAt, keyed,
};
use crate::range::Ranges;
use crate::read::MAX_NAME;

/// An account as the module answers it. Its password field is `*`: there is no password, and none in `shadow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: u32,
    /// Its primary group's gid.
    pub gid: u32,
    /// Its person's name, or nothing.
    pub gecos: String,
    /// Its home folder.
    pub home: String,
    /// Its shell.
    pub shell: String,
}

/// A group as the module answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its gid.
    pub gid: u32,
    /// Names of OS accounts, ours or any others.
    pub members: Vec<String>,
}

/// Names and ids that `files` has: nothing in a map may have one of them.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    names: HashSet<Vec<u8>>,
    ids: HashSet<u32>,
    identity: Option<FilesIdentity>,
}

impl Taken {
    /// What the text of `/etc/passwd` or `/etc/group` has; the identity is that of the file, from before it was read.
    pub fn from_text(text: &[u8], identity: FilesIdentity) -> Self {
        let mut taken = Self { identity: Some(identity), ..Self::default() };
        for line in text.split(|byte| *byte == b'\n') {
            let mut fields = line.trim_ascii_start().split(|byte| *byte == b':');
            taken.names.insert(fields.next().unwrap_or_default().to_vec());
            let id: Option<u32> = fields.nth(1).and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
            taken.ids.extend(id);
        }
        taken
    }

    fn identity(&self) -> FilesIdentity {
        self.identity.unwrap_or(FilesIdentity::NONE)
    }
}

/// What goes into a map.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// The accounts, in any order.
    pub accounts: Vec<Account>,
    /// The groups, in any order.
    pub groups: Vec<Group>,
    /// What `/etc/passwd` has.
    pub taken_accounts: Taken,
    /// What `/etc/group` has.
    pub taken_groups: Taken,
}

/// Why there is no map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No name for an account, a group or a member.
    Name(String),
    /// A colon, a newline or the like in a field of this account.
    Field(String),
    /// The uid or gid of this account or group is not in the range.
    OutOfRange(String),
    /// `files` has this name, or the id of it.
    InFiles(String),
    /// A name that occurs twice, or whose id does.
    Twice(String),
    /// Too much for one group, or for one map.
    TooLarge,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "'{}' is no name that can be given", name.escape_debug()),
            Self::Field(name) => write!(f, "{name}: a field has a colon or a control character"),
            Self::OutOfRange(name) => write!(f, "{name}: its uid or gid is outside the range"),
            Self::InFiles(name) => write!(f, "{name}: it or its number is in /etc/passwd or /etc/group"),
            Self::Twice(name) => write!(f, "{name}: it or its number occurs twice"),
            Self::TooLarge => write!(f, "too much for one group or one map"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The bytes of a map with this content. The seed has to be random and new.
pub fn image(content: &Content, ranges: &Ranges, seed: Seed) -> Result<Vec<u8>, Refusal> {
    check(content, ranges)?;
    let mut accounts: Vec<&Account> = content.accounts.iter().collect();
    accounts.sort_unstable_by_key(|account| account.uid);
    let mut groups: Vec<&Group> = content.groups.iter().collect();
    groups.sort_unstable_by_key(|group| group.gid);
    let mut members: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for group in &groups {
        for member in &group.members {
            members.entry(member).or_default().push(group.gid);
        }
    }
    let mut writer = Writer::new(seed, accounts.len(), groups.len(), members.len())?;
    for account in accounts {
        let body = texts([&account.name, &account.gecos, &account.home, &account.shell]);
        let reference = writer.record(Kind::Account, account.uid, account.gid, &body)?;
        writer.hashed(Table::AccountNames, account.name.as_bytes(), reference);
        writer.hashed(Table::AccountIds, &account.uid.to_le_bytes(), reference);
        writer.listed(Table::AccountOrder, account.uid, reference);
    }
    for group in groups {
        let count = u32::try_from(group.members.len()).map_err(|_| Refusal::TooLarge)?;
        let body = texts(std::iter::once(&group.name).chain(&group.members));
        let reference = writer.record(Kind::Group, group.gid, count, &body)?;
        writer.hashed(Table::GroupNames, group.name.as_bytes(), reference);
        writer.hashed(Table::GroupIds, &group.gid.to_le_bytes(), reference);
        writer.listed(Table::GroupOrder, group.gid, reference);
    }
    for (member, gids) in members {
        let count = u32::try_from(gids.len()).map_err(|_| Refusal::TooLarge)?;
        let mut body: Vec<u8> = gids.iter().flat_map(|gid| gid.to_le_bytes()).collect();
        body.extend_from_slice(&texts([member]));
        let reference = writer.record(Kind::Member, count, 0, &body)?;
        writer.hashed(Table::Members, member.as_bytes(), reference);
    }
    Ok(writer.finish(content.taken_accounts.identity(), content.taken_groups.identity()))
}

fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend_from_slice(text.as_ref().as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Refusals, for the whole content.
fn check(content: &Content, ranges: &Ranges) -> Result<(), Refusal> {
    let (mut names, mut ids) = (HashSet::new(), HashSet::new());
    for account in &content.accounts {
        let name = &account.name;
        check_entry(name, account.uid, &content.taken_accounts, &mut names, &mut ids)?;
        if !ranges.uid.has(account.uid) || !ranges.gid.has(account.gid) {
            return Err(Refusal::OutOfRange(name.clone()));
        }
        for field in [&account.gecos, &account.home, &account.shell] {
            if field.chars().any(|c| c == ':' || c.is_control()) {
                return Err(Refusal::Field(name.clone()));
            }
        }
    }
    (names, ids) = (HashSet::new(), HashSet::new());
    for group in &content.groups {
        let name = &group.name;
        check_entry(name, group.gid, &content.taken_groups, &mut names, &mut ids)?;
        if !ranges.gid.has(group.gid) {
            return Err(Refusal::OutOfRange(name.clone()));
        }
        let mut members = HashSet::new();
        for member in &group.members {
            if !is_member_name(member) {
                return Err(Refusal::Name(member.clone()));
            }
            if !members.insert(member) {
                return Err(Refusal::Twice(member.clone()));
            }
        }
    }
    Ok(())
}

fn check_entry<'a>(
    name: &'a String,
    id: u32,
    taken: &Taken,
    names: &mut HashSet<&'a str>,
    ids: &mut HashSet<u32>,
) -> Result<(), Refusal> {
    if !is_name(name) {
        return Err(Refusal::Name(name.clone()));
    }
    if taken.names.contains(name.as_bytes()) || taken.ids.contains(&id) {
        return Err(Refusal::InFiles(name.clone()));
    }
    if !names.insert(name) || !ids.insert(id) {
        return Err(Refusal::Twice(name.clone()));
    }
    Ok(())
}

/// Names that every program can live with: 1 to 64 letters, digits, `_`, `-`, `.`, `@`; a letter or `_` first.
fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.@".contains(&b));
    first && rest && name.len() < MAX_NAME
}

/// Names of accounts from anywhere (a directory's may have spaces, or a domain before a backslash), as far as they
/// fit into a list.
fn is_member_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.chars().any(|c| c.is_control() || c == ':' || c == ',')
}

/// The tables, which lie before the records, and the records as they come.
struct Writer {
    seed: Seed,
    tables: [Vec<Page>; TABLES],
    /// Where the records begin.
    records_at: u64,
    records: Vec<u8>,
    /// How many entries of each order are written.
    listed: [usize; TABLES],
}

/// Entries of a page on average where they are hashed: few pages are full then, and half of the file is used.
const FILL: usize = SLOTS / 2;

impl Writer {
    fn new(seed: Seed, accounts: usize, groups: usize, members: usize) -> Result<Self, Refusal> {
        let empty =
            |entries: usize, fill: usize| vec![Page([Slot::default(); SLOTS]); entries.div_ceil(fill).max(1)];
        let tables = [
            empty(accounts, FILL),
            empty(accounts, FILL),
            empty(accounts, SLOTS),
            empty(groups, FILL),
            empty(groups, FILL),
            empty(groups, SLOTS),
            empty(members, FILL),
        ];
        let pages: usize = tables.iter().map(Vec::len).sum();
        // Cursors have 31 bits for a page's number.
        if pages > i32::MAX as usize {
            return Err(Refusal::TooLarge);
        }
        let records_at = HEADER + pages * PAGE;
        Ok(Self { seed, tables, records_at: records_at as u64, records: Vec::new(), listed: [0; TABLES] })
    }

    /// Adds a record and returns its reference.
    fn record(&mut self, kind: Kind, first: u32, second: u32, body: &[u8]) -> Result<u32, Refusal> {
        let offset = self.records_at + self.records.len() as u64;
        let reference = u32::try_from(offset / 8).map_err(|_| Refusal::TooLarge)?;
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= MAX_BODY);
        let head = RecordHead {
            kind: kind as u32,
            body: length.ok_or(Refusal::TooLarge)?,
            first,
            second,
            body_sum: keyed(&self.seed, offset, body),
        };
        debug_assert_eq!((offset % 8, RECORD_HEAD % 8), (0, 0));
        self.records.extend_from_slice(&head.encode(&self.seed, offset));
        self.records.extend_from_slice(body);
        self.records.resize(self.records.len().next_multiple_of(8), 0);
        Ok(reference)
    }

    /// Enters a record where its name or id is looked for. There are more slots than entries.
    fn hashed(&mut self, table: Table, bytes: &[u8], reference: u32) {
        let (hash, key) = table.hash(&self.seed, bytes);
        let pages = &mut self.tables[table as usize];
        let mut number = usize::try_from(hash % pages.len() as u64).unwrap_or(0);
        loop {
            if let Some(slot) = pages[number].0.iter_mut().find(|slot| slot.reference == 0) {
                *slot = Slot { key, reference };
                return;
            }
            number = (number + 1) % pages.len();
        }
    }

    /// Enters a record behind the others; they come in the order of ids.
    fn listed(&mut self, table: Table, id: u32, reference: u32) {
        let index = self.listed[table as usize];
        self.tables[table as usize][index / SLOTS].0[index % SLOTS] = Slot { key: id, reference };
        self.listed[table as usize] += 1;
    }

    fn finish(self, passwd_file: FilesIdentity, group_file: FilesIdentity) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        let mut tables = [TableAt::default(); TABLES];
        for (pages, at) in self.tables.iter().zip(&mut tables) {
            *at = TableAt { offset: bytes.len() as u64, pages: pages.len() as u64 };
            for page in pages {
                let page = page.encode(&self.seed, bytes.len() as u64);
                bytes.extend_from_slice(&page);
            }
        }
        debug_assert_eq!(bytes.len() as u64, self.records_at);
        bytes.extend_from_slice(&self.records);
        let file_length = bytes.len() as u64;
        let header = Header { file_length, seed: self.seed, passwd_file, group_file, tables };
        bytes[..HEADER].copy_from_slice(&header.encode());
        bytes
    }
}
