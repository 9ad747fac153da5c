//! What is no message, brings the wrong descriptors, or comes from the wrong peer: refused, and nothing is left behind.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use deputy_core::Code;
use deputy_core::message::{
    LauncherReply, LauncherRequest, MAX_MEMFD, MAX_PACKET, RunRequest, VERSION, encode,
};
use deputy_suite::acting::{Ids, acting_as, identity, ids};
use deputy_suite::line::Line;
use deputy_suite::machine::wait_for_no_children;
use deputy_suite::requests::{grant, run_as};
use deputy_suite::{Descriptor, Fake, job_id, need_the_sandbox};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

const STDIO: [Descriptor; 3] = [Descriptor::Null, Descriptor::Output, Descriptor::Null];

/// A job that would run if the message around it were right.
fn good_job(account_name: &str) -> RunRequest {
    grant(account_name, "alice");
    run_as(identity("alice"), account_name, &["id", "-u"])
}

fn packet(request: &RunRequest) -> Vec<u8> {
    encode(&LauncherRequest::Run(request.clone())).unwrap()
}

/// The same job has to run when it is asked for as it should be, so that what was refused was the message; and no
/// earlier request has left a process.
fn runs_when_asked_properly(request: &RunRequest) {
    let answers = Fake::daemon().run(request);
    assert_eq!(answers.output.trim(), ids("alice").uid.to_string(), "{answers:?}");
    wait_for_no_children();
}

fn code(replies: &[LauncherReply]) -> Option<Code> {
    match replies {
        [LauncherReply::Denied(denial)] => Some(denial.code),
        _ => None,
    }
}

/// Sends one packet with any descriptors as the daemon.
fn send(bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Vec<LauncherReply> {
    let line = Line::to_launcher(ids("deputy")).unwrap();
    line.send(bytes, descriptors);
    line.rest()
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    need_the_sandbox();
    let request = good_job("cut");
    let whole = packet(&request);
    // No bytes at all are no packet: the other end only hears that nobody is there any more.
    for length in 1..whole.len() {
        assert_eq!(
            Fake::daemon().send(&whole[..length], &STDIO).code(),
            Some(Code::BadMessage),
            "{length} bytes"
        );
    }
    runs_when_asked_properly(&request);
}

#[test]
fn a_message_with_more_behind_it_or_of_another_sort_is_refused() {
    need_the_sandbox();
    let request = good_job("longer");
    let whole = packet(&request);
    for more in [&b"\0"[..], b"x", &whole] {
        let longer = [whole.as_slice(), more].concat();
        assert_eq!(
            Fake::daemon().send(&longer, &STDIO).code(),
            Some(Code::BadMessage),
            "{} more",
            more.len()
        );
    }
    for version in
        (0..=u16::MAX).step_by(997).chain([0, VERSION + 1, u16::MAX]).filter(|&other| other != VERSION)
    {
        let mut other = whole.clone();
        other[4..6].copy_from_slice(&version.to_le_bytes());
        let code = Fake::daemon().send(&other, &STDIO).code();
        assert_eq!(code, Some(Code::UnsupportedVersion), "version {version}");
    }
    for at in 0..4 {
        let mut other = whole.clone();
        other[at] ^= 0x20;
        assert_eq!(Fake::daemon().send(&other, &STDIO).code(), Some(Code::BadMessage), "magic byte {at}");
    }
    for variant in 10..=u8::MAX {
        let mut other = whole.clone();
        other[6] = variant;
        assert_eq!(Fake::daemon().send(&other, &STDIO).code(), Some(Code::BadMessage), "variant {variant}");
    }
    for foreign in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"{}", b"DPTY", b"DPTY\x01\0", &[0xff; 300]] {
        assert_eq!(Fake::daemon().send(foreign, &STDIO).code(), Some(Code::BadMessage));
    }
    runs_when_asked_properly(&request);
}

