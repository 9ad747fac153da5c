//! `deputyctl submit` behind the command templates of other programs, at a real Slurm. Refusals first.
#![forbid(unsafe_code)]

use std::fs;

use deputy_suite::machine::wait_until;
use deputy_suite::people::{as_user, ok, refused};
use deputy_suite::slurm::{PORTAL, exclusively, field, wait_for};
use deputy_suite::{Output, deputyctl};

const SUBMIT: &str = "deputyctl submit --app hpc --account alice --kind cluster";

/// A template's command, as a program runs it: by a shell, as the service user.
fn template(command: &str) -> Output {
    as_user(PORTAL, &["sh", "-c", &format!("cd /srv/slurm; {command}")])
}

/// The id of the job that Slurm has under this number.
fn job_of(number: &str) -> String {
    let comment = field(number, "Comment");
    comment.strip_prefix("deputy:").expect("one of Deputy's").to_owned()
}

#[test]
fn what_policy_refuses_and_what_cannot_be_said_is_no_submission() {
    let _machine = exclusively();
    for (directive, code) in [
        ("--partition=long", "ExecutorNotAllowed"),
        ("--mem=2G", "LimitNotAllowed"),
        ("--array=0-9", "InvalidArgument"),
        ("--exclusive", "InvalidArgument"),
        ("--wrap=id", "InvalidArgument"),
        ("--output=slurm-%j.out", "InvalidArgument"),
    ] {
        fs::write("/srv/slurm/refused.sh", format!("#!/bin/sh\n#SBATCH {directive}\ntrue\n")).unwrap();
        assert_eq!(refused(&template(&format!("{SUBMIT} refused.sh"))), code, "{directive}");
    }
    assert_eq!(ok(&as_user("root", &["squeue", "--noheader", "--user=alice"])), "");
}

#[test]
fn the_lane_of_a_cluster_submits_asks_and_cancels() {
    let _machine = exclusively();
    let script = "#!/usr/bin/env bash\n#SBATCH --job-name cryosparc_P1_J2\n#SBATCH --cpus-per-task=2\n#SBATCH --gres=gpu:1\n\
                  #SBATCH --mem=1G\n#SBATCH --output=/srv/slurm/lane.log\n#SBATCH --error=/srv/slurm/lane.log\n\n\
                  echo \"as $(id -un)\"\nsleep 600\n";
    fs::write("/srv/slurm/lane.sh", script).unwrap();
    let said = ok(&template(&format!("{SUBMIT} /srv/slurm/lane.sh")));
    let number = said.strip_prefix("Submitted batch job ").expect("sbatch's words").to_owned();
    assert!(number.parse::<u32>().is_ok(), "{said}");
    let query = format!("deputyctl submit --app hpc --query {number}");
    wait_until("it runs", || ok(&template(&query)).starts_with("RUNNING "));
    wait_until("it writes", || {
        fs::read_to_string("/srv/slurm/lane.log").is_ok_and(|log| log == "as alice\n")
    });
    assert_eq!((field(&number, "NumCPUs"), field(&number, "TresPerNode")), ("2".into(), "gres:gpu:1".into()));
    let job = job_of(&number);
    ok(&template(&format!("deputyctl submit --app hpc --cancel {number}")));
    wait_for(&job, "done");
    assert_eq!(ok(&template(&query)), "");
    // As of a number that there is not, and as scancel says nothing then.
    for verb in ["query", "cancel"] {
        assert_eq!(ok(&template(&format!("deputyctl submit --app hpc --{verb} 4000000"))), "");
    }
}

#[test]
fn a_spawner_has_a_number_a_state_and_a_host() {
    let _machine = exclusively();
    let begin = "export APP_TOKEN=s3cret OTHER=x; printf '#!/bin/sh\\n#SBATCH --chdir=/srv/slurm\\n#SBATCH --export=APP_TOKEN\\n\
                 printf %%s \"$APP_TOKEN$OTHER\" > spawned; sleep 600\\n' | ";
    let number = ok(&template(&format!("{begin}{SUBMIT} --parsable --pass APP_TOKEN")));
    assert!(number.parse::<u32>().is_ok(), "{number}");
    let query = format!("deputyctl submit --app hpc --query {number}");
    let mut told = String::new();
    wait_until("it runs", || {
        told = ok(&template(&query));
        assert!(told == "PENDING" || told.starts_with("RUNNING"), "{told}");
        told.starts_with("RUNNING ")
    });
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(told, format!("RUNNING {}", host.trim().split('.').next().unwrap()));
    wait_until("it has its variables", || {
        fs::read_to_string("/srv/slurm/spawned").is_ok_and(|text| text == "s3cret")
    });
    let job = job_of(&number);
    assert_eq!(refused(&deputyctl("bob", &["job", "cancel", &job])), "NotFound");
    ok(&template(&format!("deputyctl submit --app hpc --cancel {number}")));
    wait_for(&job, "done");
}
