//! Trees that go from one OS account to another: asked for at the launcher, and what a tree is like.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use deputy_core::message::{LauncherReply, LauncherRequest, RebindReply, RebindRequest};
use deputy_core::rebind::{NamedGroup, NamedUser, Problem, ProblemKind, RebindEnd, RebindPlan, RebindState};
use deputy_core::{Denial, RebindId};

use crate::fake::Fake;
use crate::machine::run;

/// Where the records are.
pub const RECORDS: &str = "/var/lib/deputy/rebind";

/// One at a time is moved on a machine, so one test at a time has the turn.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    crate::need_the_sandbox();
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was heard of a request: everything that was said about entries, and the last answer.
#[derive(Debug)]
pub struct Heard {
    /// What was said about entries.
    pub problems: Vec<Problem>,
    /// The last answer, or the refusal.
    pub last: Result<RebindReply, Denial>,
}

impl Heard {
    /// The kinds of what was said, with the paths, in the order of paths.
    pub fn told(&self) -> Vec<(ProblemKind, String)> {
        let mut told: Vec<_> = self
            .problems
            .iter()
            .map(|problem| (problem.kind, String::from_utf8_lossy(&problem.path).into_owned()))
            .collect();
        told.sort_by(|a, b| a.1.cmp(&b.1));
        told
    }

    /// How it ended, which has to be well.
    pub fn ended(&self) -> RebindEnd {
        match &self.last {
            Ok(RebindReply::Ended(ended)) => *ended,
            other => panic!("{other:?}: {:?}", self.problems),
        }
    }

    /// The refusal.
    pub fn refused(self) -> Denial {
        self.last.expect_err("a refusal")
    }
}

/// Asks as somebody.
pub fn ask_as(user: &str, request: RebindRequest) -> Heard {
    let answers = Fake::as_user(user).ask(&LauncherRequest::Rebind(request), &[]);
    heard(answers.replies)
}

/// What replies say.
pub fn heard(replies: Vec<LauncherReply>) -> Heard {
    let mut problems = Vec::new();
    let mut last = None;
    for reply in replies {
        match reply {
            LauncherReply::Rebind(RebindReply::Problems(more)) => problems.extend(more),
            LauncherReply::Rebind(RebindReply::Progress { .. }) => {}
            LauncherReply::Rebind(reply) => last = Some(Ok(reply)),
            LauncherReply::Denied(denial) => last = Some(Err(denial)),
            other => panic!("{other:?}"),
        }
    }
    Heard { problems, last: last.expect("an answer") }
}

/// A tree, and what is to become of it.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The tree.
    pub path: &'a str,
    /// Whose files.
    pub from: &'a [&'a str],
    /// To whom.
    pub to: &'a str,
    /// Groups that become others.
    pub groups: &'a [(&'a str, &'a str)],
    /// Whether files with names elsewhere are left.
    pub leave_linked: bool,
}

impl<'a> Wanted<'a> {
    /// From one account to another.
    pub fn new(path: &'a str, from: &'a [&'a str], to: &'a str) -> Self {
        Self { path, from, to, groups: &[], leave_linked: false }
    }

    /// Asks for the plan.
    pub fn ask(&self) -> Heard {
        let user = |name: &&str| name.parse::<NamedUser>().expect("a user");
        let group = |name: &str| name.parse::<NamedGroup>().expect("a group");
        ask_as(
            "root",
            RebindRequest::Plan {
                path: self.path.as_bytes().to_vec(),
                from: self.from.iter().map(user).collect(),
                to: self.to.parse().expect("a user"),
                groups: self.groups.iter().map(|(old, new)| (group(old), group(new))).collect(),
                leave_linked: self.leave_linked,
            },
        )
    }

    /// Asks for the plan, which has to be made.
    pub fn plan(&self) -> (RebindPlan, Heard) {
        let heard = self.ask();
        match &heard.last {
            Ok(RebindReply::Planned(plan)) => ((**plan).clone(), heard),
            other => panic!("{other:?}: {:?}", heard.problems),
        }
    }
}

/// Carries a plan out.
pub fn apply(id: &RebindId) -> Heard {
    ask_as("root", RebindRequest::Apply { id: id.clone(), while_running: false })
}

/// Puts everything back.
pub fn undo(id: &RebindId) -> Heard {
    ask_as("root", RebindRequest::Undo { id: id.clone(), while_running: false })
}

/// How far a plan is.
pub fn state(id: &RebindId) -> RebindState {
    match ask_as("root", RebindRequest::Show { id: id.clone() }).last {
        Ok(RebindReply::Found { state, .. }) => state,
        other => panic!("{other:?}"),
    }
}

/// Runs lines of a shell as root; they have to succeed.
pub fn shell(script: &str) {
    run("sh", &["-ec", script]);
}

/// Everything of a tree: each entry's path, owner, group, mode, type and links, and each access list.
pub fn listing(top: &str) -> String {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(top).output();
        let output = output.expect("a program; tests/packages.sh installs what is missing");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let entries = output("find", &[".", "-printf", "%p %U %G %m %y %n %l\\0"]);
    let mut entries: Vec<&str> = entries.split('\0').collect();
    entries.sort_unstable();
    let mut text = String::new();
    for entry in entries {
        writeln!(text, "{entry}").expect("text");
    }
    // Links have no lists, and are not followed.
    text + &output("getfacl", &["-R", "-P", "-n", "-s", "."])
}

/// The uid and gid of a path, not followed.
pub fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let path = path.as_ref();
    let metadata = fs::symlink_metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(path.as_os_str().as_bytes())));
    (metadata.uid(), metadata.gid())
}
