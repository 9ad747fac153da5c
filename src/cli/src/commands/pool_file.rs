//! Leases and groups of projects in a file: JSON, or LDIF for a directory.

use deputy_core::ids::{OsGid, OsUid};
use deputy_core::job::OsIdentity;
use deputy_core::pool::{PoolRecord, PoolState};
use deputy_core::project::ProjectKey;
use deputy_core::project_group::GroupRecord;
use deputy_core::root_record::RootRecord as _;
use deputy_core::{AccountName, ApplicationName, OsGroupName, OsUserName};
use serde::{Deserialize, Serialize};

use crate::options::PoolFormat;

/// What marks the line of an LDIF entry that has the whole lease.
const LEASE: &str = "description: deputy-pool ";

/// What marks the one that has the whole group.
const GROUP: &str = "description: deputy-group ";

/// A lease.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    application: ApplicationName,
    account: AccountName,
    os_user: OsUserName,
    uid: OsUid,
    gid: OsGid,
    home: String,
    state: PoolState,
    /// Microseconds since 1970.
    since: u64,
}

impl From<PoolRecord> for Lease {
    fn from(record: PoolRecord) -> Self {
        let PoolRecord { application, account, os_account, home, state, since, .. } = record;
        let OsIdentity { name: os_user, uid, gid } = os_account;
        Self { application, account, os_user, uid, gid, home, state, since: since.saturating_mul(1_000_000) }
    }
}

impl From<Lease> for PoolRecord {
    fn from(lease: Lease) -> Self {
        let Lease { application, account, os_user, uid, gid, home, state, since } = lease;
        Self {
            version: Self::VERSION,
            os_account: OsIdentity { name: os_user, uid, gid },
            home,
            home_made: false,
            application,
            account,
            state,
            since: since / 1_000_000,
        }
    }
}

/// The group of a project. Who is in it is told to a directory, and taken over by nobody: each host has its own members.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectGroup {
    application: ApplicationName,
    project: ProjectKey,
    group: OsGroupName,
    gid: OsGid,
    /// Microseconds since 1970.
    since: u64,
}

impl From<&GroupRecord> for ProjectGroup {
    fn from(record: &GroupRecord) -> Self {
        Self {
            application: record.application.clone(),
            project: record.project.clone(),
            group: record.name.clone(),
            gid: record.gid,
            since: record.since.saturating_mul(1_000_000),
        }
    }
}

impl From<ProjectGroup> for GroupRecord {
    fn from(group: ProjectGroup) -> Self {
        let ProjectGroup { application, project, group: name, gid, since } = group;
        Self {
            version: Self::VERSION,
            gid,
            name,
            application,
            project,
            claimed: false,
            revision: 0,
            since: since / 1_000_000,
            members: Vec::new(),
        }
    }
}

/// One element of the JSON's array.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Element {
    Lease(Lease),
    Group(ProjectGroup),
}

/// The text of leases and groups.
pub fn write(
    leases: Vec<PoolRecord>,
    groups: Vec<GroupRecord>,
    format: PoolFormat,
    base: &str,
) -> serde_json::Result<String> {
    match format {
        PoolFormat::Json => {
            let leases = leases.into_iter().map(|lease| Element::Lease(lease.into()));
            let all: Vec<Element> =
                leases.chain(groups.iter().map(|group| Element::Group(group.into()))).collect();
            serde_json::to_string_pretty(&all).map(|text| text + "\n")
        }
        PoolFormat::Ldif => {
            let leases = leases.into_iter().map(|lease| entries(&lease.into(), base));
            leases.chain(groups.iter().map(|group| group_entry(group, base))).collect()
        }
    }
}

/// The LDIF of a lease (RFC 2849, RFC 2307): the account, and its group. Only a lease has entries that name anybody.
fn entries(lease: &Lease, base: &str) -> serde_json::Result<String> {
    let Lease { os_user, uid, gid, home, .. } = lease;
    let whole = ascii(&serde_json::to_string(lease)?);
    let account = format!(
        "dn: uid={os_user},{base}\nobjectClass: account\nobjectClass: posixAccount\nuid: {os_user}\ncn: {os_user}\n\
         uidNumber: {uid}\ngidNumber: {gid}\nhomeDirectory: {home}\n{LEASE}{whole}\n\n"
    );
    let group =
        format!("dn: cn={os_user},{base}\nobjectClass: posixGroup\ncn: {os_user}\ngidNumber: {gid}\n\n");
    Ok(if lease.state == PoolState::Leased { account + &group } else { format!("# {LEASE}{whole}\n\n") })
}

