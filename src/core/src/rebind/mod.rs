//! Re-binding: an existing tree goes from one OS account to another.
//!
//! What is decided without looking at a file is here: who may take part, what becomes of each owner, group and access
//! list, and the form of what is written down. The launcher's child does the rest.

mod list;
mod mapping;
mod text;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::RebindId;
use crate::job::OsIdentity;
use crate::names::{OsGroupName, OsUserName};

pub use list::{Change, Entry, Identity, Item, ListError, MAX_FRAME};
pub use mapping::{Mapping, Owned, same};
pub use text::{from_text, to_text};

/// The most source accounts, and the most groups that are named, of one plan.
pub const MAX_NAMED: usize = 64;

/// Seconds after which a plan has to be made anew: what it says of the tree is no longer worth much.
pub const PLAN_SECONDS: u64 = 24 * 3600;

/// A source account, as root names it: by name, or by the uid of one that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamedUser {
    /// By name.
    Name(OsUserName),
    /// By number.
    Uid(u32),
}

/// A group, as root names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamedGroup {
    /// By name.
    Name(OsGroupName),
    /// By number.
    Gid(u32),
}

impl FromStr for NamedUser {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(uid) => Ok(Self::Uid(uid)),
            Err(_) => OsUserName::new(text).map(Self::Name).map_err(|error| error.to_string()),
        }
    }
}

impl FromStr for NamedGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(gid) => Ok(Self::Gid(gid)),
            Err(_) => OsGroupName::new(text).map(Self::Name).map_err(|error| error.to_string()),
        }
    }
}

impl fmt::Display for NamedGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Gid(gid) => gid.fmt(f),
        }
    }
}

/// An account whose files are moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its uid.
    pub uid: u32,
    /// Its name when the plan was made; none if nobody had the uid.
    #[serde(default)]
    pub name: Option<OsUserName>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// Files, folders and whatever else has an inode, each once.
    pub files: u64,
    /// Bytes that they take on the disk.
    pub bytes: u64,
}

impl Sum {
    /// One more.
    pub fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// What one owner or group has in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The uid or gid.
    pub id: u32,
    /// How much.
    pub files: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

/// A plan, as it is written down beside the list of what is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebindPlan {
    /// The version of the record.
    pub version: u32,
    /// Its id.
    pub id: RebindId,
    /// When it was made, seconds since 1970.
    pub made: u64,
    /// The tree's path, in the form of [`to_text`].
    pub path: String,
    /// Whose files are moved.
    pub from: Vec<Source>,
    /// To whom.
    pub to: OsIdentity,
    /// Which group becomes which.
    pub groups: Vec<GroupChange>,
    /// Whether files with names outside of the tree stay as they are, instead of there being no plan.
    pub leave_linked: bool,
    /// How many entries the list has.
    pub entries: u64,
    /// What gets another owner.
    pub moved: Sum,
    /// What is in the tree, by owner.
    pub owners: Vec<Share>,
    /// The same by group.
    pub os_groups: Vec<Share>,
    /// How many things were to be said about it.
    pub problems: u64,
}

impl RebindPlan {
    /// The version of records that this program writes and reads.
    pub const VERSION: u32 = 1;

    /// The text that is written down.
    pub fn to_toml(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|error| error.to_string())
    }

    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plan: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if plan.version != Self::VERSION {
            return Err(format!("a plan of version {}, which this program does not read", plan.version));
        }
        Ok(plan)
    }

    /// What becomes of owners, groups and access lists.
    pub fn mapping(&self) -> Mapping {
        Mapping::new(
            self.from.iter().map(|source| source.uid),
            self.to.uid.raw(),
            self.groups.iter().map(|group| (group.old, group.new)),
        )
    }
}

/// A group that becomes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupChange {
    /// The gid of files now.
    pub old: u32,
    /// Their gid afterwards.
    pub new: u32,
}

/// How far a plan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RebindState {
    /// Nothing has been changed.
    Planned,
    /// It was begun, and has not come to its end: `apply` goes on, `undo` goes back.
    Applying,
    /// Done.
    Applied,
    /// Going back was begun: `undo` goes on.
    Undoing,
    /// All is as it was.
    Undone,
}

impl RebindState {
    /// The word on the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Applying => "applying",
            Self::Applied => "applied",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
        }
    }
}

