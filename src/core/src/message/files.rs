//! What is said to a file agent, and what it answers.
//!
//! A connection to the launcher becomes one to the agent when [`LauncherReply::Done`](super::LauncherReply::Done) has
//! answered the [`FilesRequest`]. From then on it carries one [`FileRequest`] after the other, each with one
//! [`FileReply`]. Paths and names are bytes.

use serde::{Deserialize, Serialize};

use crate::acl::{Acl, AclEntry, AclWho};
use crate::denial::Denial;
use crate::ids::OsGid;
use crate::job::OsIdentity;
use crate::names::{AccountName, ApplicationName};
use crate::quota::QuotaUsage;

/// The most entries of one [`FileReply::Entries`].
pub const MAX_ENTRIES: u32 = 1000;

/// The most files of one [`FileRequest::OpenMany`].
pub const MAX_OPEN: usize = 128;

/// The most files that an agent keeps for a [`FileRequest::Commit`].
pub const MAX_KEPT: usize = 64;

/// Seconds without a call after which an agent ends, unless it was asked for less.
pub const IDLE_SECONDS: u32 = 60;

/// The umask of an agent that was asked for none.
pub const DEFAULT_UMASK: u32 = 0o022;

/// A file agent that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesRequest {
    /// For which application.
    pub application: ApplicationName,
    /// For which of its accounts.
    pub account: AccountName,
    /// As which OS account, pinned when the link was made.
    pub os_account: OsIdentity,
    /// Seconds without a call after which it ends; at most [`IDLE_SECONDS`] counts.
    pub idle_seconds: Option<u32>,
    /// The umask of what it makes; none is [`DEFAULT_UMASK`].
    pub umask: Option<u32>,
    /// The group of the project for which it works, where that has one and the account writes there.
    pub project_group: Option<OsGid>,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are the flags of open(2)")]
pub struct OpenHow {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Made if it is not there.
    pub create: bool,
    /// An error if it is there; with `create` only.
    pub exclusive: bool,
    /// Each write goes to the end.
    pub append: bool,
    /// What it held is dropped.
    pub truncate: bool,
    /// The permission bits of a new file, before the umask; none is 0666.
    pub mode: Option<u32>,
    /// Whether the agent keeps the open file, for a [`FileRequest::Commit`].
    pub keep: bool,
}

/// A moment, as files have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileTime {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanoseconds: u32,
}

