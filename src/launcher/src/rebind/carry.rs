//! Carrying a plan out, and putting everything back: the same walk along the list, one way or the other.
//!
//! It goes in batches. After each of them the file system is synced and then the journal says so, so that what it says
//! was done is on the disk, and a walk that was cut begins again at most one batch before the cut. There every entry is
//! one way, the other, or half of it, and all of these are gone on with.

use std::os::fd::OwnedFd;

use deputy_core::denial::{Code, Denial};
use deputy_core::quota::Whose;
use deputy_core::rebind::{
    Change, Entry, Item, Mapping, PLAN_SECONDS, Problem, ProblemKind, RebindEnd, RebindPlan, RebindState,
    from_text, same,
};
use deputy_core::settings::Settings;
use rustix::fs::syncfs;
use rustix::io::Errno;

use super::follow::{Follow, Visit};
use super::journal::Journal;
use super::records::Records;
use super::step::{self, Outcome};
use super::talk::Talk;
use super::tree::{self, Found, look, open_to_read};
use super::{parties, quota};
use crate::agent::acls;
use crate::consents;

/// Entries of a batch.
const BATCH: u64 = 4096;

/// The mode of the top while the tree is between two owners.
const CLOSED: u32 = 0o700;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the destination.
    There,
    /// Back to what was.
    Back,
}

impl Direction {
    /// How far a plan is when this way has been gone.
    fn end(self) -> RebindState {
        match self {
            Direction::There => RebindState::Applied,
            Direction::Back => RebindState::Undone,
        }
    }
}

/// Goes the whole way, or what is left of it.
pub fn carry(
    settings: &Settings,
    records: &Records,
    plan: &RebindPlan,
    direction: Direction,
    while_running: bool,
    talk: &mut Talk<'_>,
) -> Result<RebindEnd, Denial> {
    let there = Journal::read(records, Journal::THERE)?;
    let begun = match direction {
        Direction::There => there,
        Direction::Back => Journal::read(records, Journal::BACK)?,
    };
    let state = records.state()?.0;
    if let (Some(gone), true) = (begun, state == direction.end()) {
        return Ok(gone.sum);
    }
    check(settings, state, plan, direction)?;
    if !while_running {
        parties::refuse_running(plan)?;
    }
    let top = Top::open(records, plan)?;
    if direction == Direction::There && begun.is_none() {
        top.is_as_planned(plan)?;
        check_quota(&top.folder, plan)?;
    }
    // Going back, what was never reached is not looked at.
    let end = match (direction, there) {
        (Direction::Back, Some(there)) if !there.ended => plan.entries.min(there.done.saturating_add(BATCH)),
        _ => plan.entries,
    };
    let name = if direction == Direction::There { Journal::THERE } else { Journal::BACK };
    tracing::info!(event = "rebind_begun", plan = %plan.id, way = name, path = %plan.path, os_user = %plan.to.name);
    let mut journal = Journal::open(records, name, consents::now())?;
    top.close(&plan.mapping(), matches!(state, RebindState::Applying | RebindState::Undoing))?;
    let begun = begun.unwrap_or_default();
    let run = Run {
        mapping: plan.mapping(),
        left_out: records.left_out()?,
        direction,
        sum: begun.sum,
        end,
        batch: begun.done,
        synced: open_to_read(&top.folder).map_err(|errno| stopped(errno, b""))?,
    };
    let mut sum = run.walk(Follow::new(records.list()?, top.again()?), begun.done, &mut journal, talk)?;
    top.reopen(&plan.mapping(), direction)?;
    sum.changed += u64::from(top.item.change.is_some());
    journal.end(end, sum, consents::now())?;
    let RebindEnd { changed, already, left } = sum;
    tracing::info!(event = "rebind_ended", plan = %plan.id, way = name, changed, already, left);
    Ok(sum)
}

