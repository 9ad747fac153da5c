//! Groups of projects in the sandbox: applications whose projects have some, and what a taken-over daemon can ask.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Once;

use deputy_core::ids::OsGid;
use deputy_core::message::{LauncherReply, LauncherRequest, NotInGroup, SetGroupRequest};
use deputy_core::project_group::{GroupMember, GroupRecord};
use deputy_core::root_record::RootRecord as _;

use crate::acting::identity;
use crate::fake::{Answers, Fake};
use crate::machine::{add_service_user, install_application};
use crate::requests::{account, app, grant_in};

/// Where the records are.
pub const RECORDS: &str = "/var/lib/deputy/pool/groups";

/// An application whose projects have groups, and whose members share folders beneath `/srv/NAME/shared`.
pub fn text(name: &str, project_groups: bool) -> String {
    format!(
        "service_user = \"{name}\"\ntrust = \"application\"\n[link]\nshared = true\n\
         [pool]\nproject_groups = {project_groups}\n\
         [[roots]]\npath = \"/srv/{name}/shared\"\naccess = \"read-write\"\nshared = true\n\
         [[roots]]\npath = \"/srv/{name}/own\"\naccess = \"read-write\"\n\
         [kinds.batch]\ncommands = [\"*\"]\n"
    )
}

/// Installs the applications: `team` and `rivals`, whose projects have groups, and `plain`, whose projects have none.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (name, project_groups) in [("team", true), ("rivals", true), ("plain", false)] {
            for folder in ["shared", "own"] {
                let folder = format!("/srv/{name}/{folder}");
                fs::create_dir_all(&folder).expect("a root");
                fs::set_permissions(&folder, Permissions::from_mode(0o1777)).expect("its mode");
            }
            add_service_user(name);
            install_application(name, &text(name, project_groups));
        }
    });
}

/// A member with the OS account of a user of the sandbox.
pub fn member(name: &str, os_user: &str) -> GroupMember {
    GroupMember { account: account(name), os_account: identity(os_user) }
}

/// A member of `team`'s with root's consent.
pub fn consented(name: &str, os_user: &str) -> GroupMember {
    grant_in("team", name, os_user);
    member(name, os_user)
}

/// Asks for a group for a project.
pub fn ask(application: &str, project: &str) -> Answers {
    let project = project.parse().expect("a project");
    Fake::daemon().ask(&LauncherRequest::MakeGroup { application: app(application), project }, &[])
}

/// A new group of `team`'s.
pub fn make(project: &str) -> GroupRecord {
    group_of(&ask("team", project)).0
}

/// The group that was the answer.
pub fn group_of(answers: &Answers) -> (GroupRecord, Vec<NotInGroup>) {
    let [LauncherReply::Group { record, left_out }] = &answers.replies[..] else { panic!("{answers:?}") };
    (record.clone(), left_out.clone())
}

/// Asks for these members, as of this record.
pub fn set_as_of(application: &str, record: &GroupRecord, members: &[GroupMember]) -> Answers {
    let request = SetGroupRequest {
        application: app(application),
        gid: record.gid,
        project: record.project.clone(),
        revision: record.revision,
        members: members.to_vec(),
    };
    Fake::daemon().ask(&LauncherRequest::SetGroup(request), &[])
}

/// Has these members in a group of `team`'s, as it is now; who is in it then.
pub fn set(gid: OsGid, members: &[GroupMember]) -> (GroupRecord, Vec<NotInGroup>) {
    group_of(&set_as_of("team", &record(gid).expect("a record"), members))
}

/// A record on disk, which has to be whole.
pub fn record(gid: OsGid) -> Option<GroupRecord> {
    let name = gid.to_string();
    let text = fs::read_to_string(Path::new(RECORDS).join(&name)).ok()?;
    Some(GroupRecord::parse(&name, &text).unwrap_or_else(|error| panic!("{name}: {error}: {text}")))
}

/// The accounts in a group, by its record on disk.
pub fn accounts_in(gid: OsGid) -> Vec<String> {
    let record = record(gid).expect("a record");
    record.members.iter().map(|member| member.account.to_string()).collect()
}
