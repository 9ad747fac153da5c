//! A job's environment, built from nothing.

use std::ffi::CString;

use deputy_core::policy::PasswdEntry;

/// Where programs are looked for: what login gives to people on Debian (`ENV_PATH` of `/etc/login.defs`).
pub const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// The fixed base, then what PAM's modules set, then what the request sets and policy allowed; later ones win. What
/// the loader reads is never taken from PAM either.
pub fn build<'a>(
    entry: &PasswdEntry,
    from_pam: &'a [Vec<u8>],
    from_request: impl Iterator<Item = &'a [u8]>,
) -> Vec<CString> {
    let shell = if entry.shell.is_empty() { b"/bin/sh".as_slice() } else { &entry.shell };
    let base: [(&[u8], &[u8]); 5] = [
        (b"HOME", &entry.home),
        (b"LOGNAME", entry.name.as_bytes()),
        (b"PATH", SEARCH_PATH.as_bytes()),
        (b"SHELL", shell),
        (b"USER", entry.name.as_bytes()),
    ];
    let mut variables: Vec<Vec<u8>> =
        base.iter().map(|(name, value)| [name, b"=".as_slice(), value].concat()).collect();
    let from_pam = from_pam.iter().map(Vec::as_slice).filter(|variable| !variable.starts_with(b"LD_"));
    for variable in from_pam.chain(from_request) {
        let Some(at) = variable.iter().position(|&b| b == b'=').filter(|&at| at > 0) else { continue };
        let name = &variable[..=at];
        variables.retain(|other| !other.starts_with(name));
        variables.push(variable.to_vec());
    }
    // A NUL cannot get here: passwd, PAM and the policy check have none.
    variables.into_iter().filter_map(|variable| CString::new(variable).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(from_pam: &[&str], from_request: &[&str]) -> Vec<String> {
        let entry = PasswdEntry {
            name: "ann".into(),
            uid: 1001,
            gid: 1001,
            home: b"/home/ann".to_vec(),
            shell: b"/bin/bash".to_vec(),
        };
        let bytes = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        let from_request = bytes(from_request);
        let mut built: Vec<String> = build(&entry, &bytes(from_pam), from_request.iter().map(Vec::as_slice))
            .into_iter()
            .map(|variable| variable.into_string().unwrap())
            .collect();
        built.sort();
        built
    }

    #[test]
    fn nothing_but_the_base_is_there_by_itself() {
        let search_path = format!("PATH={SEARCH_PATH}");
        assert_eq!(
            of(&[], &[]),
            ["HOME=/home/ann", "LOGNAME=ann", &search_path, "SHELL=/bin/bash", "USER=ann"]
        );
    }

    #[test]
    fn later_ones_win_and_the_loaders_variables_are_dropped() {
        let built =
            of(&["PATH=/opt/bin", "LD_PRELOAD=/x", "KRB5CCNAME=FILE:/x", "=x", "y"], &["APP_A=1", "APP_A=2"]);
        assert!(built.contains(&"PATH=/opt/bin".to_owned()));
        assert!(built.contains(&"KRB5CCNAME=FILE:/x".to_owned()));
        assert!(built.contains(&"APP_A=2".to_owned()));
        assert_eq!(built.len(), 7);
    }
}
