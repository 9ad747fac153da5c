//! Doing one thing as somebody else: in a thread of its own, whose ids are changed and which then ends.
//!
//! The kernel takes the ids that a socket's peer has, and those of a pair's maker, from the thread that connects or
//! makes the pair. So one test can hold the ends of several people.

use std::fs;

use deputy_core::ids::{OsGid, OsUid};
use deputy_core::job::OsIdentity;
use deputy_core::names::OsUserName;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use rustix::{process::Gid, process::Uid};

/// A uid and a gid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The uid.
    pub uid: u32,
    /// The primary gid.
    pub gid: u32,
}

/// The ids of a user of the sandbox, as `/etc/passwd` has them now.
pub fn ids(user: &str) -> Ids {
    let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user));
    let fields: Vec<&str> = line.unwrap_or_else(|| panic!("no user {user}")).split(':').collect();
    Ids { uid: fields[2].parse().expect("a uid"), gid: fields[3].parse().expect("a gid") }
}

/// The identity to pin for a user of the sandbox.
pub fn identity(user: &str) -> OsIdentity {
    let Ids { uid, gid } = ids(user);
    made_up_identity(user, uid, gid)
}

/// An identity that nobody need have.
pub fn made_up_identity(user: &str, uid: u32, gid: u32) -> OsIdentity {
    OsIdentity {
        name: OsUserName::new(user).expect("a name"),
        uid: OsUid::new(uid).expect("a uid that is no reserved one"),
        gid: OsGid::new(gid).expect("a gid that is no reserved one"),
    }
}

/// Does something with these ids, no other groups and no capability of root's.
pub fn acting_as<R: Send>(ids: Ids, action: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let actor = scope.spawn(move || {
            let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
            set_thread_groups(&[]).expect("no groups");
            set_thread_res_gid(gid, gid, gid).expect("the gid");
            set_thread_res_uid(uid, uid, uid).expect("the uid");
            action()
        });
        actor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
