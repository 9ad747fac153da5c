//! A machine where the configured cgroup does not exist: Deputy makes a folder of its own, so that ends are exact.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use deputy_core::Code;
use deputy_core::job::EndCause;
use deputy_core::message::{JobCommand, JobState, LauncherReply, LauncherRequest, OwnerReply, OwnerRequest};
use deputy_suite::acting::identity;
use deputy_suite::machine::{jobs_cgroup, running, shepherd_of, signal, wait_until};
use deputy_suite::requests::{grant, owner_code, run_as};
use deputy_suite::{Fake, need_the_sandbox};

const SETTINGS: &str = "/etc/deputy/deputy.toml";

/// The folder that Deputy makes, which is the host's: it goes with the test if nobody else uses it.
struct OwnFolder(PathBuf);

impl Drop for OwnFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

// One test: there is one machine.
#[test]
fn jobs_in_a_folder_of_deputys_own() {
    need_the_sandbox();
    grant("homeless", "alice");
    let configured = jobs_cgroup();
    let top = configured.ancestors().take_while(|path| path.join("cgroup.procs").exists()).last().unwrap();
    let own = OwnFolder(top.join("deputy-jobs"));
    let before = fs::read_to_string(SETTINGS).unwrap();
    fs::write(SETTINGS, "[executor.local]\ncgroup = \"/sys/fs/cgroup/there/is/no/such/folder\"\n").unwrap();

    let script = "cat /proc/self/cgroup; exec deputy-fake-owner \"$0\"";
    let list = serde_json::to_string(&OwnerRequest::List { after: None }).unwrap();
    let request = run_as(identity("alice"), "homeless", &["sh", "-c", script, &list]);
    let answers = Fake::daemon().run(&request);
    assert!(answers.output.contains(&format!("/deputy-jobs/{}\n", request.job)), "{answers:?}");
    let reply: OwnerReply = serde_json::from_str(answers.output.lines().last().unwrap()).unwrap();
    assert_eq!(owner_code(&reply), Some(Code::InsideJob));

    let request =
        run_as(identity("alice"), "homeless", &["sh", "-c", "(setsid sleep 74001 &) ; sleep 74001; :"]);
    let pending = Fake::daemon().begin(&request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    wait_until("all of it runs", || running("sleep 74001").len() == 2);
    pending.line.command(JobCommand::Cancel { grace_ms: 0 });
    assert_eq!(pending.answers().record().expect("an end").cause, Some(EndCause::Cancelled));
    assert!(running("sleep 74001").is_empty());

    // It is a job, and ended with its shepherd, also when root has configured another folder meanwhile.
    let stay = "sleep 74002; deputy-fake-owner \"$0\" >/home/alice/said; sleep 74003";
    let request = run_as(identity("alice"), "homeless", &["sh", "-c", stay, &list]);
    let pending = Fake::daemon().begin(&request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    wait_until("it sleeps", || !running("sleep 74002").is_empty());
    let shepherd = shepherd_of(shepherd_of(running("sleep 74002")[0]));
    fs::write(SETTINGS, before).unwrap();
    signal(running("sleep 74002")[0], "KILL");
    wait_until("it has asked", || !running("sleep 74003").is_empty());
    let reply: OwnerReply =
        serde_json::from_str(fs::read_to_string("/home/alice/said").unwrap().trim()).unwrap();
    assert_eq!(owner_code(&reply), Some(Code::InsideJob));
    signal(shepherd, "KILL");
    wait_until("nothing of it runs", || running("sleep 74003").is_empty());
    let answers = Fake::daemon().ask(&LauncherRequest::Attach { job: request.job.clone() }, &[]);
    assert_eq!(answers.replies, [LauncherReply::Job(JobState::Lost)]);
    wait_until("its cgroup has gone", || !own.0.join(request.job.as_str()).exists());
}
