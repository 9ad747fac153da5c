//! `--slurm`: a real Slurm with accounting inside; `--slurm-without-accounting`: one without. Refusals first.

mod common;

use common::{good, run, text};

const PEOPLE: [&str; 7] = ["--slurm", "--user", "alice:x:lab1", "--user", "bob:x:lab1", "--user", "carol:x"];

/// Waits until a job, whose id is in $id, is no longer in the queue.
const WAIT: &str = "for _ in $(seq 600); do [ -z \"$(squeue --noheader --job $id 2>&1 | grep -v error)\" ] && break; sleep 0.1; done";

#[test]
fn people_run_jobs_as_themselves_and_slurm_counts_them() {
    let script = format!(
        "\
        cd /tmp
        if runuser -u carol -- sbatch --wrap true; then echo carol is not known and was let in; exit 1; fi
        if runuser -u alice -- sbatch --account lab2 --wrap true; then echo alice is in no lab2; exit 1; fi
        if runuser -u alice -- sbatch --time 2:00:00 --partition short --wrap true; then \
            echo the limit does not hold; exit 1; fi
        id=$(runuser -u alice -- sbatch --parsable --gres gpu:1 --output /tmp/out --wrap 'id; exit 3')
        {WAIT}
        cat /tmp/out
        id alice
        for _ in $(seq 100); do
            line=$(sacct --noheader --parsable2 --allocations --job $id --format state,exitcode,user,account)
            case $line in FAILED*) break;; esac
            sleep 0.1
        done
        echo \"$line\""
    );
    let said = good(&PEOPLE, &script);
    let lines: Vec<&str> = said.lines().collect();
    let [job, login, counted] = lines[..] else { panic!("{said}") };
    assert_eq!(job, login);
    assert!(job.starts_with("uid=1001(alice)") && job.contains("(lab1)"), "{job}");
    assert_eq!(counted, "FAILED|3:0|alice|lab1");
}

#[test]
fn a_controller_that_is_killed_comes_back_with_its_jobs() {
    let script = format!(
        "\
        cd /tmp
        id=$(runuser -u bob -- sbatch --parsable --output /tmp/out --wrap 'until [ -e /tmp/go ]; do sleep 0.1; done; id -un')
        old=$(cat /run/deputy-sandbox/slurmctld.pid)
        kill -9 $old
        until [ \"$(cat /run/deputy-sandbox/slurmctld.pid)\" != $old ]; do sleep 0.1; done
        until squeue --noheader --job $id --format %u 2>/dev/null; do sleep 0.2; done
        touch /tmp/go
        {WAIT}
        cat /tmp/out"
    );
    assert_eq!(good(&PEOPLE, &script), "bob\nbob\n");
}

#[test]
fn one_without_accounting_has_none_and_tells_ends_in_its_queue() {
    let both = run(&["--slurm", "--slurm-without-accounting"], "true");
    assert!(!both.status.success() && text(&both.stderr).contains("cannot be used with"), "{both:?}");
    let people = ["--slurm-without-accounting", "--user", "alice:x:lab1"];
    let script = "\
        cd /tmp
        if sacct --allusers; then echo there is accounting; exit 1; fi
        if sacctmgr --readonly show associations; then echo there are associations; exit 1; fi
        if ls /run/mysqld /run/deputy-sandbox/slurmdbd.pid; then echo there is a database; exit 1; fi
        id=$(runuser -u alice -- sbatch --parsable --output /tmp/out --wrap 'exit 255')
        for _ in $(seq 600); do
            line=$(squeue --noheader --states=all --job $id --Format=State:.10,exit_code:.10)
            case $line in *FAILED*) break;; esac
            sleep 0.1
        done
        echo $line
        grep -c JobState=FAILED /var/log/slurm/jobs.log";
    assert_eq!(good(&people, script), "FAILED 65280\n1\n");
}
