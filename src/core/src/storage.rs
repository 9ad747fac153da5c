//! What sort of file system something is on, and what follows from that.

use crate::finding::{Finding, FindingCode, Severity};

/// The sorts that have a name here: what `statfs(2)` says, and the name as `mount` knows it.
const KNOWN: [(u64, &str); 14] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlay"),
    (0x6969, "nfs"),
    (0x0bd0_0bd0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0x00c3_6400, "ceph"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x6573_5546, "fuse"),
];

/// The name of a sort of file system, by the number that `statfs(2)` says; of one that has no name here, the number.
pub fn filesystem(magic: u64) -> String {
    let known = KNOWN.iter().find(|(number, _)| *number == magic);
    known.map_or_else(|| format!("0x{magic:x}"), |(_, name)| (*name).to_owned())
}

/// Whether a text is what [`filesystem`] can say.
pub fn is_filesystem(text: &str) -> bool {
    let number = |digits: &str| {
        (1..=16).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    KNOWN.iter().any(|(_, name)| *name == text) || text.strip_prefix("0x").is_some_and(number)
}

/// The names, for a message.
pub fn known() -> String {
    KNOWN.map(|(_, name)| name).join(", ")
}

/// Which access control lists a file system has, beside the permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// POSIX ones.
    Posix,
    /// Those of version 4 of NFS.
    Nfs4,
    /// None.
    None,
    /// It could not be looked at.
    Unknown,
}

/// What was seen of the file system of one root, as the OS account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its sort, as the kernel's list of mounts names it: `nfs4`, `lustre`.
    pub filesystem: String,
    /// Its options there, the mount's and the file system's own.
    pub options: String,
    /// Its access control lists.
    pub lists: Lists,
    /// How many groups the OS account has here, the primary one included.
    pub groups: usize,
    /// Whether the root, or the way to it on this file system, could not be entered.
    pub refused: bool,
    /// Whether the permission bits there would have let it in by one of its groups.
    pub group_would_do: bool,
}

/// How many groups a request of NFS can carry, beside the primary one (`AUTH_SYS`, RFC 5531).
const GROUPS_OF_NFS: usize = 16;

