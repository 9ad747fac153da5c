//! Making a plan: looking through the tree once, and writing down what is in it.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::{OsGid, RebindId};
use deputy_core::message::FileKind;
use deputy_core::quota::Whose;
use deputy_core::rebind::{
    Change, Entry, Item, Mapping, Owned, Problem, ProblemKind, RebindPlan, Share, Sum, to_text,
};
use rustix::fs::{Dir, FileType};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::follow::Follow;
use super::links::{self, Links};
use super::parties::Parties;
use super::quota;
use super::records::{self, ListWriter, Records, Writer};
use super::step::{SET_ID, lists};
use super::talk::Talk;
use super::tree::{self, Found, Way, failed, look, open_entry, open_to_read, why};
use crate::consents;

/// After so many entries it is told how far the walk is.
const STRIDE: u64 = 4096;

/// The most bytes of names of folders that wait for being looked into.
const MAX_WAITING: usize = 64 * 1024 * 1024;

/// The most owners and groups that are counted by themselves.
const MAX_SHARES: usize = 1000;

/// Makes the plan, and writes it down if nothing is in the way.
pub fn make(
    path: &[u8],
    parties: Parties,
    leave_linked: bool,
    talk: &mut Talk<'_>,
) -> Result<RebindPlan, Denial> {
    let top = tree::open_top(path)?;
    let (id, records) = Records::create()?;
    let made = write(path, &top, parties, leave_linked, id, &records, talk);
    if made.is_err() {
        // What is no plan is removed by the next one at the latest.
        let _ = records.remove();
    }
    made
}

fn write(
    path: &[u8],
    top: &OwnedFd,
    parties: Parties,
    leave_linked: bool,
    id: RebindId,
    records: &Records,
    talk: &mut Talk<'_>,
) -> Result<RebindPlan, Denial> {
    let again = || top.try_clone().map_err(|error| Denial::internal(format!("the tree's top: {error}")));
    let Parties { from, to, groups } = parties;
    let mut plan = RebindPlan {
        version: RebindPlan::VERSION,
        id,
        made: consents::now(),
        path: to_text(path),
        from,
        to,
        groups,
        leave_linked,
        entries: 0,
        moved: Sum::default(),
        owners: Vec::new(),
        os_groups: Vec::new(),
        problems: 0,
    };
    let mut told = Told { file: records.create_problems()?, count: 0, in_the_way: 0, talk };
    let mut walk = Walk {
        mapping: plan.mapping(),
        list: records.create_list()?,
        links: Links::default(),
        counted: Counted::default(),
        device: 0,
        way: Way::new(),
        seen: 0,
        waiting: 0,
        told: &mut told,
    };
    walk.tree(again()?)?;
    let Walk { list, links, counted, .. } = walk;
    plan.entries = list.end()?;
    let mut left_out = Vec::new();
    if !links.is_empty() {
        let follow = || Ok(Follow::new(records.list()?, again()?));
        left_out = links.settle(follow, |problem| {
            told.say(Problem { in_the_way: problem.in_the_way && !leave_linked, ..problem })
        })?;
    }
    records.write_left_out(&left_out)?;
    for problem in quota_problems(top, &plan, &counted)? {
        told.say(problem)?;
    }
    told.talk.flush();
    let Told { file, count, in_the_way, .. } = told;
    if in_the_way > 0 {
        return Err(Denial::new(
            Code::RebindBlocked,
            "rebind",
            format!("{in_the_way} things are in the way; there is no plan, and nothing was changed"),
        )
        .remedy(
            "see to what is listed; --leave-linked leaves files with names outside of the tree as they are",
        ));
    }
    records::finish(file).map_err(|error| records::disk(&error))?;
    plan.problems = count;
    plan.moved = counted.moved;
    plan.owners = counted.owners.into_shares();
    plan.os_groups = counted.groups.into_shares();
    records.commit(&plan)?;
    Ok(plan)
}

/// What is to be said, to who asked and for later.
struct Told<'a, 'c> {
    file: Writer,
    count: u64,
    in_the_way: u64,
    talk: &'a mut Talk<'c>,
}

impl Told<'_, '_> {
    fn say(&mut self, problem: Problem) -> Result<(), Denial> {
        self.count += 1;
        self.in_the_way += u64::from(problem.in_the_way);
        writeln!(self.file, "{}", problem.to_line()).map_err(|error| records::disk(&error))?;
        self.talk.problem(problem);
        Ok(())
    }
}