/// What is to be said about one entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProblemKind {
    /// It has names outside of the tree.
    Linked,
    /// What is in its folder changed while it was looked at, so that its names cannot be counted.
    Unsteady,
    /// A device.
    Device,
    /// Another file system, or another view of one, is mounted there.
    Mount,
    /// It has the set-user-id or set-group-id bit, which it loses.
    SetId,
    /// It has file capabilities, which it loses.
    Capability,
    /// It could not be looked at.
    Unreadable,
    /// It is not what the plan found there.
    Changed,
    /// It is no longer there.
    Gone,
    /// The kernel refused to change it.
    Failed,
    /// The destination's quota, or its group's.
    Quota,
}

impl ProblemKind {
    const ALL: [Self; 11] = [
        Self::Linked,
        Self::Unsteady,
        Self::Device,
        Self::Mount,
        Self::SetId,
        Self::Capability,
        Self::Unreadable,
        Self::Changed,
        Self::Gone,
        Self::Failed,
        Self::Quota,
    ];

    /// The word on the interface and in the records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linked => "linked",
            Self::Unsteady => "unsteady",
            Self::Device => "device",
            Self::Mount => "mount",
            Self::SetId => "set-id",
            Self::Capability => "capability",
            Self::Unreadable => "unreadable",
            Self::Changed => "changed",
            Self::Gone => "gone",
            Self::Failed => "failed",
            Self::Quota => "quota",
        }
    }
}

/// Something that is to be said about a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What.
    pub kind: ProblemKind,
    /// Of which entry, below the tree's path; empty for the tree itself.
    pub path: Vec<u8>,
    /// More, in words; may be empty.
    pub detail: String,
    /// Whether there can be no plan because of it.
    pub in_the_way: bool,
}

impl Problem {
    /// The line that is written down: the kind, the path as one word, the detail.
    pub fn to_line(&self) -> String {
        format!("{} ./{} {}", self.kind.as_str(), to_text(&self.path), to_text(self.detail.as_bytes()))
    }

    /// Reads it; it is no longer in the way of anything.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let word = words.next()?;
        let kind = ProblemKind::ALL.into_iter().find(|kind| kind.as_str() == word)?;
        let path = from_text(words.next()?.strip_prefix("./")?)?;
        let detail = String::from_utf8(from_text(words.next()?)?).ok()?;
        Some(Self { kind, path, detail, in_the_way: false })
    }
}

/// How applying or undoing ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebindEnd {
    /// How many entries were changed.
    pub changed: u64,
    /// How many were already as they should be.
    pub already: u64,
    /// How many were left as they are, each with a [`Problem`].
    pub left: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_groups_are_named_or_numbered() {
        assert_eq!("1001".parse(), Ok(NamedUser::Uid(1001)));
        assert_eq!("ann".parse(), Ok(NamedUser::Name("ann".parse().unwrap())));
        assert_eq!("lab1".parse(), Ok(NamedGroup::Name("lab1".parse().unwrap())));
        for text in ["", "-1", "a:b", "99999999999"] {
            assert!(text.parse::<NamedUser>().is_err() && text.parse::<NamedGroup>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_problem_is_read_as_it_was_written() {
        for path in [&b""[..], b"a b\n\xff", b"-"] {
            let problem = Problem {
                kind: ProblemKind::Linked,
                path: path.to_vec(),
                detail: "3 names, 1 here".into(),
                in_the_way: false,
            };
            let line = problem.to_line();
            assert!(!line.contains('\n'));
            assert_eq!(Problem::from_line(&line), Some(problem));
        }
        for broken in ["", "linked", "linked x y", "nonsense ./x y"] {
            assert_eq!(Problem::from_line(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_plan_is_read_as_it_was_written_and_no_other_is() {
        let id: RebindId = "abcdefgh".parse().unwrap();
        let plan = RebindPlan {
            version: RebindPlan::VERSION,
            id,
            made: 5,
            path: "/data/a\\xff".into(),
            from: vec![
                Source { uid: 990, name: Some("portal".parse().unwrap()) },
                Source { uid: 7, name: None },
            ],
            to: OsIdentity {
                name: "ann".parse().unwrap(),
                uid: crate::OsUid::new(1001).unwrap(),
                gid: crate::OsGid::new(1001).unwrap(),
            },
            groups: vec![GroupChange { old: 990, new: 1001 }],
            leave_linked: false,
            entries: 3,
            moved: Sum { files: 2, bytes: 8192 },
            owners: vec![Share { id: 990, files: 2, bytes: 8192 }],
            os_groups: vec![],
            problems: 0,
        };
        let text = plan.to_toml().unwrap();
        assert_eq!(RebindPlan::parse(&text), Ok(plan));
        assert!(RebindPlan::parse(&text.replace("version = 1", "version = 2")).is_err());
        assert!(RebindPlan::parse(&format!("more = 1\n{text}")).is_err());
    }
}
