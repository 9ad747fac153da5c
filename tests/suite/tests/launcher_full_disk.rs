//! A full disk below the jobs' folders costs output, which is counted, and neither a job nor its end.
#![forbid(unsafe_code)]

use deputy_core::Code;
use deputy_core::job::JobEnd;
use deputy_core::message::RunRequest;
use deputy_core::stream::CapturedStream;
use deputy_suite::acting::identity;
use deputy_suite::machine::{launcher_log, run as run_as_root};
use deputy_suite::need_the_sandbox;
use deputy_suite::requests::{grant, run_as};
use deputy_suite::streams::{CapturedFile, all_captured, record, run};

fn shell(script: &str) -> RunRequest {
    RunRequest { streams: all_captured(), ..run_as(identity("alice"), "full", &["sh", "-c", script]) }
}

// One test: the jobs' folders are everybody's.
#[test]
fn a_job_goes_on_and_what_is_lost_is_counted() {
    need_the_sandbox();
    grant("full", "alice");
    let jobs = "/var/lib/deputy/jobs";
    run_as_root("mount", &["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", jobs]);
    // 4 MiB of what the bound of 16 MiB would keep, on a disk of one.
    let request = shell("seq -f %015.0f 0 262143; echo said >&2; exit 7");
    let end = record(&run(&request, &[]));
    assert_eq!(end.end, JobEnd::Exited { code: 7 });
    assert_eq!(end.captured.output, 4 << 20);
    assert_eq!(end.captured.error, 5);
    let output = CapturedFile::of(&request.job, CapturedStream::Output).unwrap();
    let left_out = output.left_out();
    assert!(left_out.count() > 3 << 20, "{left_out:?}");
    assert_eq!(output.size().max(left_out.end), 4 << 20);
    let expected = (0..left_out.start / 16).map(|line| format!("{line:015}\n")).collect::<Vec<_>>().concat();
    assert!(!expected.is_empty());
    assert_eq!(output.read(0, expected.len() as u64), expected.as_bytes());
    assert!(launcher_log().contains("captured_output_left_out"));

    // What has no room from the beginning is not begun.
    assert_eq!(run(&shell("echo never > /home/alice/never"), &[]).code(), Some(Code::Disk));
    assert!(!std::path::Path::new("/home/alice/never").exists());
    run_as_root("umount", &["-l", jobs]);
}
