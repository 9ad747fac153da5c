//! Groups of projects on a machine whose name service does not know Deputy's module: a job of the project has the gid,
//! and no other job and no login has it.
#![forbid(unsafe_code)]

use std::fs;

use deputy_core::ids::OsGid;
use deputy_suite::groups::{consented, install, make, set};
use deputy_suite::people::as_user;
use deputy_suite::requests::{app, run_as};
use deputy_suite::{Fake, need_the_sandbox};

#[test]
fn only_a_job_of_the_project_has_its_group() {
    need_the_sandbox();
    let path = "/etc/deputy/deputy.toml";
    let before = fs::read_to_string(path).unwrap();
    let range = "[pool]\nuid_min = 440000\nuid_max = 440009\ngid_min = 439000\ngid_max = 440009\n";
    fs::write("/etc/deputy/deputy.new", format!("{before}\n{range}")).unwrap();
    fs::rename("/etc/deputy/deputy.new", path).unwrap();
    install();
    assert!(!fs::read_to_string("/etc/nsswitch.conf").unwrap().contains("deputy"));
    let group = make("pi/x");
    let pi = consented("pi", "alice");
    set(group.gid, std::slice::from_ref(&pi));
    let groups_of_job = |project_group: Option<OsGid>| {
        let mut request = run_as(pi.os_account.clone(), "pi", &["id", "-G"]);
        request.application = app("team");
        request.project_group = project_group;
        let answers = Fake::daemon().run(&request);
        answers.code().map_or(Ok(answers.output.trim().to_owned()), Err)
    };
    let own = as_user("alice", &["id", "-G"]).stdout.trim().to_owned();
    assert_eq!(groups_of_job(None), Ok(own.clone()), "as a login");
    assert_eq!(groups_of_job(Some(group.gid)), Ok(format!("{own} 439000")));
}