/// What is to be said about the file system of a root. `place`: the folder, as people know it.
pub fn findings(place: &str, seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    let nfs = seen.filesystem.starts_with("nfs");
    let security = seen.options.split(',').find_map(|option| option.strip_prefix("sec="));
    let kerberos = nfs && security.is_some_and(|security| security.starts_with("krb5"));
    let lists = match seen.lists {
        Lists::Posix | Lists::Unknown => None,
        Lists::Nfs4 => {
            Some("has lists of NFSv4 instead of POSIX ones, which Files.GetAcl and SetAcl do not know")
        }
        Lists::None => Some("has no access control lists"),
    };
    if let Some(lists) = lists {
        let message = format!("{place}: the file system ({}) {lists}", seen.filesystem);
        found.push(
            Finding::new(FindingCode::FileSystemWithoutAcls, Severity::Note, message)
                .remedy("share by groups and setgid folders there, or by the file system's own tools"),
        );
    }
    if kerberos {
        let (severity, how) = if seen.refused {
            (Severity::Warning, "and it was refused without one")
        } else {
            (Severity::Note, "and it can be entered now")
        };
        let message = format!(
            "{place}: the file server asks for a Kerberos ticket of the OS account, {how}; Deputy gets none for it"
        );
        found.push(Finding::new(FindingCode::KerberosTicketNeeded, severity, message).remedy(
            "have gssproxy or a PAM module of the service deputy-job get one, or mount with sec=sys",
        ));
    }
    let beyond = nfs && !kerberos && seen.groups > GROUPS_OF_NFS + 1;
    if beyond || (seen.refused && seen.group_would_do) {
        let why = if beyond {
            format!(
                "NFS carries {GROUPS_OF_NFS} groups beside the primary one, and the OS account has {}",
                seen.groups
            )
        } else {
            "the permission bits let a group of the OS account's in, and it was refused: an ACL, or the server counts \
             groups of its own list (--manage-gids, an identity upcall of Lustre), in which those do not count that only \
             this host or PAM gives"
                .to_owned()
        };
        found.push(
            Finding::new(FindingCode::GroupsNotCounted, Severity::Warning, format!("{place}: {why}")).remedy(
                "have the groups in the directory that the file server asks, and let it look them up",
            ),
        );
    }
    if nfs {
        let message = format!(
            "{place}: it is on NFS, where the server usually takes root for nobody (root_squash); jobs and files are the OS \
             account's and work, but root makes no pool home there and moves no tree"
        );
        found.push(
            Finding::new(FindingCode::RootMayBeSquashed, Severity::Note, message)
                .remedy("do what root has to do on the server, or export with no_root_squash to this host"),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(filesystem: &str, options: &str) -> Seen {
        Seen {
            filesystem: filesystem.into(),
            options: options.into(),
            lists: Lists::Posix,
            groups: 3,
            refused: false,
            group_would_do: false,
        }
    }

    fn said(seen: &Seen) -> Vec<(String, Severity)> {
        let found = findings("/data/lab1", seen);
        assert!(found.iter().all(|one| one.message.starts_with("/data/lab1: ") && !one.remedy.is_empty()));
        found.into_iter().map(|one| (one.code, one.severity)).collect()
    }

    #[test]
    fn a_file_system_of_this_machine_with_lists_is_nothing_to_tell_of() {
        assert_eq!(said(&seen("ext4", "rw,relatime")), []);
        assert_eq!(said(&Seen { groups: 100, ..seen("xfs", "rw,sec=krb5") }), []);
        // What is refused by the bits is a finding of its own already.
        assert_eq!(said(&Seen { refused: true, ..seen("ext4", "rw") }), []);
    }

    #[test]
    fn each_peculiarity_of_a_file_server_is_told() {
        let squash = ("root-may-be-squashed".to_owned(), Severity::Note);
        let nfs = seen("nfs4", "rw,vers=4.2,sec=sys,addr=10.0.0.1");
        assert_eq!(said(&nfs), std::slice::from_ref(&squash));
        let ticket = |severity| ("kerberos-ticket-needed".to_owned(), severity);
        let kerberos = seen("nfs4", "rw,sec=krb5p,vers=4.2");
        assert_eq!(said(&kerberos), [ticket(Severity::Note), squash.clone()]);
        let refused = Seen { refused: true, groups: 40, ..kerberos };
        assert_eq!(said(&refused), [ticket(Severity::Warning), squash.clone()]);
        let groups = ("groups-not-counted".to_owned(), Severity::Warning);
        assert_eq!(said(&Seen { groups: 17, ..nfs.clone() }), std::slice::from_ref(&squash));
        assert_eq!(said(&Seen { groups: 18, ..nfs.clone() }), [groups.clone(), squash.clone()]);
        let by_server = Seen { refused: true, group_would_do: true, ..seen("lustre", "rw") };
        assert_eq!(said(&by_server), [groups]);
        let without = ("file-system-without-acls".to_owned(), Severity::Note);
        assert_eq!(said(&Seen { lists: Lists::Nfs4, ..nfs }), [without.clone(), squash]);
        assert_eq!(said(&Seen { lists: Lists::None, ..seen("gpfs", "rw") }), [without]);
    }

    #[test]
    fn what_statfs_says_has_a_name_or_is_its_number() {
        assert_eq!(filesystem(0x6969), "nfs");
        assert_eq!(filesystem(0x1234), "0x1234");
        for text in ["nfs", "gpfs", "0x1234", "0xffffffffffffffff"] {
            assert!(is_filesystem(text), "{text}");
        }
        for text in ["", "nfs5", "0x", "0x01", "0xABCD", "0x12345678901234567", "1234"] {
            assert!(!is_filesystem(text), "{text}");
        }
    }
}
