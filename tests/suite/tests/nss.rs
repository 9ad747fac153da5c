//! `libnss_deputy.so.2` in real programs, beside `files` with the same data. Both daemons are dead.

use std::fs;
use std::process::Command;

use deputy_suite::nss::{
    FOLDER, PLAIN, RANGES, install, module, probe, shell, shell_apart, shell_with, threads,
};

/// The same script where the module answers and where `files` does; what it printed.
fn both(script: &str) -> String {
    install();
    let files = shell_with("files", script);
    let module = shell_with("files deputy", script);
    let differ = module.lines().zip(files.lines()).find(|(module, files)| module != files);
    assert_eq!(differ, None);
    assert_eq!(module.len(), files.len());
    module
}

#[test]
fn getent_answers_as_files_does() {
    let out = both("getent passwd; getent group");
    assert_eq!(out.lines().filter(|line| line.starts_with("pool")).count(), 6000);
    let out = both(&format!(
        "getent passwd $(cut -d: -f1 {FOLDER}/passwd); getent passwd $(cut -d: -f3 {FOLDER}/passwd)
         getent group $(cut -d: -f1 {FOLDER}/group); getent group $(cut -d: -f3 {FOLDER}/group)
         ! getent passwd pool99999 >/dev/null; ! getent passwd 69999 >/dev/null; ! getent group nogroups >/dev/null"
    ));
    assert_eq!(out.lines().count(), 3000 * 4 + 11 * 2);
    let out =
        both("for n in {01900..02300}; do getent initgroups pool$n; done; getent initgroups alice bob carol");
    assert!(out.lines().any(|line| line.starts_with("alice") && line.contains("59009")), "{out}");
    assert!(out.lines().any(|line| line.starts_with("pool02000") && line.ends_with("59999")), "{out}");
}

#[test]
fn id_and_ls_show_what_they_show_by_files() {
    let out = both("for n in {01900..02200}; do id pool$n; done; id alice; id carol");
    assert!(out.contains("uid=62000(pool02000) gid=62000(pool02000) groups=62000(pool02000),"), "{out}");
    let out = both(
        "mount -t tmpfs none /mnt; cd /mnt; for n in {62000..62400}; do > f$n; chown $n:$n f$n; done
         mkdir shared; chown 62001:59003 shared; touch -d @0 *; ls -l",
    );
    assert!(out.contains(" pool02001 project3 "), "{out}");
}

#[test]
fn a_buffer_of_each_size_is_too_small_or_enough_and_never_overrun() {
    install();
    let probe = probe();
    for (call, key) in [
        ("pwnam", "pool00001"),
        ("pwuid", "62001"),
        ("grnam", "pool00001"),
        ("grgid", "59003"),
        ("grnam", "all"),
    ] {
        let by_module = shell_with("deputy", &format!("{probe} sizes {call} {key}"));
        let by_files = shell_with("files", &format!("{probe} sizes {call} {key}"));
        let text = |line: &str| line.split_once(' ').expect("a size and a line").1.to_owned();
        assert_eq!(text(&by_module), text(&by_files));
    }
    // An enumeration that is asked with too small a buffer stays where it is.
    let first = shell_with("deputy", &format!("{probe} sizes pwent; {probe} sizes grent"));
    assert!(first.contains(" pool00000:*:60000:") && first.contains(" project0:*:59000:alice,"), "{first}");
}