#[test]
fn a_message_too_long_for_a_packet_is_refused() {
    need_the_sandbox();
    let request = good_job("too-long");
    let mut long = packet(&request);
    long.resize(MAX_PACKET + 1, 0);
    assert_eq!(Fake::daemon().send(&long, &STDIO).code(), Some(Code::BadMessage));
    // Truncated to what fits it would be this message, which is a whole one.
    let mut exact = request.clone();
    exact.argv = vec![b"true".to_vec(), Vec::new()];
    exact.argv[1] = vec![b'x'; MAX_PACKET - packet(&exact).len() - 2];
    let mut bytes = packet(&exact);
    assert_eq!(bytes.len(), MAX_PACKET);
    bytes.push(0);
    assert_eq!(Fake::daemon().send(&bytes, &STDIO).code(), Some(Code::BadMessage));
    bytes.pop();
    assert_eq!(Fake::daemon().send(&bytes, &STDIO).status(), Some(0));
    let mut again = request;
    again.job = job_id();
    runs_when_asked_properly(&again);
}

/// A memfd with these bytes, made `size` long, with these seals.
fn memfd(bytes: &[u8], size: u64, seals: SealFlags) -> OwnedFd {
    let mut file =
        File::from(memfd_create("message", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
    file.write_all(bytes).unwrap();
    file.set_len(size).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

#[test]
fn a_memfd_that_is_unsealed_huge_or_none_is_refused() {
    need_the_sandbox();
    let request = good_job("memfd");
    let bytes = packet(&request);
    let length = bytes.len() as u64;
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let with =
        |first: BorrowedFd<'_>| send(b"DPTY-MEMFD", &[first, null.as_fd(), null.as_fd(), null.as_fd()]);
    for missing in [SealFlags::SEAL, SealFlags::SHRINK, SealFlags::GROW, SealFlags::WRITE] {
        let replies = with(memfd(&bytes, length, all.difference(missing)).as_fd());
        assert_eq!(code(&replies), Some(Code::BadMessage), "without {missing:?}");
    }
    assert_eq!(code(&with(memfd(&bytes, length, SealFlags::empty()).as_fd())), Some(Code::BadMessage));
    assert_eq!(code(&with(memfd(&bytes, MAX_MEMFD as u64 + 1, all).as_fd())), Some(Code::BadMessage));
    // Sparse: it would be a million times what the machine has.
    assert_eq!(code(&with(memfd(&bytes, 1 << 50, all).as_fd())), Some(Code::BadMessage));
    assert_eq!(code(&with(memfd(&bytes, length + 1, all).as_fd())), Some(Code::BadMessage));
    assert_eq!(code(&with(memfd(&bytes, length - 1, all).as_fd())), Some(Code::BadMessage));
    assert_eq!(code(&with(memfd(b"", 0, all).as_fd())), Some(Code::BadMessage));
    assert_eq!(code(&with(null.as_fd())), Some(Code::BadMessage));
    assert_eq!(code(&with(File::open("/etc/passwd").unwrap().as_fd())), Some(Code::BadMessage));
    assert_eq!(code(&send(b"DPTY-MEMFD", &[])), Some(Code::BadMessage));
    // A memfd in a memfd is no message either.
    assert_eq!(code(&with(memfd(b"DPTY-MEMFD", 10, all).as_fd())), Some(Code::UnsupportedVersion));

    let replies = with(memfd(&bytes, length, all).as_fd());
    assert!(matches!(replies.last(), Some(LauncherReply::Job(_))), "{replies:?}");
    wait_for_no_children();
}

#[test]
fn a_job_takes_exactly_three_descriptors_of_the_right_sorts() {
    need_the_sandbox();
    let request = good_job("descriptors");
    let bytes = packet(&request);
    let refused = |descriptors: &[Descriptor]| {
        let code = Fake::daemon().send(&bytes, descriptors).code();
        assert_eq!(code, Some(Code::BadMessage), "{descriptors:?}");
    };
    for count in [0, 1, 2, 4, 7, 8, 9] {
        refused(&vec![Descriptor::Null; count]);
    }
    for wrong in [
        Descriptor::Folder,
        Descriptor::Path,
        Descriptor::Terminal,
        Descriptor::Block,
        Descriptor::Character,
        Descriptor::Pidfd,
    ] {
        for place in 0..3 {
            let mut descriptors = [Descriptor::Null; 3];
            descriptors[place] = wrong;
            refused(&descriptors);
        }
    }
    refused(&[Descriptor::WriteOnly, Descriptor::Null, Descriptor::Null]);
    refused(&[Descriptor::Null, Descriptor::ReadOnly, Descriptor::Null]);
    refused(&[Descriptor::Null, Descriptor::Null, Descriptor::ReadOnly]);
    // None of these has used up the id.
    runs_when_asked_properly(&request);
}

#[test]
fn more_descriptors_than_any_message_has_are_refused_and_closed() {
    need_the_sandbox();
    let request = good_job("many-descriptors");
    for count in [10, 16, 60, 250] {
        let (reader, writer) = std::io::pipe().unwrap();
        let replies = send(&packet(&request), &vec![writer.as_fd(); count]);
        assert_eq!(code(&replies), Some(Code::BadMessage), "{count}");
        drop(writer);
        // Nobody kept a copy: the end of file comes.
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }
    runs_when_asked_properly(&request);
}

#[test]
fn requests_that_take_no_descriptors_are_refused_with_one() {
    need_the_sandbox();
    for request in [
        LauncherRequest::Attach { job: job_id() },
        LauncherRequest::Abandon { job: job_id() },
        LauncherRequest::Forget { jobs: vec![job_id()] },
        LauncherRequest::Folders { after: None },
        LauncherRequest::Consents { application: None, after: None },
    ] {
        let answers = Fake::daemon().ask(&request, &[Descriptor::Null]);
        assert_eq!(answers.code(), Some(Code::BadMessage), "{request:?}");
        let properly = Fake::daemon().ask(&request, &[]);
        assert_ne!(properly.code(), Some(Code::BadMessage), "{request:?}: {properly:?}");
    }
    let too_many =
        LauncherRequest::Forget { jobs: (0..=deputy_core::message::MAX_FORGET).map(|_| job_id()).collect() };
    assert_eq!(Fake::daemon().ask(&too_many, &[]).code(), Some(Code::InvalidArgument));
    wait_for_no_children();
}

#[test]
fn only_the_daemon_and_root_are_heard() {
    need_the_sandbox();
    let request = good_job("peers");
    let bytes = packet(&request);
    for user in ["alice", "bob", "portal", "otherportal"] {
        assert!(Line::to_launcher(ids(user)).is_err(), "{user} could open the launcher's socket");
        // With the socket's group the file's mode is no obstacle; the uid is.
        let of_the_group = Ids { uid: ids(user).uid, gid: ids("deputy").gid };
        let answers = Fake::with(of_the_group).send(&bytes, &STDIO);
        assert_eq!(answers.code(), Some(Code::PeerNotAllowed), "{user}: {answers:?}");
    }
    // Who connected counts, not who speaks: a connection of alice's stays hers in anybody's hands.
    let hers = Line::to_launcher(Ids { uid: ids("alice").uid, gid: ids("deputy").gid }).unwrap();
    acting_as(ids("deputy"), || hers.send(&bytes, &[]));
    assert_eq!(code(&hers.rest()), Some(Code::PeerNotAllowed));
    runs_when_asked_properly(&request);
}

#[test]
fn a_client_that_says_nothing_or_vanishes_leaves_nothing_behind() {
    need_the_sandbox();
    let request = good_job("silent");
    let silent: Vec<Line> = (0..20).map(|_| Line::to_launcher(ids("deputy")).unwrap()).collect();
    // Others are served meanwhile.
    assert_eq!(Fake::daemon().run(&request).status(), Some(0));
    for _ in 0..20 {
        drop(Line::to_launcher(ids("deputy")).unwrap());
    }
    for _ in 0..20 {
        let mut unheard = request.clone();
        unheard.job = job_id();
        drop(Fake::daemon().begin(&unheard));
    }
    // Their time ends by itself, and each is told something or closed.
    for line in silent {
        let replies: Vec<LauncherReply> = line.rest();
        assert!(replies.is_empty() || code(&replies).is_some(), "{replies:?}");
    }
    wait_for_no_children();
    let mut again = request;
    again.job = job_id();
    runs_when_asked_properly(&again);
}