/// One thing to do. Only [`FileRequest::is_long`] ones bring a descriptor: a pipe to write lines to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileRequest {
    /// Open a regular file. Answered by [`FileReply::Opened`].
    Open {
        /// Which.
        path: Vec<u8>,
        /// How.
        how: OpenHow,
    },
    /// Open several regular files in the same way, and keep none. Answered by [`FileReply::OpenedMany`].
    OpenMany {
        /// Which, at most [`MAX_OPEN`].
        paths: Vec<Vec<u8>>,
        /// How.
        how: OpenHow,
    },
    /// What a name stands for. Answered by [`FileReply::Stat`].
    Stat {
        /// Which.
        path: Vec<u8>,
        /// Whether a symbolic link at the end is followed.
        follow: bool,
    },
    /// A page of a folder's entries, in the order of their bytes. Answered by [`FileReply::Entries`].
    List {
        /// Which folder.
        path: Vec<u8>,
        /// The last name of the page before; empty for the first.
        after: Vec<u8>,
        /// At most so many, and at most [`MAX_ENTRIES`].
        limit: u32,
    },
    /// Make a folder.
    MakeDirectory {
        /// Which.
        path: Vec<u8>,
        /// Its permission bits before the umask; none is 0777.
        mode: Option<u32>,
        /// Make those above it too, and find it well if it is there.
        parents: bool,
    },
    /// Remove a name: a file, a link, or an empty folder.
    Remove {
        /// Which.
        path: Vec<u8>,
        /// Whether its absence is well.
        missing_ok: bool,
    },
    /// Give another name.
    Rename {
        /// Which.
        from: Vec<u8>,
        /// The new one.
        to: Vec<u8>,
        /// What becomes of what has the new name.
        how: RenameHow,
    },
    /// Make a symbolic link.
    Symlink {
        /// What it says, in any bytes; nobody looks whether it is there.
        target: Vec<u8>,
        /// Its own path.
        path: Vec<u8>,
    },
    /// What a symbolic link says. Answered by [`FileReply::Target`].
    ReadLink {
        /// Which.
        path: Vec<u8>,
    },
    /// Give a file one more name.
    Link {
        /// Which; a symbolic link itself, not what it says.
        from: Vec<u8>,
        /// The new name.
        to: Vec<u8>,
    },
    /// Change the permission bits.
    SetMode {
        /// Of what; links are followed.
        path: Vec<u8>,
        /// The bits, 07777 at most.
        mode: u32,
    },
    /// Change the group, to one that the kernel lets its owner give.
    SetGroup {
        /// Of what; links are followed.
        path: Vec<u8>,
        /// The gid.
        gid: u32,
    },
    /// Change the times.
    SetTimes {
        /// Of what; links are followed.
        path: Vec<u8>,
        /// Of the latest read; none leaves it.
        accessed: Option<FileTime>,
        /// Of the latest change; none leaves it.
        modified: Option<FileTime>,
    },
    /// The access control list. Answered by [`FileReply::Acl`].
    GetAcl {
        /// Of what; links are followed.
        path: Vec<u8>,
        /// The one that new entries of a folder get.
        default: bool,
    },
    /// Change the access control list.
    SetAcl {
        /// Of what; links are followed.
        path: Vec<u8>,
        /// The one that new entries of a folder get.
        default: bool,
        /// The list; none takes it away.
        acl: Option<Acl>,
    },
    /// Make a project's folder, or give the one that is there the rights of its members. Only beneath a root that policy
    /// has for that.
    ShareFolder(FolderShare),
    /// Quota and space of file systems, as far as the kernel knows them. Answered by [`FileReply::Places`].
    Quota {
        /// A folder whose file system it is; empty for every root.
        path: Vec<u8>,
    },
    /// Write a kept file's data to the disk, and report the first error that there was. The file is not kept longer.
    Commit {
        /// What [`FileReply::Opened`] gave.
        handle: u32,
        /// Only keep it no longer: nobody wants what was written.
        discard: bool,
    },
    /// Every entry of a folder, in the order in which the file system has them: a line each.
    ListStream {
        /// Which folder.
        path: Vec<u8>,
    },
    /// Remove a folder with everything in it, or a name.
    RemoveTree {
        /// Which.
        path: Vec<u8>,
        /// Whether its absence is well.
        missing_ok: bool,
    },
    /// How much is below a folder.
    DiskUsage {
        /// Which.
        path: Vec<u8>,
    },
    /// Copy a file, or a folder with everything in it.
    CopyTree {
        /// What.
        from: Vec<u8>,
        /// The copy's name, which nothing has yet; with `resume` a copy that was begun.
        to: Vec<u8>,
        /// Leave out files that are there in the same length and with the same time.
        resume: bool,
    },
}

impl FileRequest {
    /// Whether it writes lines to a pipe, which comes as the one descriptor, while it works.
    pub fn is_long(&self) -> bool {
        matches!(
            self,
            FileRequest::ListStream { .. }
                | FileRequest::RemoveTree { .. }
                | FileRequest::DiskUsage { .. }
                | FileRequest::CopyTree { .. }
        )
    }
}

/// The folder of a project, and who comes in beside its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderShare {
    /// Which.
    pub path: Vec<u8>,
    /// Whether it is there already.
    pub again: bool,
    /// The project's group, all of whose members read and write; none where there is none.
    pub group: Option<u32>,
    /// Others by their uids, and whether they write.
    pub people: Vec<(u32, bool)>,
}

impl FolderShare {
    /// The access list of the folder, which is the list of all that is made in it too. Nobody is in it but the owner and
    /// those whom this names.
    pub fn acl(&self) -> Acl {
        let entry = |who, permissions| AclEntry { who, permissions };
        let of_group = if self.group.is_some() { 7 } else { 0 };
        let mut entries = vec![
            entry(AclWho::Owner, 7),
            entry(AclWho::OwningGroup, of_group),
            entry(AclWho::Mask, 7),
            entry(AclWho::Others, 0),
        ];
        let mut people = self.people.clone();
        // Who is named twice has the wider right of the two.
        people.sort_unstable_by_key(|(uid, writes)| (*uid, !writes));
        people.dedup_by_key(|(uid, _)| *uid);
        entries.extend(
            people.into_iter().map(|(uid, writes)| entry(AclWho::User(uid), if writes { 7 } else { 5 })),
        );
        Acl(entries)
    }
}