/// Sums by owner or group.
#[derive(Default)]
struct Shares(BTreeMap<u32, Sum>);

impl Shares {
    fn add(&mut self, id: u32, bytes: u64) {
        if self.0.len() < MAX_SHARES || self.0.contains_key(&id) {
            self.0.entry(id).or_default().add(bytes);
        }
    }

    fn into_shares(self) -> Vec<Share> {
        self.0.into_iter().map(|(id, Sum { files, bytes })| Share { id, files, bytes }).collect()
    }
}

/// What the tree has.
#[derive(Default)]
struct Counted {
    moved: Sum,
    owners: Shares,
    groups: Shares,
    /// What each group gets.
    gets: BTreeMap<u32, Sum>,
}

/// One walk through the tree.
struct Walk<'a, 't, 'c> {
    mapping: Mapping,
    list: ListWriter,
    links: Links,
    counted: Counted,
    device: u64,
    way: Way,
    seen: u64,
    /// Bytes of the names of folders that have not been looked into.
    waiting: usize,
    told: &'a mut Told<'t, 'c>,
}

impl Walk<'_, '_, '_> {
    fn tree(&mut self, top: OwnedFd) -> Result<(), Denial> {
        let found = look(&top).map_err(failed)?;
        self.device = found.identity.device;
        let mut waiting = vec![self.enter(Vec::new(), top, found)?];
        while let Some(names) = waiting.last_mut() {
            let Some(name) = names.pop() else {
                waiting.pop();
                self.list.push(&Entry::Leave)?;
                self.way.leave().map_err(|_| changed_meanwhile())?;
                continue;
            };
            self.waiting -= name.len();
            let folder = self.way.folder().map_err(failed)?;
            match open_entry(folder, &name).and_then(|entry| Ok((look(&entry)?, entry))) {
                Ok((found, entry)) if found.is_folder() && self.is_here(&found) => {
                    waiting.push(self.enter(name, entry, found)?);
                }
                // It has become something else since it was listed.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => self.not_opened(&name, errno)?,
            }
        }
        Ok(())
    }

    fn is_here(&self, found: &Found) -> bool {
        found.identity.device == self.device
    }

    /// Writes a folder down and everything in it but folders, whose names are the result.
    fn enter(&mut self, name: Vec<u8>, folder: OwnedFd, found: Found) -> Result<Vec<Vec<u8>>, Denial> {
        self.count(&found)?;
        let now = clock_gettime(ClockId::Realtime);
        let now = (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or_default());
        let change = self.change(&name, &folder, &found)?;
        let item = Item {
            name: name.clone(),
            identity: found.identity,
            mode: found.mode,
            links: found.links,
            change,
        };
        self.list.push(&Entry::Enter { item, steady: links::steady(found.changed, now) })?;
        let opened = open_to_read(&folder);
        self.way.enter(name, found.identity, folder);
        self.links.enter();
        let mut folders = Vec::new();
        let entries = match opened.and_then(Dir::new) {
            Ok(entries) => entries,
            Err(errno) => {
                self.unreadable(b"", errno)?;
                return Ok(folders);
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => {
                    self.unreadable(b"", errno)?;
                    break;
                }
            };
            let name: &CStr = entry.file_name();
            let name = name.to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let is_folder = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => self.no_folder(&found, name)?,
                _ => {
                    self.no_folder(&found, name)?;
                    false
                }
            };
            if is_folder {
                self.waiting += name.len();
                if self.waiting > MAX_WAITING {
                    return Err(Denial::new(
                        Code::RebindBlocked,
                        "rebind",
                        "folders have too many folders in them",
                    )
                    .remedy("plan parts of the tree, each by itself"));
                }
                folders.push(name.to_vec());
            }
        }
        Ok(folders)
    }

    /// Writes down something in the present folder; but not a folder, which is told by the result.
    fn no_folder(&mut self, folder: &Found, name: &[u8]) -> Result<bool, Denial> {
        let opened = self.way.folder().and_then(|folder| open_entry(folder, name));
        let (entry, found) = match opened.and_then(|entry| Ok((look(&entry)?, entry))) {
            Ok((found, entry)) => (entry, found),
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return self.not_opened(name, errno).map(|()| false),
        };
        if found.is_folder() {
            return Ok(true);
        }
        if !self.is_here(&found) {
            return self.not_opened(name, Errno::XDEV).map(|()| false);
        }
        let is_sources = self.mapping.is_source(found.uid);
        let mut first = true;
        if is_sources && found.links > 1 {
            first = self.links.add(&folder.identity, found.identity.inode, found.links)?;
        }
        if first {
            self.count(&found)?;
        }
        if !is_sources {
            return Ok(false);
        }
        if matches!(found.identity.kind, FileKind::Block | FileKind::Character | FileKind::Unknown) {
            self.problem(name, ProblemKind::Device, "it stays whose it is", false)?;
            return Ok(false);
        }
        let change = if first { self.change(name, &entry, &found)? } else { None };
        let item = Item {
            name: name.to_vec(),
            identity: found.identity,
            mode: found.mode,
            links: found.links,
            change,
        };
        self.list.push(&Entry::Item(item))?;
        Ok(false)
    }

    /// What is changed of something; none if it is no source account's.
    fn change(&mut self, name: &[u8], entry: &OwnedFd, found: &Found) -> Result<Option<Change>, Denial> {
        if !self.mapping.is_source(found.uid) {
            return Ok(None);
        }
        let kind = found.identity.kind;
        let is_program = kind == FileKind::File && found.mode & 0o111 != 0;
        let told =
            lists(entry, kind).and_then(|lists| Ok((lists, is_program && tree::has_capability(entry)?)));
        let ([access, default], capability) = match told {
            Ok(told) => told,
            Err(errno) => {
                self.unreadable(name, errno)?;
                return Ok(None);
            }
        };
        if capability {
            self.problem(name, ProblemKind::Capability, "it loses its file capabilities", false)?;
        }
        if !found.is_folder() && kind != FileKind::Symlink && found.mode & SET_ID != 0 {
            let detail = format!(
                "mode {:04o}: it loses its set-id bits, and undo does not give them back",
                found.mode
            );
            self.problem(name, ProblemKind::SetId, &detail, false)?;
        }
        self.counted.moved.add(found.bytes);
        let group = self.mapping.group(found.gid);
        if group != found.gid {
            self.counted.gets.entry(group).or_default().add(found.bytes);
        }
        let before = Owned { uid: found.uid, gid: found.gid, access, default };
        Ok(Change::new(&self.mapping, before, capability))
    }

    fn count(&mut self, found: &Found) -> Result<(), Denial> {
        self.counted.owners.add(found.uid, found.bytes);
        self.counted.groups.add(found.gid, found.bytes);
        self.seen += 1;
        if self.seen.is_multiple_of(STRIDE) {
            self.told.talk.progress(self.seen, None);
            if self.told.talk.is_gone() {
                return Err(Denial::new(Code::Conflict, "rebind", "nobody waits for the plan any more"));
            }
        }
        Ok(())
    }

    fn not_opened(&mut self, name: &[u8], errno: Errno) -> Result<(), Denial> {
        match why(errno) {
            (ProblemKind::Mount, _) => {
                self.problem(name, ProblemKind::Mount, "what is mounted there stays as it is", false)
            }
            _ => self.unreadable(name, errno),
        }
    }

    fn unreadable(&mut self, name: &[u8], errno: Errno) -> Result<(), Denial> {
        self.problem(name, ProblemKind::Unreadable, &errno.to_string(), true)
    }

    fn problem(
        &mut self,
        name: &[u8],
        kind: ProblemKind,
        detail: &str,
        in_the_way: bool,
    ) -> Result<(), Denial> {
        self.told.say(Problem { kind, path: self.way.path(&[], name), detail: detail.to_owned(), in_the_way })
    }
}

fn changed_meanwhile() -> Denial {
    Denial::new(
        Code::RebindBlocked,
        "rebind",
        "folders of the tree were moved about while it was looked through",
    )
    .remedy("plan again when nobody works in the tree")
}

/// What the destination's quotas, and those of the groups that get files, say.
fn quota_problems(top: &OwnedFd, plan: &RebindPlan, counted: &Counted) -> Result<Vec<Problem>, Denial> {
    let mut wanted = vec![(Whose::User(plan.to.uid), counted.moved)];
    wanted.extend(counted.gets.iter().filter_map(|(gid, sum)| Some((Whose::Group(OsGid::new(*gid)?), *sum))));
    quota::problems(top, &wanted)
}
