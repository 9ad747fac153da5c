//! The figures that an administrator watches: their names, and what each is. `deputyd` gives the numbers by these names,
//! `deputyctl metrics` prints them, and the administrator's guide lists them.

/// How a figure behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// It goes up only, and begins anew when `deputyd` is started.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Sort {
    /// As `OpenMetrics` calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Counter => "counter",
            Sort::Gauge => "gauge",
        }
    }
}

/// A figure, or several of one name that differ in their labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name, without the `_total` of a counter.
    pub name: &'static str,
    /// How it behaves.
    pub sort: Sort,
    /// What it is, in words.
    pub help: &'static str,
}

macro_rules! families {
    ($($(#[doc = $help:literal])+ $constant:ident = $name:literal, $sort:ident;)*) => {
        $(
            $(#[doc = $help])+
            pub const $constant: Family =
                Family { name: $name, sort: Sort::$sort, help: concat!($($help),+).trim_ascii() };
        )*
        /// All of them, in the order in which they are shown.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    /// The version of deputyd, which is always 1.
    INFO = "deputy_version", Gauge;
    /// Applications whose file is valid, or is not.
    APPLICATIONS = "deputy_applications", Gauge;
    /// Accounts by application and status.
    ACCOUNTS = "deputy_accounts", Gauge;
    /// Sessions that are open, by application.
    SESSIONS = "deputy_sessions", Gauge;
    /// Jobs that have not ended, by application and state.
    JOBS = "deputy_jobs", Gauge;
    /// Jobs that wait for room on this machine.
    WAITING = "deputy_jobs_waiting", Gauge;
    /// Jobs whose program was started.
    LAUNCHES = "deputy_launches", Counter;
    /// Jobs that are over, by what became of them: exited, failed, signaled, launch-failed, abandoned, lost.
    ENDS = "deputy_job_ends", Counter;
    /// Calls that were refused, by code.
    REFUSALS = "deputy_refusals", Counter;
    /// Records of the ledger.
    LEDGER_RECORDS = "deputy_ledger_records", Gauge;
    /// Size of the ledger on disk.
    LEDGER_BYTES = "deputy_ledger_bytes", Gauge;
    /// Whether the launcher answers.
    LAUNCHER = "deputy_launcher_up", Gauge;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_plain() {
        let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        // The suffix is added to counters when they are shown.
        assert!(names.iter().all(|name| name.starts_with("deputy_") && !name.ends_with("_total")));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
        assert!(FAMILIES.iter().all(|family| family.help.ends_with('.') && !family.help.contains('\n')));
    }
}
