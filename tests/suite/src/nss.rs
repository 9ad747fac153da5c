//! The module `libnss_deputy.so.2` in the sandbox: put where glibc finds it, with a map, first in nsswitch.conf, and
//! with both daemons dead.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::machine;

/// Accounts `pool00000` and on, with uids and gids from 60000.
pub const ACCOUNTS: u32 = 3000;
/// Those of them whose groups are their own and `all`, no project's.
pub const PLAIN: u32 = 2000;
/// The ranges that the map is made with.
pub const RANGES: [&str; 2] = ["60000-69999", "59000-69999"];
/// Everything that the tests need lies here; private to the sandbox.
pub const FOLDER: &str = "/srv/nss";

/// The built programs' folder, wherever cargo has put it.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program's path");
    test.ancestors().nth(2).expect("target/debug").join(name)
}

/// The module as it is installed.
pub fn module() -> String {
    format!("{FOLDER}/lib/libnss_deputy.so.2")
}

/// The probe, a program in C.
pub fn probe() -> String {
    format!("{FOLDER}/probe")
}

/// Puts everything in its place, once.
pub fn install() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        crate::need_the_sandbox();
        fs::create_dir_all(format!("{FOLDER}/lib")).expect("a folder");
        fs::copy(built("libnss_deputy.so"), module()).expect("the module: cargo build --workspace makes it");
        compile();
        write_data();
        fs::write("/etc/ld.so.conf.d/deputy-test.conf", format!("{FOLDER}/lib\n"))
            .expect("the loader's folders");
        machine::run("ldconfig", &[]);
        let [uids, gids] = RANGES;
        shell(&format!(
            "mkdir {FOLDER}/original; deputy-nss-map {uids} {gids} {FOLDER}/passwd {FOLDER}/group {FOLDER}/original
             cp -a {FOLDER}/original/. /var/lib/deputy/nss"
        ));
        let before = fs::read_to_string("/etc/nsswitch.conf").expect("nsswitch.conf");
        let first = before
            .replace("passwd: files", "passwd: deputy files")
            .replace("\ngroup: files", "\ngroup: deputy files");
        assert!(first.contains("passwd: deputy") && first.contains("\ngroup: deputy"), "{first}");
        fs::write("/etc/nsswitch.conf", first).expect("nsswitch.conf");
        end_daemons();
    });
}

/// Both daemons, for good.
fn end_daemons() {
    for name in ["deputyd", "deputy-launcher"] {
        fs::write(format!("/run/deputy-sandbox/{name}.hold"), "").expect("the hold");
        let pid = machine::service_pid(name);
        machine::signal(pid, "KILL");
        machine::wait_until("the daemon is gone", || !Path::new(&format!("/proc/{pid}")).exists());
    }
}

fn compile() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/nss_probe.c");
    machine::run("gcc", &["-Wall", "-Wextra", "-Werror", "-O1", "-g", "-pthread", "-o", &probe(), source]);
}

/// The same data as lines for the map and, behind what is there, as files.
fn write_data() {
    let (mut passwd, mut group) = (String::new(), String::new());
    let put = |line: std::fmt::Arguments<'_>, text: &mut String| text.write_fmt(line).expect("a line");
    for project in 0..10 {
        let members: Vec<String> =
            (PLAIN..ACCOUNTS).filter(|n| n % (project + 2) == 0).map(|n| format!("pool{n:05}")).collect();
        let gid = 59000 + project;
        put(format_args!("project{project}:*:{gid}:alice,{},bob\n", members.join(",")), &mut group);
    }
    let everybody: Vec<String> = (0..ACCOUNTS).map(|n| format!("pool{n:05}")).collect();
    put(format_args!("all:*:59999:{}\n", everybody.join(",")), &mut group);
    for n in 0..ACCOUNTS {
        let id = 60000 + n;
        let gecos = if n % 3 == 0 { String::new() } else { format!("Person {n} of Zürich,Room {n}") };
        put(format_args!("pool{n:05}:*:{id}:{id}:{gecos}:/home/pool/{n}:/bin/bash\n"), &mut passwd);
        put(format_args!("pool{n:05}:*:{id}:\n"), &mut group);
    }
    for (name, text) in [("passwd", passwd), ("group", group)] {
        let there = fs::read_to_string(format!("/etc/{name}")).expect("the account files");
        fs::write(format!("{FOLDER}/{name}.files"), format!("{there}{text}")).expect("a file");
        fs::write(format!("{FOLDER}/{name}"), text).expect("a file");
    }
}

/// Runs a script of root's to a good end and returns what it printed.
pub fn shell(script: &str) -> String {
    let mut command = Command::new("/bin/bash");
    command.args(["-euc", script]).current_dir("/").stdin(Stdio::null());
    let output = crate::people::run(command);
    assert_eq!(output.status, 0, "{script}\n--- stdout\n{}\n--- stderr\n{}", output.stdout, output.stderr);
    output.stdout
}

/// The same with mounts of its own, where the map and the ranges are copies that can be changed.
pub fn shell_apart(script: &str) -> String {
    let inside = format!(
        "mount -t tmpfs none /var/lib/deputy/nss; cp -a {FOLDER}/original/. /var/lib/deputy/nss; {script}"
    );
    shell(&format!("exec unshare --mount --propagation private /bin/bash -euc {}", quoted(&inside)))
}

/// The same where nsswitch.conf has these services for accounts and groups; with `files`, the data is in files.
pub fn shell_with(services: &str, script: &str) -> String {
    let data = if services == "files" {
        format!(
            "mount --bind {FOLDER}/passwd.files /etc/passwd; mount --bind {FOLDER}/group.files /etc/group;"
        )
    } else {
        String::new()
    };
    let switch = format!("passwd: {services}\\ngroup: {services}\\nshadow: files\\n");
    shell_apart(&format!(
        "mount -t tmpfs none /mnt; printf '{switch}' > /mnt/nsswitch.conf
         mount --bind /mnt/nsswitch.conf /etc/nsswitch.conf; {data} {script}"
    ))
}

/// A word for the shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The probe's eight threads, at work until their input ends.
pub fn threads() -> Child {
    let mut child = Command::new(probe())
        .args(["threads", &PLAIN.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the probe");
    let mut line = [0; 8];
    let output = child.stdout.as_mut().expect("a pipe");
    std::io::Read::read_exact(output, &mut line).expect("'running'");
    child
}
