//! What a check finds: code, severity, message, remedy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::denial::Denial;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// It works, but something that people expect will not.
    Warning,
    /// It does not work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// A stable word in kebab case, listed in the documentation.
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence in words.
    pub message: String,
    /// What to do about it, or empty.
    pub remedy: String,
}

impl Finding {
    /// A finding without a remedy.
    pub fn new(code: impl Into<String>, severity: Severity, message: impl Into<String>) -> Self {
        Self { code: code.into(), severity, message: message.into(), remedy: String::new() }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

/// A refusal seen by a check is an error finding; its code is the refusal's in kebab case.
impl From<Denial> for Finding {
    fn from(denial: Denial) -> Self {
        let mut code = String::new();
        for c in denial.code.as_str().chars() {
            if c.is_ascii_uppercase() && !code.is_empty() {
                code.push('-');
            }
            code.push(c.to_ascii_lowercase());
        }
        Self { code, severity: Severity::Error, message: denial.message, remedy: denial.remedy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denial::Code;

    #[test]
    fn a_refusal_becomes_an_error_finding_of_the_same_words() {
        let denial =
            Denial::new(Code::OsAccountOutOfRange, "min_uid", "uid 5 is below 1000").remedy("choose another");
        let finding = Finding::from(denial);
        assert_eq!(finding.code, "os-account-out-of-range");
        assert_eq!(finding.severity, Severity::Error);
        assert_eq!(finding.remedy, "choose another");
    }
}
