//! Files with several names: are all of them in the tree?
//!
//! A count is easily cheated. Who may write in the tree could link somebody's file into it and rename the link while the
//! walk goes on, so that one name is counted twice and the one outside is not missed. So a count holds only if all the
//! counted names were there at one moment: each folder that has one did not change between the time before it was
//! listed and a second look, which begins when the whole walk has ended.

use std::collections::{HashMap, HashSet};

use deputy_core::denial::{Code, Denial};
use deputy_core::message::FileKind;
use deputy_core::rebind::{Identity, Problem, ProblemKind};

use super::follow::{Follow, Visit};

/// The most inodes with several names, and the most folders with such names, that are remembered.
const MAX_REMEMBERED: usize = 1_000_000;

/// Nanoseconds of a clock's coarsest tick, and much more: a time that is so short ago may be that of two changes.
const TICK: i128 = 1_000_000_000;

/// What was counted.
#[derive(Default)]
pub struct Links {
    inodes: HashMap<u64, Counted>,
    folders: HashSet<u64>,
    here: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    links: u32,
    found: u32,
}

impl Links {
    /// A folder is about to be listed.
    pub fn enter(&mut self) {
        self.here = None;
    }

    /// A name of an inode that has several, in the present folder. Whether it is the first one.
    pub fn add(&mut self, folder: &Identity, inode: u64, links: u32) -> Result<bool, Denial> {
        if self.here != Some(folder.inode) {
            self.here = Some(folder.inode);
            if !self.folders.insert(folder.inode) {
                return Err(moved_about());
            }
        }
        if self.inodes.len().max(self.folders.len()) >= MAX_REMEMBERED {
            return Err(Denial::new(
                Code::RebindBlocked,
                "rebind",
                format!("more than {MAX_REMEMBERED} files of the tree have several names"),
            )
            .remedy("plan parts of the tree, each by itself"));
        }
        let counted = self.inodes.entry(inode).or_insert(Counted { links, found: 0 });
        counted.found += 1;
        counted.links = counted.links.max(links);
        Ok(counted.found == 1)
    }

    /// Whether there is anything to be looked at again.
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    /// Looks at the folders again, and tells of every name that belongs to an inode that is left out. The result: those
    /// inodes, in order.
    pub fn settle(
        self,
        again: impl Fn() -> Result<Follow, Denial>,
        mut tell: impl FnMut(Problem) -> Result<(), Denial>,
    ) -> Result<Vec<u64>, Denial> {
        let mut unsteady = HashSet::new();
        // Whether each folder on the way is as it was.
        let mut steady_way = Vec::new();
        again()?.each(0, |_, visit| {
            match visit {
                Visit::Leave => drop(steady_way.pop()),
                Visit::Entry { item, steady, there, .. } if item.identity.kind == FileKind::Folder => {
                    let now = there.as_ref().ok().map(|(_, found)| found.changed);
                    steady_way.push(steady.is_some() && now == steady);
                }
                Visit::Entry { item, there, .. } => {
                    let here = there.is_ok() && steady_way.last() == Some(&true);
                    if !here && self.inodes.contains_key(&item.identity.inode) {
                        unsteady.insert(item.identity.inode);
                    }
                }
            }
            Ok(true)
        })?;
        let of = |inode: u64| self.inodes.get(&inode).copied();
        let is_left = |inode: u64| {
            unsteady.contains(&inode) || of(inode).is_some_and(|counted| counted.found != counted.links)
        };
        let mut left: Vec<u64> = self.inodes.keys().copied().filter(|inode| is_left(*inode)).collect();
        left.sort_unstable();
        if !left.is_empty() {
            again()?.each(0, |_, visit| {
                if let Visit::Entry { item, path, .. } = visit
                    && left.binary_search(&item.identity.inode).is_ok()
                    && let Some(Counted { links, found }) = of(item.identity.inode)
                {
                    let (kind, detail) = if unsteady.contains(&item.identity.inode) {
                        (ProblemKind::Unsteady, "its folder changed while its names were counted".to_owned())
                    } else {
                        (ProblemKind::Linked, format!("{links} names, {found} of them in the tree"))
                    };
                    tell(Problem { kind, path: path(), detail, in_the_way: true })?;
                }
                Ok(true)
            })?;
        }
        Ok(left)
    }
}

/// Since when a folder has not changed, if that is long enough ago to see the next change.
pub fn steady(changed: (i64, u32), now: (i64, u32)) -> Option<(i64, u32)> {
    let nanoseconds = |(seconds, rest): (i64, u32)| i128::from(seconds) * TICK + i128::from(rest);
    (nanoseconds(now) - nanoseconds(changed) >= TICK).then_some(changed)
}