/// Whether the way may be gone now.
fn check(
    settings: &Settings,
    state: RebindState,
    plan: &RebindPlan,
    direction: Direction,
) -> Result<(), Denial> {
    let conflict =
        |message: &str, remedy: &str| Err(Denial::new(Code::Conflict, "rebind", message).remedy(remedy));
    match (direction, state) {
        (Direction::There, RebindState::Undoing | RebindState::Undone) => {
            conflict("the plan is being undone, or was", "let undo end, then make a new plan")
        }
        (Direction::Back, RebindState::Planned) => {
            conflict("nothing of the plan was done", "there is nothing to undo")
        }
        (Direction::There, RebindState::Planned)
            if consents::now() > plan.made.saturating_add(PLAN_SECONDS) =>
        {
            conflict("the plan is older than a day", "make a new plan: the tree may be another by now")
        }
        (Direction::There, _) => parties::check_destination(settings, plan),
        (Direction::Back, _) => parties::check_sources(plan),
    }
}

/// The quota once more: it may be used otherwise by now.
fn check_quota(top: &OwnedFd, plan: &RebindPlan) -> Result<(), Denial> {
    let problems = quota::problems(top, &[(Whose::User(plan.to.uid), plan.moved)])?;
    match problems.into_iter().find(|problem| problem.in_the_way) {
        None => Ok(()),
        Some(problem) => Err(Denial::new(Code::RebindBlocked, "quota", problem.detail)
            .remedy("have the quota raised (setquota -u), or make room")),
    }
}

/// The top of the tree. If it is moved itself, it is root's alone while the rest is between two owners: who is not
/// inside yet stays outside.
struct Top {
    folder: OwnedFd,
    item: Item,
}

impl Top {
    fn open(records: &Records, plan: &RebindPlan) -> Result<Self, Denial> {
        let path = from_text(&plan.path).ok_or_else(|| Denial::internal("the plan's path is damaged"))?;
        let folder = tree::open_top(&path)?;
        let Some((_, Entry::Enter { item, .. })) = records.list()?.next()? else {
            return Err(Denial::internal("the list of the plan is damaged"));
        };
        if look(&folder).map_err(|errno| stopped(errno, b""))?.identity != item.identity {
            return Err(another());
        }
        Ok(Self { folder, item })
    }

    fn again(&self) -> Result<OwnedFd, Denial> {
        self.folder.try_clone().map_err(|error| Denial::internal(format!("the tree's top: {error}")))
    }

    fn look(&self) -> Result<Found, Denial> {
        look(&self.folder).map_err(|errno| stopped(errno, b""))
    }

    /// Before anything is changed it has to be just as it was.
    fn is_as_planned(&self, plan: &RebindPlan) -> Result<(), Denial> {
        let Some(change) = &self.item.change else { return Ok(()) };
        let found = self.look()?;
        let now = step::lists(&self.folder, self.item.identity.kind).map_err(|errno| stopped(errno, b""))?;
        let mapping = plan.mapping();
        let lists_are =
            now.iter().zip([&change.access, &change.default]).all(|(now, planned)| match planned {
                Some(_) => same(planned.as_ref(), now.as_ref()),
                None => now.as_ref().is_none_or(|now| same(Some(now), Some(&mapping.acl(now)))),
            });
        if (found.uid, found.gid, found.mode) == (change.uid, change.gid, self.item.mode) && lists_are {
            return Ok(());
        }
        Err(another())
    }

    /// Takes it; `is_begun`: an earlier try may have done so.
    fn close(&self, mapping: &Mapping, is_begun: bool) -> Result<(), Denial> {
        let Some(change) = &self.item.change else { return Ok(()) };
        let found = self.look()?;
        if is_begun && found.uid == 0 && found.mode == CLOSED {
            return Ok(());
        }
        if ![change.uid, mapping.to()].contains(&found.uid) {
            return Err(another());
        }
        let closed = step::set_mode(&self.folder, CLOSED).and_then(|()| step::give(&self.folder, 0, 0));
        closed.map_err(|errno| stopped(errno, b""))
    }

