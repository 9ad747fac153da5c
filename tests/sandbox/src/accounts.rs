//! The private account files, written as lines: one `useradd` per person would cost more than all the rest.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::options::User;

/// The daemon's system account, and its group.
pub const DEPUTY: &str = "deputy";

/// The first person's uid, and the first made group's gid. Far apart, so that a test that mixes them up fails.
const FIRST_PERSON: u32 = 1001;
const FIRST_GROUP: u32 = 2001;

/// The account files of a sandbox, before they are written.
#[derive(Debug, Default)]
pub struct Accounts {
    passwd: Vec<Entry>,
    group: Vec<Group>,
}

/// One line of passwd.
#[derive(Debug, Clone)]
struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    text: String,
}

/// One line of group.
#[derive(Debug, Clone)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// The host's system accounts. Its people, and a Deputy installed there, are left out, so that a sandbox is
    /// the same on every machine and no name or uid given on the command line is taken.
    pub fn of_host(passwd: &str, group: &str) -> Self {
        let mut accounts = Self::default();
        for line in passwd.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { continue };
            let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { continue };
            if system_id(uid) && system_id(gid) && name != DEPUTY {
                accounts.passwd.push(Entry { name: name.into(), uid, gid, text: line.into() });
            }
        }
        for line in group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members] = fields[..] else { continue };
            let Ok(gid) = gid.parse() else { continue };
            if system_id(gid) && name != DEPUTY {
                let members = members
                    .split(',')
                    .filter(|member| accounts.uid(member).is_some())
                    .map(str::to_owned)
                    .collect();
                accounts.group.push(Group { name: name.into(), gid, members });
            }
        }
        accounts
    }

    /// Adds the daemon's account and those of the command line.
    pub fn add(&mut self, users: &[User]) -> Result<()> {
        self.add_system(DEPUTY)?;
        let mut person = FIRST_PERSON;
        for user in users {
            ensure!(
                self.uid(&user.name).is_none() && self.gid(&user.name).is_none(),
                "--user {}: a system account or group of this machine, or another --user, has this name; take another",
                user.name
            );
            if user.service {
                self.add_system(&user.name)?;
            } else {
                let home = format!("/home/{}", user.name);
                self.push(&user.name, person, &home, "/bin/bash");
                person += 1;
            }
        }
        // Groups after all accounts: a group may be another person's own.
        for user in users {
            for group in &user.groups {
                self.join(&user.name, group);
            }
        }
        Ok(())
    }

    /// A name's uid.
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.passwd.iter().find(|entry| entry.name == name).map(|entry| entry.uid)
    }

    /// A group's gid.
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.group.iter().find(|group| group.name == name).map(|group| group.gid)
    }

    fn add_system(&mut self, name: &str) -> Result<()> {
        let used: BTreeSet<u32> =
            self.passwd.iter().flat_map(|e| [e.uid, e.gid]).chain(self.group.iter().map(|g| g.gid)).collect();
        let Some(id) = (101..1000).rev().find(|id| !used.contains(id)) else {
            bail!("no free system uid for {name}");
        };
        self.push(name, id, "/nonexistent", "/usr/sbin/nologin");
        Ok(())
    }

    fn push(&mut self, name: &str, id: u32, home: &str, shell: &str) {
        let text = format!("{name}:x:{id}:{id}::{home}:{shell}");
        self.passwd.push(Entry { name: name.into(), uid: id, gid: id, text });
        self.group.push(Group { name: name.into(), gid: id, members: Vec::new() });
    }

    fn join(&mut self, user: &str, group: &str) {
        if self.gid(group).is_none() {
            let gid = self.group.iter().map(|g| g.gid).filter(|gid| !system_id(*gid)).max();
            let gid = gid.map_or(FIRST_GROUP, |gid| FIRST_GROUP.max(gid + 1));
            self.group.push(Group { name: group.into(), gid, members: Vec::new() });
        }
        for entry in &mut self.group {
            if entry.name == group && !entry.members.iter().any(|member| member == user) {
                entry.members.push(user.into());
            }
        }
    }

    /// Writes passwd, group, shadow, gshadow, subuid and subgid below `etc`, over copies of the host's: their
    /// owners and modes stay. Every password is locked; see [`set_passwords`].
    pub fn write(&self, etc: &Path) -> Result<()> {
        let people = |line: &dyn Fn(&Entry) -> String| self.passwd.iter().map(line).collect::<String>();
        let groups = |line: &dyn Fn(&Group) -> String| self.group.iter().map(line).collect::<String>();
        for (name, text) in [
            ("passwd", people(&|entry| format!("{}\n", entry.text))),
            ("shadow", people(&|entry| format!("{}:*:19000:0:99999:7:::\n", entry.name))),
            (
                "group",
                groups(&|group| format!("{}:x:{}:{}\n", group.name, group.gid, group.members.join(","))),
            ),
            ("gshadow", groups(&|group| format!("{}:*::{}\n", group.name, group.members.join(",")))),
        ] {
            let path = etc.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        for name in ["subuid", "subgid"] {
            fs::write(etc.join(name), "")?;
        }
        Ok(())
    }

    /// Makes each person's home in `home`, 0700, with what `skel` has.
    pub fn make_homes(&self, users: &[User], home: &Path, skel: &Path) -> Result<()> {
        for user in users.iter().filter(|user| !user.service) {
            let directory = home.join(&user.name);
            let owner = self.uid(&user.name);
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&directory)
                .with_context(|| directory.display().to_string())?;
            for entry in fs::read_dir(skel).into_iter().flatten() {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    let copy = directory.join(entry.file_name());
                    fs::copy(entry.path(), &copy)?;
                    chown(&copy, owner, owner)?;
                }
            }
            chown(&directory, owner, owner)?;
        }
        Ok(())
    }
}