fn moved_about() -> Denial {
    Denial::new(
        Code::RebindBlocked,
        "rebind",
        "folders of the tree were moved about while it was looked through, so that names of files cannot be counted",
    )
    .remedy("plan again when nobody works in the tree")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rebind::records::Records;
    use crate::rebind::tree::{Found, look};
    use deputy_core::rebind::{Entry, Item};
    use std::fs::{self, File};
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::time::Duration;

    #[test]
    fn a_change_that_could_hide_another_is_not_steady() {
        assert_eq!(steady((5, 0), (6, 0)), Some((5, 0)));
        assert_eq!(steady((5, 1), (6, 0)), None);
        // The clock was set back.
        assert_eq!(steady((9, 0), (6, 0)), None);
    }

    /// A tree with the folders `a` and `z`, and what a walk would have written and counted that met one file in both:
    /// `between` is done after the first one was listed.
    fn counted_twice(top: &Path, between: impl FnOnce()) -> Vec<(ProblemKind, String)> {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::in_folder(folder.path());
        let open = |path: &str| OwnedFd::from(File::open(top.join(path)).unwrap());
        let item = |name: &str, found: &Found| Item {
            name: name.as_bytes().to_vec(),
            identity: found.identity,
            mode: found.mode,
            links: found.links,
            change: None,
        };
        let mut links = Links::default();
        let mut list = records.create_list().unwrap();
        let enter = |name: &str| {
            let found = look(&open(name)).unwrap();
            (Entry::Enter { item: item(name, &found), steady: Some(found.changed) }, found)
        };
        let file = look(&open("a/x")).unwrap();
        let (mut entry, _) = enter("");
        list.push(&entry).unwrap();
        let mut between = Some(between);
        for name in ["a", "z"] {
            let found;
            (entry, found) = enter(name);
            list.push(&entry).unwrap();
            links.enter();
            links.add(&found.identity, file.identity.inode, file.links).unwrap();
            list.push(&Entry::Item(item("x", &file))).unwrap();
            list.push(&Entry::Leave).unwrap();
            if let Some(between) = between.take() {
                between();
            }
        }
        list.push(&Entry::Leave).unwrap();
        list.end().unwrap();
        let mut told = Vec::new();
        let follow = || Ok(Follow::new(records.list()?, open("")));
        let left = links
            .settle(follow, |problem| {
                told.push((problem.kind, String::from_utf8(problem.path).unwrap()));
                Ok(())
            })
            .unwrap();
        assert_eq!(left, if told.is_empty() { vec![] } else { vec![file.identity.inode] });
        told
    }

    #[test]
    fn one_name_that_wanders_is_not_two() {
        let outer = tempfile::tempdir().unwrap();
        let top = outer.path().join("tree");
        for folder in ["a", "z"] {
            fs::create_dir_all(top.join(folder)).unwrap();
        }
        let (a, z) = (top.join("a/x"), top.join("z/x"));
        // A file with two names, and both are in the tree.
        fs::write(&a, "").unwrap();
        fs::hard_link(&a, &z).unwrap();
        assert_eq!(counted_twice(&top, || ()), []);
        // One of them is outside, and the other is where the walk comes next.
        fs::rename(&z, outer.path().join("outside")).unwrap();
        let wander = || {
            // So that a time that only ticks now and then is another one.
            std::thread::sleep(Duration::from_millis(50));
            fs::rename(&a, &z).unwrap();
        };
        let both = ["a/x", "z/x"].map(|path| (ProblemKind::Unsteady, path.to_owned()));
        assert_eq!(counted_twice(&top, wander), both);
        fs::rename(&z, &a).unwrap();
        // It is also back again before anybody looks.
        let wander_and_return = || {
            wander();
            fs::rename(&z, &a).unwrap();
        };
        assert_eq!(counted_twice(&top, wander_and_return), both);
    }

    #[test]
    fn a_folder_that_is_met_twice_ends_the_count() {
        let folder = |inode| Identity { device: 1, inode, born: None, kind: FileKind::Folder };
        let mut links = Links::default();
        assert!(links.add(&folder(1), 10, 2).unwrap());
        assert!(!links.add(&folder(1), 10, 2).unwrap());
        links.enter();
        assert!(links.add(&folder(2), 11, 2).unwrap());
        links.enter();
        assert_eq!(links.add(&folder(1), 10, 2).unwrap_err().code, Code::RebindBlocked);
    }
}
