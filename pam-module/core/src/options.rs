//! The words behind the module's name in a PAM service's file.

use deputy_core::{ApplicationName, RoleName};

/// The options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `application=`: whose accounts. There is no default.
    pub application: ApplicationName,
    /// `map_user`: `PAM_USER` is an account's name, and becomes the OS account that it is linked to.
    pub map_user: bool,
    /// `try_first_pass` or `use_first_pass`.
    pub first_pass: FirstPass,
    /// `require_role=`: one of these; empty: any.
    pub roles: Vec<RoleName>,
    /// `debug`: say in the log why, also where nothing is wrong.
    pub debug: bool,
}

/// What is done with a password that another module has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstPass {
    /// Nothing: the person is asked.
    Ask,
    /// It is tried; if it is wrong the person is asked.
    Try,
    /// It is the only one.
    Use,
}

/// A word that is no option, or options that do not go together. Nobody is let in by a line that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionError(pub String);

impl Options {
    /// Reads the words.
    pub fn parse(words: &[&[u8]]) -> Result<Self, OptionError> {
        let mut texts = Vec::with_capacity(words.len());
        let mut named = Vec::new();
        for word in words {
            let word = std::str::from_utf8(word).map_err(|_| OptionError("an option is no text".into()))?;
            match word.strip_prefix("application=") {
                Some(name) => named.push(name),
                None => texts.push(word),
            }
        }
        let [name] = named[..] else {
            return Err(OptionError("the option application= is needed, once".into()));
        };
        let application =
            ApplicationName::new(name).map_err(|error| OptionError(format!("application=: {error}")))?;
        let mut options = Self {
            application,
            map_user: false,
            first_pass: FirstPass::Ask,
            roles: Vec::new(),
            debug: false,
        };
        for word in texts {
            match word.split_once('=') {
                Some(("require_role", roles)) if options.roles.is_empty() => {
                    for role in roles.split(',') {
                        let role = RoleName::new(role);
                        let role = role.map_err(|error| OptionError(format!("require_role=: {error}")))?;
                        options.roles.push(role);
                    }
                }
                None if word == "map_user" => options.map_user = true,
                None if word == "debug" => options.debug = true,
                None if word == "try_first_pass" => options.set_first_pass(FirstPass::Try)?,
                None if word == "use_first_pass" => options.set_first_pass(FirstPass::Use)?,
                _ => return Err(OptionError(format!("{word:?} is no option, or is there twice"))),
            }
        }
        Ok(options)
    }

    fn set_first_pass(&mut self, first_pass: FirstPass) -> Result<(), OptionError> {
        if self.first_pass != FirstPass::Ask {
            return Err(OptionError("one of try_first_pass and use_first_pass, once".into()));
        }
        self.first_pass = first_pass;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, OptionError> {
        Options::parse(&line.split_whitespace().map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for line in [
            "",
            "map_user",
            "application=",
            "application=a/b",
            "application=demo application=demo",
            "application=demo nullok",
            "application=demo Debug",
            "application=demo debug=1",
            "application=demo map_user=no",
            "application=demo require_role=",
            "application=demo require_role=a,",
            "application=demo require_role=a require_role=b",
            "application=demo try_first_pass use_first_pass",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(Options::parse(&[b"application=demo", b"\xff"]).is_err());
    }

    #[test]
    fn all_options_are_read() {
        let options =
            parse("application=demo map_user use_first_pass require_role=user,administrator debug").unwrap();
        assert_eq!(options.application.as_str(), "demo");
        assert!(options.map_user && options.debug);
        assert_eq!(options.first_pass, FirstPass::Use);
        assert_eq!(options.roles.iter().map(RoleName::as_str).collect::<Vec<_>>(), ["user", "administrator"]);
        assert_eq!(parse("application=demo try_first_pass").unwrap().first_pass, FirstPass::Try);
        assert_eq!(parse("application=demo").unwrap().first_pass, FirstPass::Ask);
    }

    /// The manual page has a paragraph for each option, and each is one.
    #[test]
    fn the_manual_page_has_every_option_and_no_other() {
        let page = include_str!("../../../man/pam_deputy.8");
        let (_, section) = page.split_once(".SH OPTIONS\n").unwrap();
        let (section, _) = section.split_once("\n.SH ").unwrap();
        let lines: Vec<&str> = section.lines().collect();
        let told = lines.windows(2).filter(|two| two[0] == ".TP").filter_map(|two| two[1].split(' ').nth(1));
        let mut told: Vec<&str> = told.collect();
        told.sort_unstable();
        // One for each field; of `first_pass` two.
        let Options { application: _, map_user: _, first_pass: _, roles: _, debug: _ } =
            parse("application=demo").unwrap();
        assert_eq!(
            told,
            ["application=", "debug", "map_user", "require_role=", "try_first_pass", "use_first_pass"]
        );
        for word in told.into_iter().filter(|word| *word != "application=") {
            let word = if word.ends_with('=') { format!("{word}user") } else { word.to_owned() };
            assert!(parse(&format!("application=demo {word}")).is_ok(), "{word}");
        }
    }
}
