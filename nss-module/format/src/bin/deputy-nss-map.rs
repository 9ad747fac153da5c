//! `deputy-nss-map`: makes a map from lines as in `/etc/passwd` and `/etc/group`, for tests and for trying things out.
//!
//! It is not installed: on a real machine the launcher's children write the map.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use deputy_nss_format::{
    Account, Content, FilesIdentity, Group, MAP, RANGE, Range, Ranges, Taken, image, layout::Seed,
};

const USAGE: &str = "usage: deputy-nss-map UIDS GIDS PASSWD GROUP [FOLDER]

Writes /var/lib/deputy/nss/map and range, or FOLDER/map and range, from two files with lines as in /etc/passwd and
/etc/group. UIDS and GIDS are ranges, FIRST-LAST. A password field has to be '*'.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [uids, gids, passwd, group] => run(uids, gids, passwd, group, None),
        [uids, gids, passwd, group, folder] => run(uids, gids, passwd, group, Some(folder)),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("deputy-nss-map: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    uids: &str,
    gids: &str,
    passwd: &str,
    group: &str,
    folder: Option<&str>,
) -> Result<(), Box<dyn Error>> {
    let ranges = Ranges { uid: uids.parse::<Range>()?, gid: gids.parse::<Range>()? };
    let accounts = fs::read_to_string(passwd).map_err(|error| format!("{passwd}: {error}"))?;
    let groups = fs::read_to_string(group).map_err(|error| format!("{group}: {error}"))?;
    let content = Content {
        accounts: accounts.lines().map(account).collect::<Result<_, _>>()?,
        groups: groups.lines().map(self::group).collect::<Result<_, _>>()?,
        taken_accounts: taken("/etc/passwd")?,
        taken_groups: taken("/etc/group")?,
    };
    let mut seed = Seed::default();
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let map = image(&content, &ranges, seed)?;
    let folder = folder.map(Path::new);
    let place = |fixed: &str, name: &str| folder.map_or_else(|| fixed.into(), |folder| folder.join(name));
    replace(&place(RANGE, "range"), ranges.encode().as_bytes())?;
    replace(&place(MAP, "map"), &map)
}

fn account(line: &str) -> Result<Account, String> {
    let fields: Vec<&str> = line.split(':').collect();
    let &[name, "*", uid, gid, gecos, home, shell] = &fields[..] else {
        return Err(format!("'{line}': expected NAME:*:UID:GID:GECOS:HOME:SHELL"));
    };
    let number = |text: &str| text.parse().map_err(|_| format!("'{line}': '{text}' is no number"));
    Ok(Account {
        name: name.into(),
        uid: number(uid)?,
        gid: number(gid)?,
        gecos: gecos.into(),
        home: home.into(),
        shell: shell.into(),
    })
}

fn group(line: &str) -> Result<Group, String> {
    let fields: Vec<&str> = line.split(':').collect();
    let &[name, "*", gid, members] = &fields[..] else {
        return Err(format!("'{line}': expected NAME:*:GID:MEMBER,..."));
    };
    let gid = gid.parse().map_err(|_| format!("'{line}': '{gid}' is no number"))?;
    let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
    Ok(Group { name: name.into(), gid, members })
}

/// What `files` has.
fn taken(path: &str) -> Result<Taken, Box<dyn Error>> {
    let mut file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let identity = FilesIdentity::settled(&file.metadata()?, SystemTime::now());
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(Taken::from_text(&text, identity))
}

/// Puts a file in its place in one step.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let beside = path.with_extension(format!("new{}", std::process::id()));
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| format!("{}: {error}", path.display()).into())
}