/// The LDIF of a project's group, with those in it. A name that LDIF does not take as it is is left out.
fn group_entry(record: &GroupRecord, base: &str) -> serde_json::Result<String> {
    use std::fmt::Write as _;
    let GroupRecord { name, gid, .. } = record;
    let whole = ascii(&serde_json::to_string(&ProjectGroup::from(record))?);
    let mut text = format!("dn: cn={name},{base}\nobjectClass: posixGroup\ncn: {name}\ngidNumber: {gid}\n");
    for member in &record.members {
        let member = member.os_account.name.as_str();
        if member.is_ascii() && !member.starts_with([' ', ':', '<']) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "memberUid: {member}");
        }
    }
    Ok(format!("{text}{GROUP}{whole}\n\n"))
}

/// JSON in which everything beyond ASCII is escaped: LDIF takes nothing else as it is.
fn ascii(json: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// The leases and groups in a file of either form.
pub fn parse(text: &str) -> Result<(Vec<PoolRecord>, Vec<GroupRecord>), serde_json::Error> {
    let elements: Vec<Element> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text)?
    } else {
        // A line that goes on begins with a blank.
        let unfolded = text.replace("\r\n", "\n").replace("\n ", "");
        let element = |line: &str| {
            let line = line.trim_start_matches("# ");
            match (line.strip_prefix(LEASE), line.strip_prefix(GROUP)) {
                (Some(lease), _) => Some(serde_json::from_str(lease).map(Element::Lease)),
                (None, Some(group)) => Some(serde_json::from_str(group).map(Element::Group)),
                (None, None) => None,
            }
        };
        unfolded.lines().filter_map(element).collect::<Result<_, _>>()?
    };
    let (mut leases, mut groups) = (Vec::new(), Vec::new());
    for element in elements {
        match element {
            Element::Lease(lease) => leases.push(lease.into()),
            Element::Group(group) => groups.push(group.into()),
        }
    }
    Ok((leases, groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::project_group::GroupMember;

    fn lease(uid: u32, account: &str, state: PoolState) -> PoolRecord {
        PoolRecord {
            version: PoolRecord::VERSION,
            os_account: OsIdentity {
                name: format!("dp{uid}").parse().unwrap(),
                uid: OsUid::new(uid).unwrap(),
                gid: OsGid::new(uid).unwrap(),
            },
            home: format!("/home/pool/dp{uid}"),
            home_made: false,
            application: "portal".parse().unwrap(),
            account: account.parse().unwrap(),
            state,
            since: 7,
        }
    }

    fn group() -> GroupRecord {
        let group = ProjectGroup {
            application: "portal".parse().unwrap(),
            project: "zoë/x".parse().unwrap(),
            group: "dg69001".parse().unwrap(),
            gid: OsGid::new(69_001).unwrap(),
            since: 7_000_000,
        };
        group.into()
    }

    #[test]
    fn what_is_exported_is_what_is_imported_in_both_forms() {
        let leases = vec![
            lease(70_001, "ada", PoolState::Leased),
            lease(70_002, "zoë😀@example.org", PoolState::Leased),
            lease(70_003, "gone", PoolState::Quarantined),
        ];
        let all = (leases.clone(), vec![group()]);
        // Those in a group are told, and not taken over.
        let os_account = lease(70_001, "ada", PoolState::Leased).os_account;
        let member = GroupMember { account: "ada".parse().unwrap(), os_account };
        let with_member = GroupRecord { claimed: true, revision: 3, members: vec![member], ..group() };
        let written = |format| write(leases.clone(), vec![with_member.clone()], format, "dc=x").unwrap();
        assert_eq!(parse(&written(PoolFormat::Json)).unwrap(), all);
        let ldif = written(PoolFormat::Ldif);
        assert!(
            ldif.is_ascii() && ldif.contains("uidNumber: 70002\n") && ldif.contains("dn: cn=dp70001,dc=x\n")
        );
        assert!(ldif.contains("cn: dg69001\ngidNumber: 69001\nmemberUid: dp70001\n"), "{ldif}");
        assert!(!ldif.contains("uidNumber: 70003"), "nobody has it");
        assert_eq!(parse(&ldif).unwrap(), all);
        let folded = ldif.replace("deputy-pool {", "deputy-pool {\n ").replace('\n', "\r\n");
        assert_eq!(parse(&folded).unwrap(), all);
    }

    #[test]
    fn a_file_that_says_more_or_other_is_refused() {
        let leases = vec![lease(70_001, "ada", PoolState::Leased)];
        let good = write(leases, vec![group()], PoolFormat::Json, "").unwrap();
        for (from, to) in [
            ("70001,", "0,"),
            ("\"ada\"", "\"a/b\""),
            ("\"leased\"", "\"mine\""),
            ("\"account\"", "\"x\": 1, \"account\""),
            ("69001,", "0,"),
            ("zoë/x", "zoë"),
            ("\"group\"", "\"x\": 1, \"group\""),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
