//! A file server that no longer knows what is open (`ESTALE`): asked anew, and told where that does not help.
//!
//! The server is a double that speaks FUSE; the stale handles are the kernel's own, from its look-ups to its `fsync(2)`.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use deputy_core::Code;
use deputy_core::message::MAX_OPEN;
use deputy_suite::client::{Client, Options, on_bus};
use deputy_suite::files::{Ended, FileAgent, files_of, stat};
use deputy_suite::machine::{add_service_user, install_application, signal, wait_until};
use deputy_suite::people::ok;
use deputy_suite::portal::flags;
use deputy_suite::requests::grant_in;
use deputy_suite::{deputyctl, need_the_sandbox, skip};

const SERVER: &str = include_str!("../clients/forgetful_fs.py");
const MOUNT: &str = "/data/forgetful";
const FILE: &str = "/data/forgetful/root/file";
const USER: &str = "forgetfuluser";

struct Server(Child);

impl Server {
    /// None where this kernel has no FUSE.
    fn start() -> Option<Self> {
        need_the_sandbox();
        if !Path::new("/dev/fuse").exists() {
            return None;
        }
        fs::create_dir_all(MOUNT).expect("the mount point");
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", SERVER, MOUNT])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Some(Self(child))
    }

    fn forgets(&self) {
        let before = fs::read_to_string(FILE).expect("there before");
        let inode = || rustix::fs::stat(FILE).map(|found| found.st_ino);
        let was = inode();
        signal(i32::try_from(self.0.id()).expect("a pid"), "USR1");
        wait_until("it has forgotten", || inode() != was);
        assert_eq!(fs::read_to_string(FILE).expect("and there afterwards"), before);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", MOUNT]).status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens the file; the handle of one that is kept.
fn open(options: Options) -> (File, String) {
    on_bus(USER, async |client: Client| {
        let (file, handle): (zbus::OwnedFd, String) =
            client.call("Files.Open", &("ada", FILE.as_bytes(), options)).await.expect("a file");
        (File::from(OwnedFd::from(file)), handle)
    })
}

#[test]
fn a_stale_handle_is_opened_anew_once_and_then_told() {
    let Some(server) = Server::start() else {
        return skip("a_stale_handle_is_opened_anew_once_and_then_told: there is no /dev/fuse");
    };
    add_service_user(USER);
    install_application(
        "forgetful",
        "service_user = \"forgetfuluser\"\ntrust = \"application\"\n\
         [[roots]]\npath = \"/data/forgetful/root\"\naccess = \"read-write\"\n",
    );
    wait_until("the application is known", || {
        deputyctl(USER, &["account", "add", "forgetful", "ada"]).status == 0
    });
    grant_in("forgetful", "ada", "alice");
    ok(&deputyctl(USER, &["link", "request", "forgetful", "ada", "alice"]));

    // An agent says that it has done nothing, and ends: another one opens the root by its path.
    let agent = FileAgent::start(&files_of("forgetful", "ada", "alice")).expect("an agent");
    assert_eq!(agent.read(FILE), Ok("text".to_owned()));
    server.forgets();
    assert_eq!(agent.call(&stat(FILE)), Ended::Stale(Code::FileError));
    assert_eq!(agent.call(&stat(FILE)), Ended::Gone);

    // Nobody who calls sees any of it,
    let (channel,): (zbus::OwnedFd,) = on_bus(USER, async |client: Client| {
        client.call("Files.Channel", &("ada", Options::new())).await.expect("a channel")
    });
    for _ in 0..2 {
        let mut text = String::new();
        open(Options::new()).0.read_to_string(&mut text).expect("read");
        assert_eq!(text, "text");
        server.forgets();
        deputy_wire::send(&channel, format!("{FILE}\0").as_bytes(), &[]).expect("sent");
        let answer = deputy_wire::receive_up_to(&channel, MAX_OPEN).expect("an answer").expect("an answer");
        assert_eq!((&answer.bytes[..], answer.descriptors.len()), (&br#"{"results":[null]}"#[..], 1));
        server.forgets();
    }
    // but of what was written and is not known to be on the disk, since that cannot be done once more.
    let (mut file, handle) = open(flags(&["write", "keep"]));
    file.write_all(b"more").expect("written");
    let (_, other) = open(flags(&["write", "keep"]));
    server.forgets();
    for handle in [handle, other] {
        let lost = on_bus(USER, async |client: Client| {
            client.call::<_, ()>("Files.Commit", &("ada", handle, Options::new())).await
        });
        assert_eq!(lost.expect_err("lost").code(), "FileError");
    }
    // What stays so is told, with the kernel's word.
    let refused = deputyctl(USER, &["file", "cat", "--account", "ada", "/data/forgetful/root/lost"]);
    assert_ne!(refused.status, 0);
    assert!(refused.stderr.contains("FileError") && refused.stderr.contains("ESTALE"), "{}", refused.stderr);
}