/// Below 1000, one of those that Debian gives to packages (its policy, 9.2.2), or nobody.
fn system_id(id: u32) -> bool {
    id < 1000 || (60_000..65_000).contains(&id) || id == 65534
}

/// Sets all passwords with one `chpasswd`, by the machine's own PAM stack and method. Runs inside.
pub fn set_passwords(users: &[User]) -> Result<()> {
    let mut lines = String::new();
    for user in users.iter().filter(|user| !user.password.is_empty()) {
        lines.extend([&user.name, ":", &user.password, "\n"]);
    }
    if lines.is_empty() {
        return Ok(());
    }
    let mut child = Command::new("/usr/sbin/chpasswd").stdin(Stdio::piped()).spawn().context("chpasswd")?;
    child.stdin.take().context("chpasswd's stdin")?.write_all(lines.as_bytes()).context("chpasswd")?;
    let status = child.wait()?;
    ensure!(status.success(), "chpasswd failed ({status}); its message is above");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nmessagebus:x:999:998::/:/x\n\
        deputy:x:500:500::/:/x\nme:x:1000:1000::/home/me:/bin/bash\nnobody:x:65534:65534::/:/x\n+::::::\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:me,root\nme:x:1000:\ndeputy:x:500:\nnogroup:x:65534:\n";

    fn accounts(users: &[&str]) -> Result<Accounts> {
        let users: Vec<User> = users.iter().map(|user| user.parse().unwrap()).collect();
        let mut accounts = Accounts::of_host(PASSWD, GROUP);
        accounts.add(&users)?;
        Ok(accounts)
    }

    #[test]
    fn the_host_s_people_and_its_deputy_are_left_out() {
        let accounts = accounts(&[]).unwrap();
        assert_eq!(accounts.uid("me"), None);
        assert_eq!(accounts.uid("nobody"), Some(65534));
        // 999 is a uid, 998 a gid in use: the next free number serves as both.
        assert_eq!((accounts.uid("deputy"), accounts.gid("deputy")), (Some(997), Some(997)));
        let sudo = accounts.group.iter().find(|g| g.name == "sudo").unwrap();
        assert_eq!(sudo.members, ["root"]);
    }

    #[test]
    fn people_services_and_groups_get_ids_in_order() {
        let accounts = accounts(&["alice:x:lab1,bob", "service/portal", "bob:y:lab2,sudo"]).unwrap();
        assert_eq!((accounts.uid("alice"), accounts.uid("bob")), (Some(1001), Some(1002)));
        assert_eq!((accounts.gid("lab1"), accounts.gid("lab2")), (Some(2001), Some(2002)));
        assert_eq!(accounts.uid("portal"), Some(996));
        let members = |name: &str| accounts.group.iter().find(|g| g.name == name).unwrap().members.clone();
        assert_eq!(members("bob"), ["alice"]);
        assert_eq!(members("sudo"), ["root", "bob"]);
    }

    #[test]
    fn taken_names_are_refused() {
        assert!(accounts(&["root:x"]).is_err());
        assert!(accounts(&["sudo:x"]).is_err());
        assert!(accounts(&["alice:x", "alice:y"]).is_err());
        assert!(accounts(&["deputy:x"]).is_err());
    }
}