    /// Gives it to whom it belongs at the end of the way.
    fn reopen(&self, mapping: &Mapping, direction: Direction) -> Result<(), Denial> {
        let Some(change) = &self.item.change else { return Ok(()) };
        let before = change.before();
        let target = if direction == Direction::There { mapping.apply(&before) } else { before };
        let opened = || -> Result<(), Errno> {
            step::give(&self.folder, target.uid, target.gid)?;
            for (default, list) in [(false, &target.access), (true, &target.default)] {
                if list.is_some() {
                    acls::set(&self.folder, default, list.as_ref())?;
                }
            }
            step::set_mode(&self.folder, self.item.mode)?;
            syncfs(open_to_read(&self.folder)?)
        };
        opened().map_err(|errno| stopped(errno, b""))
    }
}

fn another() -> Denial {
    Denial::new(Code::Conflict, "rebind", "the top of the tree is not what the plan found there")
        .remedy("make a new plan")
}

/// What ends the walk; it can be gone on with.
fn stopped(errno: Errno, path: &[u8]) -> Denial {
    let path = deputy_core::rebind::to_text(path);
    Denial::new(Code::FileError, "rebind", format!("stopped at ./{path}: {errno}"))
        .remedy("see to it, then say the same again: it goes on where it stopped")
}

/// One walk along the list.
struct Run {
    mapping: Mapping,
    left_out: Vec<u64>,
    direction: Direction,
    sum: RebindEnd,
    /// The first entry that is not reached any more.
    end: u64,
    /// Where the present batch began.
    batch: u64,
    /// A descriptor by which the file system is synced.
    synced: OwnedFd,
}

impl Run {
    fn walk(
        mut self,
        follow: Follow,
        start: u64,
        journal: &mut Journal,
        talk: &mut Talk<'_>,
    ) -> Result<RebindEnd, Denial> {
        if start >= self.end {
            return Ok(self.sum);
        }
        let next = follow.each(start, |index, visit| {
            if let Visit::Entry { item: item @ Item { change: Some(change), .. }, there, path, .. } = visit
                // The top is seen to by itself.
                && index > 0
                && self.left_out.binary_search(&item.identity.inode).is_err()
            {
                let outcome = match there {
                    Ok((entry, found)) => self.one(entry, found, item, change, path)?,
                    Err((kind, detail)) => Outcome::Left(*kind, detail.clone()),
                };
                match outcome {
                    Outcome::Changed => self.sum.changed += 1,
                    Outcome::Already => self.sum.already += 1,
                    Outcome::Left(kind, detail) => {
                        self.sum.left += 1;
                        let problem = Problem { kind, path: path(), detail, in_the_way: false };
                        journal.left(&problem);
                        talk.problem(problem);
                    }
                }
            }
            let next = index + 1;
            if next - self.batch >= BATCH {
                self.batch = next;
                self.sync(next, journal)?;
                talk.progress(next, Some(self.end));
                if talk.is_gone() {
                    return Err(Denial::new(Code::Conflict, "rebind", "nobody waits for the end any more")
                        .remedy("say the same again: it goes on where it stopped"));
                }
            }
            Ok(next < self.end)
        })?;
        self.sync(next, journal)?;
        Ok(self.sum)
    }

    fn one(
        &self,
        entry: &OwnedFd,
        found: &Found,
        item: &Item,
        change: &Change,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<Outcome, Denial> {
        match step::step(entry, found, item, change, &self.mapping, self.direction) {
            // Nothing more can be changed here, for now.
            Err(errno @ (Errno::IO | Errno::ROFS | Errno::NOSPC | Errno::DQUOT | Errno::NOMEM)) => {
                Err(stopped(errno, &path()))
            }
            Err(errno) => Ok(Outcome::Left(ProblemKind::Failed, errno.to_string())),
            Ok(outcome) => Ok(outcome),
        }
    }

    fn sync(&self, next: u64, journal: &mut Journal) -> Result<(), Denial> {
        syncfs(&self.synced).map_err(|errno| stopped(errno, b""))?;
        journal.done(next, self.sum)
    }
}