/// What a rename does with what has the new name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameHow {
    /// It is replaced, as rename(2) does.
    #[default]
    Replace,
    /// Nothing is renamed.
    NoReplace,
    /// The two change their names.
    Exchange,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A block device.
    Block,
    /// A character device.
    Character,
    /// Anything else, or the file system does not say.
    Unknown,
}

impl FileKind {
    /// The word on the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            FileKind::File => "file",
            FileKind::Folder => "folder",
            FileKind::Symlink => "symlink",
            FileKind::Pipe => "pipe",
            FileKind::Socket => "socket",
            FileKind::Block => "block",
            FileKind::Character => "character",
            FileKind::Unknown => "unknown",
        }
    }
}

/// What is known of something in the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Its sort.
    pub kind: FileKind,
    /// Its permission bits, 07777 at most.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its length in bytes.
    pub size: u64,
    /// What it takes of the disk, in bytes.
    pub allocated: u64,
    /// How many names it has.
    pub links: u32,
    /// The number that it has in its file system.
    pub inode: u64,
    /// The file system.
    pub device: u64,
    /// The latest read.
    pub accessed: FileTime,
    /// The latest change of what it holds.
    pub modified: FileTime,
    /// The latest change of anything.
    pub changed: FileTime,
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it stands for, where it can be known; links are not followed.
    pub stat: Option<FileStat>,
}

/// Space of the file system of one root, or of a folder beneath it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePlace {
    /// The root's path, or that of the folder that was asked about.
    pub path: Vec<u8>,
    /// The root's path.
    pub root: Vec<u8>,
    /// What sort of file system it is, by [`filesystem`](crate::storage::filesystem).
    pub filesystem: String,
    /// The number of the file system on this machine.
    pub device: u64,
    /// Whether it can be written at all.
    pub writable: bool,
    /// How large the file system is, in bytes.
    pub size: u64,
    /// What of it an ordinary user can still fill.
    pub free: u64,
    /// How many files it can have; 0 where it does not say.
    pub files: u64,
    /// How many it can still have.
    pub files_free: u64,
    /// The quotas that are known of it.
    pub quotas: Vec<QuotaUsage>,
}

/// What became of one file of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenedOne {
    /// It is the next descriptor.
    Opened,
    /// The kernel refused, with this error number.
    Failed {
        /// The number.
        errno: i32,
    },
    /// Deputy refused.
    Denied(Denial),
}

/// What a file agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileReply {
    /// Done.
    Done,
    /// A regular file, as the one descriptor.
    Opened {
        /// What [`FileRequest::Commit`] takes, where the file is kept.
        handle: Option<u32>,
    },
    /// Of each file of [`FileRequest::OpenMany`], in its order.
    OpenedMany(Vec<OpenedOne>),
    /// What a name stands for.
    Stat(FileStat),
    /// A page.
    Entries {
        /// The entries.
        entries: Vec<FileEntry>,
        /// Whether there are more after the last one.
        more: bool,
    },
    /// What a symbolic link says.
    Target(Vec<u8>),
    /// The access control list; none where there is none beside the permission bits.
    Acl(Option<Acl>),
    /// Of each root.
    Places(Vec<FilePlace>),
    /// The work has begun; the rest is in the pipe.
    Begun,
    /// The kernel refused, with this error number.
    Failed {
        /// The number.
        errno: i32,
    },
    /// Deputy refused.
    Denied(Denial),
    /// Nothing was done, and the agent ends: what it was started under no longer holds. Another one decides anew.
    Stale(Denial),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projects_folder_is_for_its_members_and_nobody_else() {
        let share = |group, people: &[(u32, bool)]| {
            let share = FolderShare { path: Vec::new(), again: false, group, people: people.to_vec() };
            share.acl().to_string()
        };
        assert_eq!(share(None, &[]), "user::rwx,group::---,mask::rwx,other::---");
        assert_eq!(share(Some(70_000), &[]), "user::rwx,group::rwx,mask::rwx,other::---");
        assert_eq!(
            share(None, &[(1002, true), (1001, false), (1002, false)]),
            "user::rwx,group::---,mask::rwx,other::---,user:1001:r-x,user:1002:rwx"
        );
    }
}
