//! Variables that come by descriptor, because their values are nobody's but the job's: they are in no message, record
//! or line of the journal.

use std::fmt;

use deputy_core::application::Application;
use deputy_core::denial::Denial;
use deputy_core::names::ApplicationName;
use deputy_core::policy;

/// Some, each `NAME=VALUE`.
#[derive(Default)]
pub struct Variables(Vec<Vec<u8>>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variables({})", self.0.len())
    }
}

impl Variables {
    /// Reads what the descriptor held: a NUL after each, which the last can do without.
    pub fn read(bytes: &[u8]) -> Result<Self, Denial> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let parts = bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|&byte| byte == 0);
        let variables: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
        match variables.iter().position(|variable| !variable.contains(&b'=')) {
            Some(at) => Err(Denial::invalid(format!(
                "variable {} of the descriptor is not written NAME=VALUE, with a NUL behind it",
                at + 1
            ))),
            None => Ok(Self(variables)),
        }
    }

    /// Whether root's list allows each of them. The refusal has no part of it: what looks like a name may be a secret
    /// that was written otherwise than it should be.
    pub fn check(&self, name: &ApplicationName, application: &Application) -> Result<(), Denial> {
        for (at, variable) in self.0.iter().enumerate() {
            if let Err(mut denial) =
                policy::check_environment(name, application, std::slice::from_ref(variable))
            {
                denial.message =
                    format!("variable {} of the descriptor is not allowed, or not with its value", at + 1);
                return Err(denial);
            }
        }
        Ok(())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ends_with_a_nul() {
        let read = |bytes: &[u8]| {
            Variables::read(bytes).map(|variables| variables.iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
        };
        let both = vec![b"A=1\n2".to_vec(), b"B=".to_vec()];
        assert_eq!(read(b"A=1\n2\0B=\0"), Ok(both.clone()));
        assert_eq!(read(b"A=1\n2\0B="), Ok(both));
        assert_eq!(read(b""), Ok(vec![]));
        for wrong in [b"A".as_slice(), b"\0", b"A=1\0\0", b"A=1\0B\0", b"A=1\0\0B=1\0"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_of_them_is_told() {
        let text = "service_user = \"portal\"\nenvironment = [\"APP_*\"]\n";
        let application = Application::parse(text).unwrap();
        let name: ApplicationName = "demo".parse().unwrap();
        let check = |bytes: &[u8]| Variables::read(bytes).unwrap().check(&name, &application);
        assert!(check(b"APP_KEY=hunter2\0APP_B=x").is_ok());
        for wrong in [b"APP_A=1\0hunter2=".as_slice(), b"hunter2=x\0", b"LD_PRELOAD=hunter2\0"] {
            let denial = check(wrong).unwrap_err();
            assert!(!format!("{denial:?}").contains("hunter2"), "{denial:?}");
        }
        assert!(Variables::read(b"hunter2").is_err_and(|denial| !format!("{denial:?}").contains("hunter2")));
        let variables = Variables::read(b"APP_KEY=hunter2").unwrap();
        assert_eq!(format!("{variables:?}"), "Variables(1)");
    }
}
