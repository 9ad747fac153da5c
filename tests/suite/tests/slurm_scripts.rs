//! Programs, secret variables and what is written at a real Slurm. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use deputy_core::Code;
use deputy_core::message::{LauncherReply, LauncherRequest, RunRequest, SubmitRequest};
use deputy_core::slurm::SlurmRequest;
use deputy_suite::deputyctl;
use deputy_suite::fake::Fake;
use deputy_suite::machine::wait_until;
use deputy_suite::people::{as_user, ok, refused};
use deputy_suite::requests::for_slurm;
use deputy_suite::slurm::{PORTAL, exclusively, field, number, run, show, submit, wait_for};

/// A file of the portal's own, which the OS account cannot read.
fn portals(name: &str, text: &str) -> String {
    let path = format!("/home/{PORTAL}/{name}");
    fs::create_dir_all(format!("/home/{PORTAL}")).unwrap();
    fs::set_permissions(format!("/home/{PORTAL}"), fs::Permissions::from_mode(0o700)).unwrap();
    ok(&as_user("root", &["chown", PORTAL, &format!("/home/{PORTAL}")]));
    fs::write(&path, text).unwrap();
    ok(&as_user("root", &["chown", PORTAL, &path]));
    path
}

#[test]
fn a_script_is_for_kinds_that_allow_any_program_and_its_descriptor_has_to_come() {
    let _machine = exclusively();
    let script = portals("job.sh", "#!/bin/sh\ntrue\n");
    let strict = ["run", "--app", "hpc", "--account", "alice", "--kind", "strict", "--detach", "--script"];
    assert_eq!(refused(&deputyctl(PORTAL, &[&strict[..], &[&script]].concat())), "CommandNotAllowed");
    let array = run("alice", &["--detach", "--array", "0-1", "--script", &script], &[]);
    assert_eq!(refused(&array), "InvalidArgument", "{array:?}");
    let run = RunRequest {
        script: true,
        argv: vec![b"job.sh".to_vec()],
        ..for_slurm("hpc", "cluster", "alice", "alice")
    };
    let request = SubmitRequest { run, slurm: SlurmRequest::default() };
    let answers = Fake::daemon().ask(&LauncherRequest::Submit(request), &[]);
    assert!(
        matches!(&answers.replies[..], [LauncherReply::Denied(denial)] if denial.code == Code::BadMessage),
        "{answers:?}"
    );
}

#[test]
fn a_script_runs_as_it_is_and_its_directives_say_nothing() {
    let _machine = exclusively();
    let text = "#!/bin/sh\n#SBATCH --partition=short\r\n#SBATCH --job-name=own\n: its \"$0\" `id` $(id)\nprintf '%s|' \"$@\"\n\
                ls -l /proc/$$/fd | grep -c deputy\nid -un; exit 6\n";
    let script = portals("job.sh", text);
    let options = ["--script", &script, "--stdout", "/srv/slurm/script.txt"];
    let job = submit("alice", &options, &["a 'b'", "--wrap=id"]);
    let slurm = number(&job);
    wait_for(&job, "done");
    assert_eq!(show(&job)["exit_code"], 6);
    let told = fs::read_to_string("/srv/slurm/script.txt").unwrap();
    assert_eq!(told, "a 'b'|--wrap=id|0\nalice\n");
    assert_eq!(
        (field(&slurm, "Partition"), field(&slurm, "JobName")),
        ("batch".into(), format!("deputy-{job}"))
    );
    // Nothing of it is left on the node.
    let left = ok(&as_user("root", &["sh", "-c", "find /tmp -user alice | wc -l"]));
    assert_eq!(left, "0");
    // Another interpreter, and a file with bytes that are no text.
    let script = portals("job.sed", "#!/bin/sed -nf\ns/^/\u{1}ä/p\n");
    fs::write("/srv/slurm/in.txt", "x\n").unwrap();
    let options = ["--script", &script, "--stdin", "/srv/slurm/in.txt", "--stdout", "/srv/slurm/sed.txt"];
    let job = submit("alice", &options, &[]);
    wait_for(&job, "done");
    assert_eq!(fs::read_to_string("/srv/slurm/sed.txt").unwrap(), "\u{1}äx\n", "{}", show(&job));
}

#[test]
fn secret_variables_reach_the_job_and_no_record() {
    let _machine = exclusively();
    let refused_name = portals("bad", "OTHER=x\n");
    assert_eq!(refused(&run("alice", &["--env-file", &refused_name], &["true"])), "EnvironmentNotAllowed");
    let variables = portals("secret", "APP_TOKEN=s3cret 'x'\n");
    let options = ["--env-file", &variables, "--stdout", "/srv/slurm/secret.txt"];
    let job = submit("alice", &options, &["sh", "-c", "printf %s \"$APP_TOKEN\""]);
    let slurm = number(&job);
    wait_for(&job, "done");
    assert_eq!(fs::read_to_string("/srv/slurm/secret.txt").unwrap(), "s3cret 'x'");
    let shown = show(&job).to_string() + &ok(&as_user("root", &["scontrol", "show", "job", &slurm]));
    assert!(!shown.contains("s3cret"), "{shown}");
    let kept = as_user("root", &["grep", "-r", "s3cret", "/var/lib/deputy", "/var/log/deputy-sandbox"]);
    assert_eq!((kept.status, kept.stdout.as_str()), (1, ""));
}

#[test]
fn what_a_job_writes_is_followed_as_its_os_account() {
    let _machine = exclusively();
    let script = "echo one; until test -e /srv/slurm/more; do sleep 0.1; done; echo two; echo three >&2";
    let options = ["--cwd", "/srv/slurm", "--stdout", "followed.txt", "--stderr", "/srv/slurm/errors.txt"];
    let job = submit("alice", &options, &["sh", "-c", script]);
    wait_until("it has written", || {
        fs::read_to_string("/srv/slurm/followed.txt").is_ok_and(|text| text == "one\n")
    });
    for caller in [PORTAL, "alice"] {
        assert_eq!(ok(&deputyctl(caller, &["job", "logs", &job])), "one");
    }
    assert_eq!(refused(&deputyctl("bob", &["job", "logs", &job])), "NotFound");
    std::thread::scope(|scope| {
        let followers =
            [PORTAL, "alice"].map(|caller| scope.spawn(|| deputyctl(caller, &["job", "logs", "-f", &job])));
        std::thread::sleep(std::time::Duration::from_secs(1));
        fs::write("/srv/slurm/more", "").unwrap();
        for follower in followers {
            assert_eq!(ok(&follower.join().unwrap()), "one\ntwo");
        }
    });
    fs::remove_file("/srv/slurm/more").unwrap();
    assert_eq!(ok(&deputyctl(PORTAL, &["job", "logs", "--stderr", &job])), "three");
    assert_eq!(ok(&deputyctl(PORTAL, &["job", "logs", "--offset", "4", &job])), "two");
    // The application reads beneath its roots alone; the owner is himself.
    let job = submit("alice", &["--stdout", "/home/alice/private.txt"], &["echo", "own"]);
    wait_for(&job, "done");
    assert_eq!(refused(&deputyctl(PORTAL, &["job", "logs", &job])), "PathOutside");
    assert_eq!(ok(&deputyctl("alice", &["job", "logs", &job])), "own");
}
