//! Taking consent back ends what runs under it, and nothing starts past it.
#![forbid(unsafe_code)]

use deputy_core::Code;
use deputy_core::job::JobEnd;
use deputy_core::message::{JobState, LauncherReply, OwnerReply, OwnerRequest};
use deputy_suite::acting::identity;
use deputy_suite::fake::Pending;
use deputy_suite::machine::{running, wait_for_no_children, wait_until};
use deputy_suite::requests::{account, app, consents_of, grant, run_as, taken_back, withdrawal};
use deputy_suite::{Fake, need_the_sandbox};

/// A job that runs by now.
fn started(account_name: &str, os_user: &str, argv: &[&str]) -> Pending {
    let pending = Fake::daemon().begin(&run_as(identity(os_user), account_name, argv));
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    pending
}

fn revoke(user: &str, account_name: &str) -> OwnerReply {
    let request =
        OwnerRequest::Revoke { application: app("demo"), account: account(account_name), end_jobs: true };
    Fake::as_user(user).ask_as_owner(&request)
}

#[test]
fn what_runs_under_a_revoked_consent_ends_and_nothing_else_does() {
    need_the_sandbox();
    for (name, user) in [("ended", "alice"), ("spared", "alice"), ("spared-too", "bob")] {
        grant(name, user);
    }
    let ended = started("ended", "alice", &["sh", "-c", "setsid --fork sleep 2001; exec sleep 2002"]);
    let spared = started("spared", "alice", &["sleep", "2003"]);
    let of_another = started("spared-too", "bob", &["sleep", "2004"]);
    wait_until("the whole job runs", || running("sleep 2001").len() + running("sleep 2002").len() == 2);
    assert_eq!(revoke("alice", "ended"), OwnerReply::Withdrawn(taken_back(1)));
    let LauncherReply::Job(JobState::Ended(record)) = ended.line.reply() else { panic!("no end") };
    assert_eq!(record.end, JobEnd::Signaled { signal: 15, core: false });
    assert!(running("sleep 2001").is_empty() && running("sleep 2002").is_empty());
    assert_eq!((running("sleep 2003").len(), running("sleep 2004").len()), (1, 1));
    // The daemon's own word does the same.
    assert_eq!(
        Fake::daemon().ask(&withdrawal("demo", "spared", "alice", true), &[]).replies,
        [LauncherReply::Withdrawn(taken_back(1))]
    );
    assert!(matches!(spared.line.reply(), LauncherReply::Job(JobState::Ended(_))));
    assert_eq!(running("sleep 2004").len(), 1);
    let root = Fake::as_user("root").ask(&withdrawal("demo", "spared-too", "bob", true), &[]);
    assert_eq!(root.replies, [LauncherReply::Withdrawn(taken_back(1))]);
    assert!(matches!(of_another.line.reply(), LauncherReply::Job(JobState::Ended(_))));
    wait_for_no_children();
}

#[test]
fn a_job_that_does_not_listen_is_killed() {
    need_the_sandbox();
    grant("deaf", "carol");
    let deaf = started("deaf", "carol", &["sh", "-c", "trap '' TERM; sleep 2006; sleep 2006"]);
    wait_until("the job does not listen", || running("sleep 2006").len() == 1);
    assert_eq!(revoke("carol", "deaf"), OwnerReply::Withdrawn(taken_back(1)));
    let LauncherReply::Job(JobState::Ended(record)) = deaf.line.reply() else { panic!("no end") };
    assert_eq!(record.end, JobEnd::Signaled { signal: 9, core: false });
}

#[test]
fn a_job_that_starts_while_consent_is_taken_back_does_not_stay() {
    need_the_sandbox();
    for round in 0..60 {
        let name = format!("racing-{}", round % 3);
        grant(&name, "bob");
        let request = run_as(identity("bob"), &name, &["sleep", "2005"]);
        std::thread::scope(|scope| {
            let job = scope.spawn(|| Fake::daemon().run(&request));
            // Sooner or later than the job's own look.
            std::thread::sleep(std::time::Duration::from_micros(round * 150));
            let by_daemon = withdrawal("demo", &name, "bob", true);
            if round % 2 == 0 {
                assert!(matches!(revoke("bob", &name), OwnerReply::Withdrawn(taken) if taken.left == 0));
            } else {
                let taken = Fake::daemon().ask(&by_daemon, &[]).replies;
                assert!(
                    matches!(taken[..], [LauncherReply::Withdrawn(taken)] if taken.left == 0),
                    "{taken:?}"
                );
            }
            let answers = job.join().unwrap();
            let refused = answers.code();
            assert!(refused == Some(Code::NoConsent) || answers.status() == Some(143), "{answers:?}");
        });
        assert!(consents_of(&name).is_empty());
        assert!(running("sleep 2005").is_empty());
    }
}
