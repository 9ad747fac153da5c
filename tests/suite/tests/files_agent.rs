//! What a file agent is kept from and how much it holds, seen from outside and by a `deputyd` that was taken over.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use deputy_core::Code;
use deputy_core::message::{FileReply, FileRequest, MAX_KEPT, OpenHow};
use deputy_suite::acting::ids;
use deputy_suite::files::{Ended, FileAgent, files_of, for_writing, stat};
use deputy_suite::machine::{add_service_user, install_application, wait_until};
use deputy_suite::requests::{grant, grant_in};
use deputy_suite::{as_user, need_the_sandbox};
use rustix::net::sockopt::Timeout;

/// The application whose root is /proc, before there is any agent: one that is added ends them.
fn begin() {
    static ONCE: Once = Once::new();
    need_the_sandbox();
    ONCE.call_once(|| {
        fs::create_dir_all("/data/lab1").expect("the root");
        fs::set_permissions("/data", Permissions::from_mode(0o755)).expect("a mode");
        add_service_user("procseen-portal");
        install_application(
            "procseen",
            "service_user = \"procseen-portal\"\ntrust = \"application\"\n\
             [[roots]]\npath = \"/proc\"\naccess = \"read-only\"\n",
        );
    });
}

/// A folder of alice's beneath the root of `demo`.
fn alices_folder(name: &str) -> PathBuf {
    let folder = Path::new("/data/lab1").join(name);
    fs::create_dir(&folder).expect("a folder");
    let alice = ids("alice");
    chown(&folder, Some(alice.uid), Some(alice.gid)).expect("its owner");
    folder
}

/// A process that ends with the test.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_cannot_look_into_its_users_other_processes() {
    begin();
    let alice = ids("alice");
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={}", alice.uid), format!("--regid={}", alice.gid)]);
    command.args(["--clear-groups", "sleep", "600"]).stdout(Stdio::null());
    let other = Other(command.spawn().expect("a process of alice's"));
    let environment = format!("/proc/{}/environ", other.0.id());
    grant_in("procseen", "looker", "alice");
    let agent = FileAgent::start(&files_of("procseen", "looker", "alice")).expect("an agent");
    // The process can be named; it is the look into it that Landlock refuses, and that a login of alice's has.
    assert!(matches!(agent.call(&stat(&environment)), Ended::Answer(FileReply::Stat(_))));
    wait_until("alice reads her own process", || as_user("alice", &["cat", &environment]).status == 0);
    // Without what was read: a failure is no place to print it.
    assert_eq!(agent.read(&environment).map(drop), Err(Ended::Errno(13)));
}

#[test]
fn an_agent_that_nobody_asks_ends() {
    begin();
    grant("idler", "alice");
    let mut request = files_of("demo", "idler", "alice");
    request.idle_seconds = Some(1);
    let agent = FileAgent::start(&request).expect("an agent");
    // The connection closes without a word; of an agent that stays nothing comes, and that is an error here.
    let patience = Some(Duration::from_secs(60));
    rustix::net::sockopt::set_socket_timeout(agent.line(), Timeout::Recv, patience).expect("a timeout");
    assert!(agent.line().next::<FileReply>().is_none());
}

#[test]
fn an_agent_keeps_so_many_files_and_no_more() {
    begin();
    let folder = alices_folder("keptfiles");
    grant("keeper", "alice");
    let agent = FileAgent::of("keeper", "alice");
    let keep = |number: usize| {
        let path = format!("{}/{number}", folder.display()).into_bytes();
        agent.call(&FileRequest::Open { path, how: OpenHow { keep: true, ..for_writing() } })
    };
    let mut handles = Vec::new();
    for number in 0..MAX_KEPT {
        let Ended::Answer(FileReply::Opened { handle: Some(handle) }) = keep(number) else {
            panic!("file {number} is not kept")
        };
        handles.push(handle);
    }
    assert_eq!(keep(MAX_KEPT), Ended::Refused(Code::Busy));
    assert!(!folder.join(MAX_KEPT.to_string()).exists(), "what is refused was made");
    let first = handles[0];
    assert_eq!(
        agent.call(&FileRequest::Commit { handle: first, discard: false }),
        Ended::Answer(FileReply::Done)
    );
    // A handle is for once, and its place is free again.
    assert_eq!(
        agent.call(&FileRequest::Commit { handle: first, discard: false }),
        Ended::Refused(Code::NotFound)
    );
    let Ended::Answer(FileReply::Opened { handle: Some(again) }) = keep(MAX_KEPT) else {
        panic!("there is room again")
    };
    assert!(!handles.contains(&again), "a handle was given twice");
}
