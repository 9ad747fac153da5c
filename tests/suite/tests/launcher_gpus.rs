//! The GPUs that a job was leased, and no others. Devices that every machine has stand for them.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write as _;

use deputy_core::Code;
use deputy_core::message::RunRequest;
use deputy_core::queue::GpuIndex;
use deputy_suite::acting::identity;
use deputy_suite::requests::{grant, run_as};
use deputy_suite::{Fake, need_the_sandbox};

/// A job that says which of the devices it can open, and what it was told.
fn looking(gpus: &[u16]) -> RunRequest {
    let script = "for i in zero full random null; do (: </dev/$i) 2>/dev/null && echo $i; done; \
                  echo \"${CUDA_VISIBLE_DEVICES-unset} ${ROCR_VISIBLE_DEVICES-unset}\"";
    let mut request = run_as(identity("alice"), "gpus", &["sh", "-c", script]);
    request.gpus = gpus.iter().copied().map(GpuIndex).collect();
    request
}

// One test: there is one deputy.toml.
#[test]
fn a_job_opens_the_gpus_that_it_was_leased_and_no_others() {
    need_the_sandbox();
    grant("gpus", "alice");
    let run = |gpus: &[u16]| Fake::daemon().run(&looking(gpus));
    let before = run(&[]);
    assert_eq!(before.output, "zero\nfull\nrandom\nnull\nunset unset\n", "a machine without GPUs");

    let mut settings = OpenOptions::new().append(true).open("/etc/deputy/deputy.toml").unwrap();
    settings
        .write_all(b"[executor.local.capacity]\ngpus = [\"/dev/zero\", \"/dev/full\", \"/dev/gone\", \"/dev/random\"]\n")
        .unwrap();
    assert_eq!(run(&[4]).code(), Some(Code::InvalidArgument));
    assert_eq!(run(&[0, u16::MAX]).code(), Some(Code::InvalidArgument));
    assert_eq!(run(&[]).output, "null\n \n");
    assert_eq!(run(&[1]).output, "full\nnull\n1 1\n");
    assert_eq!(run(&[3, 0]).output, "zero\nrandom\nnull\n0,3 0,3\n");
}