#[test]
fn eight_threads_get_right_answers_while_the_map_is_replaced_a_thousand_times() {
    install();
    let mut child = threads();
    let [uids, gids] = RANGES;
    // Two images that say the same in other places.
    shell(&format!(
        "cp {FOLDER}/passwd {FOLDER}/longer; for n in {{0..99}}; do echo \"other$n:*:$((65000+n)):65000::/:/bin/sh\"; done >>{FOLDER}/longer
         for n in 1 2; do mkdir -p {FOLDER}/image$n; done
         deputy-nss-map {uids} {gids} {FOLDER}/passwd {FOLDER}/group {FOLDER}/image1
         deputy-nss-map {uids} {gids} {FOLDER}/longer {FOLDER}/group {FOLDER}/image2
         ! cmp -s {FOLDER}/image1/map {FOLDER}/image2/map"
    ));
    let images = [1, 2].map(|n| fs::read(format!("{FOLDER}/image{n}/map")).expect("an image"));
    for image in images.iter().cycle().take(1000) {
        fs::write("/var/lib/deputy/nss/next", image).expect("a file");
        fs::rename("/var/lib/deputy/nss/next", "/var/lib/deputy/nss/map").expect("its place");
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("the probe");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let asked: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert!(asked > 1000, "only {asked} questions");
}

#[test]
fn a_fork_in_the_middle_a_cancelled_thread_and_closed_descriptors_change_nothing() {
    install();
    let probe = probe();
    for mode in [format!("forks {PLAIN} 200"), format!("cancels {PLAIN} 400"), format!("closes {PLAIN} 400")]
    {
        let out = shell_with("deputy files", &format!("{probe} {mode}"));
        assert!(out.trim().parse::<u64>().expect("a number") > 0, "{mode}: {out}");
    }
}

#[test]
fn eight_threads_in_one_enumeration_get_each_account_once() {
    install();
    for _ in 0..5 {
        assert_eq!(shell_apart(&format!("{} once {}", probe(), module())), "3000\n");
    }
}

#[test]
fn an_enumeration_goes_on_where_it_was_when_the_map_is_replaced() {
    install();
    let [uids, gids] = RANGES;
    let out = shell_apart(&format!(
        "sed -n 'n;p' {FOLDER}/passwd > {FOLDER}/odd; /usr/bin/python3 -c '
import subprocess, ctypes
c = ctypes.CDLL(None)
c.getpwent.restype = ctypes.c_void_p
class Passwd(ctypes.Structure):
    _fields_ = [(\"name\", ctypes.c_char_p)]
def name():
    entry = c.getpwent()
    return Passwd.from_address(entry).name.decode() if entry else \"\"
c.setpwent()
seen = [name() for n in range(1000)]
subprocess.run([\"deputy-nss-map\", \"{uids}\", \"{gids}\", \"{FOLDER}/odd\", \"{FOLDER}/group\"], check=True)
while (entry := name()).startswith(\"pool\"): seen.append(entry)
print(len(seen), len(set(seen)), seen[999], seen[1000], seen[-1])
'"
    ));
    // Of the second thousand and the third those with odd numbers.
    assert_eq!(out, "2000 2000 pool00999 pool01001 pool02999\n");
}

/// The six statuses that the module gives after this was done to its files, and why.
fn statuses(script: &str) -> String {
    install();
    let show = format!("{} status {} pool00000", probe(), module());
    let as_root = shell_apart(&format!("cd /var/lib/deputy/nss; {script}; {show}"));
    let as_alice = shell_apart(&format!("cd /var/lib/deputy/nss; {script}; setpriv --reuid=1001 {show}"));
    assert_eq!(as_root, as_alice, "{script}");
    as_root.trim().to_owned()
}

#[test]
fn a_file_that_is_not_as_it_should_be_is_no_service() {
    assert_eq!(statuses("true"), "1 1 1 1 1 1 -");
    for (script, why) in [
        ("rm map", "ENOENT"),
        ("rm range", "ENOENT"),
        ("chown alice map", "EPERM"),
        ("chown alice range", "EPERM"),
        ("chmod g+w map", "EPERM"),
        ("chmod o+w range", "EPERM"),
        ("cp map /var/tmp/map; ln -sf /var/tmp/map map", "ELOOP"),
        ("rm map; mkfifo map", "EPERM"),
        ("rm map; mkdir map", "EPERM"),
        ("rm range; mkfifo range", "EPERM"),
        (": > map", "EBADMSG"),
        ("truncate -s 100 map", "EBADMSG"),
        ("truncate -s -1 map", "EBADMSG"),
        ("truncate -s +1 map", "EBADMSG"),
        ("head -c 4096 /dev/zero > map", "EBADMSG"),
        ("printf '\\002' | dd of=map bs=1 seek=8 conv=notrunc status=none", "EOPNOTSUPP"),
        ("printf '\\377' | dd of=map bs=1 seek=30 conv=notrunc status=none", "EBADMSG"),
        (": > range", "EBADMSG"),
        ("sed -i 's/range 1/range 2/' range", "EBADMSG"),
        ("sed -i 's/^uid 60000/uid 0/' range", "EBADMSG"),
        ("head -c -1 range > r; cat r > range", "EBADMSG"),
        ("head -c 4096 /dev/zero >> range", "EBADMSG"),
    ] {
        assert_eq!(statuses(script), format!("-1 -1 -1 -1 -1 -1 {why}"), "{script}");
    }
}

#[test]
fn damage_behind_the_header_is_noticed_by_who_would_believe_it() {
    // Everything behind the header: no table and no record is what it was.
    let out = statuses(
        "size=$(stat -c %s map); head -c 272 map > m; head -c $((size - 272)) /dev/urandom >> m; cat m > map; rm m",
    );
    assert_eq!(out, "-1 -1 1 -1 -1 -1 EBADMSG", "setpwent looks at the header only");
}

#[test]
fn nothing_outside_the_range_is_answered_whatever_the_map_says() {
    install();
    let out = shell_apart(
        "printf 'deputy-nss-range 1\\nuid 60001 60002\\ngid 59000 60001\\n' > /var/lib/deputy/nss/range
         getent -s deputy passwd; getent -s deputy group | cut -d: -f1,3; for n in 60000 60002 60003; do
             ! getent -s deputy passwd $n; ! getent -s deputy group pool0000${n:4}; done
         getent -s deputy initgroups pool02000",
    );
    // The account 60002 has a primary group outside.
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0].split(':').next(), Some("pool00001"), "{out}");
    assert_eq!(lines[1..12].iter().filter(|line| line.starts_with("project")).count(), 10, "{out}");
    assert_eq!(lines[11..14], ["all:59999", "pool00000:60000", "pool00001:60001"], "{out}");
    // The group 60000 is inside the range of groups, the account is not inside that of accounts.
    assert!(
        lines[14..]
            .iter()
            .all(|line| line.starts_with("pool00000:*:60000:") || line.starts_with("pool02000"))
    );
    let gids = lines.last().expect("a line").split_ascii_whitespace().skip(1);
    assert!(gids.clone().count() > 1 && gids.clone().all(|gid| gid.starts_with("59")), "{out}");
    let out = shell_apart(
        "printf 'deputy-nss-range 1\\nuid 60000 60001\\ngid 60000 60001\\n' > /var/lib/deputy/nss/range
         getent -s deputy initgroups pool02000",
    );
    assert_eq!(out.split_ascii_whitespace().count(), 1, "{out}");
}

#[test]
fn what_files_has_is_never_answered_neither_by_name_nor_by_number() {
    install();
    // After the map was made; with an identity of the file in the map, and without.
    for before in
        ["true", "touch -d @1 /mnt/x; sleep 3; deputy-nss-map 60000-69999 59000-69999 $F/passwd $F/group"]
    {
        let out = shell_apart(&format!(
            "F={FOLDER}; {before}
             getent -s deputy passwd pool00001 pool00002 | cut -d: -f1
             cp /etc/passwd /mnt; cp /etc/group /mnt
             printf 'pool00001:x:4001:4001::/:/bin/sh\\nsomeone:x:60002:1::/:/bin/sh\\n' >> /mnt/passwd
             printf 'project1:x:4001:\\nothers:x:59002:\\n' >> /mnt/group
             mount --bind /mnt/passwd /etc/passwd; mount --bind /mnt/group /etc/group
             ! getent -s deputy passwd pool00001; ! getent -s deputy passwd 60001
             ! getent -s deputy passwd pool00002; ! getent -s deputy passwd 60002
             ! getent -s deputy group project1; ! getent -s deputy group 59001
             ! getent -s deputy group project2; ! getent -s deputy group 59002
             getent -s deputy passwd | grep -c '^pool'; getent -s deputy group | grep -c '^project'
             getent -s deputy initgroups alice; getent -s deputy passwd pool00003 | cut -d: -f1"
        ));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..4], ["pool00001", "pool00002", "2998", "8"], "{out}");
        assert!(lines[4].contains(" 59000 ") && lines[4].contains(" 59003 "), "{out}");
        assert!(!lines[4].contains(" 59001") && !lines[4].contains(" 59002"), "{out}");
        assert_eq!(lines[5], "pool00003");
    }
}

#[test]
fn a_bus_starts_and_knows_the_groups_with_both_daemons_dead() {
    install();
    let out = shell(&format!(
        "mkdir -p {FOLDER}/bus; chmod 777 {FOLDER}/bus; cat > {FOLDER}/bus.conf <<'END'
<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"
 \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">
<busconfig>
  <type>system</type>
  <user>messagebus</user>
  <listen>unix:path={FOLDER}/bus/socket</listen>
  <policy context=\"default\">
    <allow user=\"*\"/><deny own=\"*\"/><allow send_destination=\"org.freedesktop.DBus\"/>
    <allow receive_sender=\"org.freedesktop.DBus\"/><allow send_requested_reply=\"true\" send_type=\"method_return\"/>
    <allow send_requested_reply=\"true\" send_type=\"error\"/>
  </policy>
  <policy group=\"project0\"><allow own=\"test.Project\"/></policy>
  <policy user=\"pool00001\"><allow own=\"test.Pool\"/></policy>
</busconfig>
END
         dbus-daemon --config-file={FOLDER}/bus.conf --nofork --print-address=3 3>{FOLDER}/bus/address &
         bus=$!
         until [ -s {FOLDER}/bus/address ]; do kill -0 $bus; sleep 0.05; done
         own='import dbus.bus, sys
try:
    print(dbus.bus.BusConnection(\"unix:path={FOLDER}/bus/socket\").request_name(sys.argv[1]))
except dbus.DBusException as error:
    print(error.get_dbus_name().rsplit(\".\", 1)[1])'
         for who in pool00001 pool02000 pool02001 alice carol; do
             for name in test.Project test.Pool; do
                 echo $who $name $(setpriv --reuid=$who --regid=1 --init-groups /usr/bin/python3 -c \"$own\" $name 2>&1)
             done
         done
         kill $bus"
    ));
    let owners: Vec<&str> = out.lines().filter(|line| line.ends_with(" 1")).collect();
    // project0 has those with even numbers from 2000, and alice.
    assert_eq!(
        owners,
        ["pool00001 test.Pool 1", "pool02000 test.Project 1", "alice test.Project 1"],
        "{out}"
    );
    assert_eq!(out.matches("AccessDenied").count(), 7, "{out}");
}

#[test]
fn people_log_in_with_the_module_first_and_both_daemons_dead() {
    install();
    // By su, which is setuid here and so takes no library path of the caller's.
    let own = shell("printf 'wonder\\n' | runuser -u bob -- su -c id alice");
    assert!(own.contains("uid=1001(alice)") && own.contains("59000(project0)"), "{own}");
    let denied = Command::new("/bin/bash")
        .args(["-c", "printf 'wrong\\n' | runuser -u bob -- su -c id pool00001"])
        .output()
        .expect("su");
    assert!(!denied.status.success() && denied.stdout.is_empty(), "a pool account has no password");
    let pool = shell("cd /; su -s /bin/sh -c 'id; echo $HOME; umask' pool02000");
    assert!(pool.starts_with("uid=62000(pool02000) gid=62000(pool02000) groups=62000(pool02000),"), "{pool}");
    assert!(pool.contains(",59999(all)") || pool.contains(",59000(project0)"), "{pool}");
    assert!(pool.contains("/home/pool/2000"), "{pool}");
}

#[test]
fn valgrind_finds_nothing() {
    install();
    let probe = probe();
    let valgrind = "valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite";
    shell_with(
        "deputy",
        &format!(
            "v='{valgrind}'; $v {probe} sizes pwnam pool00001; $v {probe} sizes grgid 60001; $v {probe} sizes pwent
             $v {probe} status {module} pool00000; $v {probe} closes {PLAIN} 20; $v --leak-check=no {probe} forks 30 5; sleep 2 | $v {probe} threads 30
             $v getent initgroups pool02000 alice; $v getent group all | wc -c; $v getent passwd | wc -l",
            module = module()
        ),
    );
    // Damaged ones, too.
    shell_apart(&format!(
        "cd /var/lib/deputy/nss; size=$(stat -c %s map)
         for n in 1 2 3; do head -c 272 map > m; head -c $((size - 272)) /dev/urandom >> m; cat m > map
         {valgrind} {probe} status {module} pool00000; done",
        module = module()
    ));
}

#[test]
fn the_map_tool_refuses_what_may_not_be_in_a_map() {
    install();
    for (passwd, group, why) in [
        ("root:*:60000:60000::/:/bin/sh", "", "in /etc/passwd"),
        ("alice2:*:1001:60000::/:/bin/sh", "", "in /etc/passwd"),
        ("a:*:70000:60000::/:/bin/sh", "", "outside the range"),
        ("a:*:60000:1::/:/bin/sh", "", "outside the range"),
        ("a:secret:60000:60000::/:/bin/sh", "", "expected NAME"),
        ("0:*:60000:60000::/:/bin/sh", "", "no name"),
        ("-a:*:60000:60000::/:/bin/sh", "", "no name"),
        ("a:*:60000:60000::/:/bin/sh\na:*:60001:60000::/:/bin/sh", "", "twice"),
        ("a:*:60000:60000::/:/bin/sh\nb:*:60000:60000::/:/bin/sh", "", "twice"),
        ("", "sudo:*:59000:", "in /etc/passwd or /etc/group"),
        ("", "p:*:27:alice", "in /etc/passwd or /etc/group"),
        ("", "p:*:59000:alice,alice", "twice"),
    ] {
        fs::write(format!("{FOLDER}/wrong.passwd"), passwd).expect("a file");
        fs::write(format!("{FOLDER}/wrong.group"), group).expect("a file");
        let output = Command::new("deputy-nss-map")
            .args(RANGES)
            .args([format!("{FOLDER}/wrong.passwd"), format!("{FOLDER}/wrong.group"), FOLDER.to_owned()])
            .output()
            .expect("the tool");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{passwd} {group}: {said}");
        assert!(!fs::exists(format!("{FOLDER}/map")).expect("a folder"));
    }
}
