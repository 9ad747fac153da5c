//! Scripted persons, programs and daemons.

mod converse;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use deputy_core::account::Status;
use deputy_core::application::Application;
use deputy_core::job::OsIdentity;
use deputy_core::message::ConverseRequest;
use deputy_core::message::query::{MAX_SECRET, Query, QueryReply, Question, Standing};
use deputy_core::{AccountName, ApplicationName, Code, Denial, OsGid, OsUid};
use zeroize::Zeroizing;

use crate::{
    Ended, Known, Level, Options, Pam, Phase, Refusal, SecretItem, Turn, World, account, authenticate,
    change_password, close_session, open_session,
};

const GOOD: &[u8] = b"violet harbour seven kites";

struct Person {
    service: &'static str,
    user: Vec<u8>,
    answers: VecDeque<Vec<u8>>,
    asked: Vec<String>,
    told: Vec<String>,
    complaints: Vec<String>,
    secrets: BTreeMap<&'static str, Vec<u8>>,
    known: Option<Known>,
    variables: BTreeMap<String, String>,
    log: RefCell<Vec<String>>,
}

impl Person {
    fn new(service: &'static str, user: &str, answers: &[&[u8]]) -> Self {
        Self {
            service,
            user: user.as_bytes().to_vec(),
            answers: answers.iter().map(|answer| answer.to_vec()).collect(),
            asked: Vec::new(),
            told: Vec::new(),
            complaints: Vec::new(),
            secrets: BTreeMap::new(),
            known: None,
            variables: BTreeMap::new(),
            log: RefCell::default(),
        }
    }
}

fn key(item: SecretItem) -> &'static str {
    match item {
        SecretItem::Password => "password",
        SecretItem::OldPassword => "old",
    }
}

impl Pam for Person {
    fn service(&self) -> Option<String> {
        Some(self.service.to_owned())
    }
    fn user(&mut self) -> Result<Vec<u8>, Refusal> {
        Ok(self.user.clone())
    }
    fn set_user(&mut self, name: &str) -> Result<(), Refusal> {
        self.user = name.as_bytes().to_vec();
        Ok(())
    }
    fn origin(&self) -> Option<String> {
        None
    }
    fn secret(&self, item: SecretItem) -> Option<Zeroizing<Vec<u8>>> {
        self.secrets.get(key(item)).cloned().map(Zeroizing::new)
    }
    fn keep_secret(&mut self, item: SecretItem, secret: &[u8]) -> Result<(), Refusal> {
        self.secrets.insert(key(item), secret.to_vec());
        Ok(())
    }
    fn ask(&mut self, question: &str) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.asked.push(question.to_owned());
        self.answers.pop_front().map(Zeroizing::new).ok_or(Refusal::Conversation)
    }
    fn ask_shown(&mut self, question: &str) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.ask(&format!("{question}(shown) "))
    }
    fn inform(&mut self, text: &str) {
        self.told.push(text.to_owned());
    }
    fn complain(&mut self, text: &str) {
        self.complaints.push(text.to_owned());
    }
    fn known(&self, _application: &ApplicationName) -> Option<Known> {
        self.known.clone()
    }
    fn remember(&mut self, _application: &ApplicationName, known: Known) -> Result<(), Refusal> {
        self.known = Some(known);
        Ok(())
    }
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
    fn set_variable(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        self.variables.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
    fn log(&self, _level: Level, text: &str) {
        self.log.borrow_mut().push(text.to_owned());
    }
}

/// What the daemon does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Daemon {
    Honest,
    /// It says yes to everything, and that everybody is linked to whom they are called.
    Lying,
    Absent,
    /// It answers another question.
    Confused,
}

struct Machine {
    daemon: Daemon,
    /// How the application authenticates its accounts.
    methods: &'static str,
    launcher: converse::Launcher,
    /// Conversations that were begun.
    conversations: RefCell<Vec<ConverseRequest>>,
    /// Status, role, must change, and the OS account of the only account, `ann`.
    status: Status,
    must_change: Cell<bool>,
    link: Option<&'static str>,
    /// The OS account that root's records have for `ann`.
    consent: Option<&'static str>,
    /// Whom the name service knows.
    os_accounts: &'static [&'static str],
    password: RefCell<Vec<u8>>,
    tickets: RefCell<Vec<String>>,
    /// What was asked, and the bytes of passwords.
    asked: RefCell<Vec<(String, Vec<u8>)>>,
    waited: Cell<u32>,
}

impl Machine {
    fn new() -> Self {
        Self {
            daemon: Daemon::Honest,
            methods: "[\"password\"]",
            launcher: converse::Launcher::Honest,
            conversations: RefCell::default(),
            status: Status::Active,
            must_change: Cell::new(false),
            link: Some("ann"),
            consent: Some("ann"),
            os_accounts: &["root", "ann", "bob", "portal"],
            password: RefCell::new(GOOD.to_vec()),
            tickets: RefCell::default(),
            asked: RefCell::default(),
            waited: Cell::new(0),
        }
    }

    fn with(daemon: Daemon) -> Self {
        Self { daemon, ..Self::new() }
    }

    fn passwords(&self) -> Vec<Vec<u8>> {
        self.asked
            .borrow()
            .iter()
            .filter(|(what, _)| what == "Authenticate(..)")
            .map(|(_, p)| p.clone())
            .collect()
    }

    fn right(&self) -> QueryReply {
        let ticket = format!("ticket{}", self.tickets.borrow().len());
        self.tickets.borrow_mut().push(ticket.clone());
        QueryReply::Right { ticket }
    }
}

fn identity(name: &str) -> OsIdentity {
    OsIdentity { name: name.parse().unwrap(), uid: OsUid::new(1001).unwrap(), gid: OsGid::new(1001).unwrap() }
}

fn denied(code: Code) -> QueryReply {
    QueryReply::Denied(Denial::new(code, "rule", "message").remedy("remedy"))
}

impl World for Machine {
    fn ask(&self, query: &Query<'_>) -> Result<QueryReply, String> {
        let password = match query.question {
            Question::Authenticate { password } => password,
            _ => b"",
        };
        self.asked.borrow_mut().push((format!("{:?}", query.question), password.to_vec()));
        let is_ann = query.account == "ann";
        Ok(match (self.daemon, query.question) {
            (Daemon::Absent, _) => return Err("it is not there".into()),
            (Daemon::Confused, Question::Standing) => QueryReply::Done,
            (Daemon::Confused, _) => QueryReply::Opened { session: "/x".into() },
            (Daemon::Lying, Question::Standing) => QueryReply::Standing(Standing {
                status: Status::Active,
                role: "superuser".into(),
                must_change: false,
                link: Some(identity(query.account)),
            }),
            (Daemon::Lying, Question::Authenticate { .. } | Question::ChangePassword { .. }) => self.right(),
            (_, Question::Standing) if is_ann => QueryReply::Standing(Standing {
                status: self.status,
                role: "user".into(),
                must_change: self.must_change.get(),
                link: self.link.map(identity),
            }),
            (_, Question::Authenticate { password })
                if is_ann && self.status == Status::Active && *password == *self.password.borrow() =>
            {
                self.right()
            }
            (_, Question::Authenticate { .. }) => denied(Code::AuthenticationFailed),
            (_, Question::ChangePassword { old, .. }) if *old != *self.password.borrow() => {
                denied(Code::AuthenticationFailed)
            }
            (_, Question::ChangePassword { new, .. }) if new.len() < 20 => denied(Code::PasswordWeak),
            (_, Question::ChangePassword { new, .. }) => {
                *self.password.borrow_mut() = new.to_vec();
                self.must_change.set(false);
                self.right()
            }
            (_, Question::OpenSession { ticket }) => {
                let known =
                    ticket.is_empty() || self.tickets.borrow().last().is_some_and(|last| last == ticket);
                if known {
                    QueryReply::Opened { session: "/s/1".into() }
                } else {
                    denied(Code::AuthenticationFailed)
                }
            }
            (_, Question::CloseSession { session: "/s/1" }) => QueryReply::Done,
            (_, Question::Standing | Question::CloseSession { .. }) => denied(Code::NotFound),
        })
    }

    fn converse(
        &self,
        request: &ConverseRequest,
        turn: &mut dyn FnMut(Turn) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal>,
    ) -> Result<OsIdentity, Ended> {
        self.conversations.borrow_mut().push(request.clone());
        self.launcher.converse(request, turn)
    }

    fn application(&self, name: &ApplicationName) -> Result<Application, Denial> {
        if name.as_str() != "demo" {
            return Err(Denial::not_found());
        }
        let text = format!(
            "service_user = \"portal\"\nauthentication = {}\n\
             [pam]\nlogins = [\"shell\"]\naccounts_only = [\"web\"]",
            self.methods
        );
        Application::parse(&text).map_err(|error| Denial::internal(error.to_string()))
    }

    fn may_log_in(
        &self,
        _application: &ApplicationName,
        account: &AccountName,
        identity: &OsIdentity,
    ) -> Result<(), Denial> {
        let consented = account.as_str() == "ann" && self.consent == Some(identity.name.as_str());
        if consented { Ok(()) } else { Err(Denial::not_found()) }
    }

    fn is_no_system_account(&self, _application: &ApplicationName, name: &AccountName) -> Result<(), Denial> {
        if name.as_str() == "root" { Err(Denial::not_found()) } else { Ok(()) }
    }

    fn is_os_account(&self, name: &str) -> Result<bool, Denial> {
        Ok(self.os_accounts.contains(&name))
    }

    fn wait(&self, _time: Duration) {
        self.waited.set(self.waited.get() + 1);
    }
}

fn options(line: &str) -> Options {
    let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
    Options::parse(&words).unwrap()
}

fn demo() -> Options {
    options("application=demo")
}

fn mapping() -> Options {
    options("application=demo map_user")
}

fn log_in(
    machine: &Machine,
    options: &Options,
    service: &'static str,
    user: &str,
    password: &[u8],
) -> (Person, Result<(), Refusal>) {
    let mut person = Person::new(service, user, &[password]);
    let result = authenticate(&mut person, machine, options);
    (person, result)
}

#[test]
fn a_service_that_is_not_listed_serves_nobody_whatever_the_options() {
    let machine = Machine::with(Daemon::Lying);
    for line in [
        "application=demo",
        "application=demo map_user",
        "application=demo try_first_pass debug",
        "application=demo require_role=superuser",
        "application=absent",
    ] {
        let options = options(line);
        let mut person = Person::new(if line.contains("absent") { "shell" } else { "other" }, "ann", &[GOOD]);
        assert_eq!(authenticate(&mut person, &machine, &options), Err(Refusal::Service), "{line}");
        assert_eq!(account(&mut person, &machine, &options), Err(Refusal::Service));
        assert_eq!(open_session(&mut person, &machine, &options), Err(Refusal::Service));
        assert_eq!(close_session(&mut person, &machine, &options), Err(Refusal::Service));
        for phase in [Phase::Check, Phase::Update] {
            assert_eq!(change_password(&mut person, &machine, &options, phase, false), Err(Refusal::Service));
        }
        assert!(person.asked.is_empty() && machine.asked.borrow().is_empty());
    }
    // A service without OS accounts maps nobody to one.
    let (_, result) = log_in(&machine, &mapping(), "web", "ann", GOOD);
    assert_eq!(result, Err(Refusal::Service));
}

#[test]
fn a_daemon_that_says_yes_to_everything_lets_nobody_in_without_roots_consent() {
    let machine = Machine::with(Daemon::Lying);
    for user in ["root", "portal", "bob", "nobody", "ada@example.org", "", "../x", "-x", "0"] {
        for options in [demo(), mapping()] {
            let (mut person, result) = log_in(&machine, &options, "shell", user, b"any");
            assert_eq!(result, Err(Refusal::NotAuthenticated), "{user}");
            assert_eq!(person.user, user.as_bytes(), "PAM_USER stays");
            assert!(person.known.is_none());
            assert_eq!(account(&mut person, &machine, &options), Err(Refusal::NotPermitted));
            assert_eq!(open_session(&mut person, &machine, &options), Err(Refusal::Session));
        }
    }
    // Nor does it get to see what they typed.
    assert!(machine.passwords().iter().all(|password| *password == [0, 0, 0]));
    // Where there is consent, it can say yes to a wrong password: that much is the daemon's word.
    let (_, result) = log_in(&machine, &demo(), "shell", "ann", b"any");
    assert_eq!(result, Ok(()));
    let none = Machine { consent: None, ..Machine::with(Daemon::Lying) };
    assert_eq!(log_in(&none, &demo(), "shell", "ann", b"any").1, Err(Refusal::NotAuthenticated));
    // An account called like one of the system's is nobody, also where no OS account is used.
    assert_eq!(log_in(&machine, &demo(), "web", "root", b"any").1, Err(Refusal::NotAuthenticated));
}

#[test]
fn a_name_that_is_an_os_account_is_never_mapped_to_another() {
    // A program that does not look at PAM_USER again would let ann in as bob.
    let machine = Machine { link: Some("bob"), consent: Some("bob"), ..Machine::new() };
    for options in [demo(), mapping()] {
        assert_eq!(log_in(&machine, &options, "shell", "ann", GOOD).1, Err(Refusal::NotAuthenticated));
    }
    let machine = Machine { link: Some("carol"), consent: Some("bob"), ..Machine::new() };
    assert_eq!(log_in(&machine, &mapping(), "shell", "ann", GOOD).1, Err(Refusal::NotAuthenticated));
}

#[test]
fn unknown_wrong_inactive_unlinked_and_impossible_take_one_path() {
    let shapes = |machine: &Machine, user: &str, password: &[u8]| {
        let (person, result) = log_in(machine, &demo(), "shell", user, password);
        assert_eq!(result, Err(Refusal::NotAuthenticated), "{user}");
        assert_eq!(machine.waited.get(), 1);
        let questions: Vec<_> = machine.asked.borrow().iter().map(|(what, _)| what.clone()).collect();
        let lengths: Vec<_> = machine.passwords().iter().map(Vec::len).collect();
        (person.asked, person.complaints, questions, lengths)
    };
    let wrong = vec![b'w'; GOOD.len()];
    let first = shapes(&Machine::new(), "ann", &wrong);
    assert_eq!(first.2, ["Standing", "Authenticate(..)"]);
    for (machine, user) in [
        (Machine::new(), "nobody"),
        (Machine::new(), "a/b"),
        (Machine { status: Status::Pending, ..Machine::new() }, "ann"),
        (Machine { status: Status::Deactivated, ..Machine::new() }, "ann"),
        (Machine { link: None, ..Machine::new() }, "ann"),
        (Machine { consent: None, ..Machine::new() }, "ann"),
    ] {
        // With the right password, where there is one.
        assert_eq!(shapes(&machine, user, GOOD), first, "{user}");
        assert!(machine.passwords().iter().all(|password| password.iter().all(|byte| *byte == 0)));
    }
}

#[test]
fn an_account_without_an_os_account_uses_a_service_that_needs_none() {
    let machine = Machine { link: None, consent: None, ..Machine::new() };
    let (mut person, result) = log_in(&machine, &demo(), "web", "ann", GOOD);
    assert_eq!(result, Ok(()));
    assert_eq!(account(&mut person, &machine, &demo()), Ok(()));
    assert_eq!(open_session(&mut person, &machine, &demo()), Ok(()));
    let set: Vec<_> = person.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(set, ["DEPUTY_ACCOUNT=ann", "DEPUTY_APPLICATION=demo", "DEPUTY_SESSION=/s/1"]);
    // The ticket was good once: another session is on the service's word.
    assert!(person.known.as_ref().unwrap().ticket.is_empty());
    assert_eq!(close_session(&mut person, &machine, &demo()), Ok(()));
    person.variables.insert("DEPUTY_SESSION".into(), "/s/2".into());
    assert_eq!(close_session(&mut person, &machine, &demo()), Err(Refusal::Session));
}

#[test]
fn pam_user_becomes_the_os_account_and_stays_it() {
    let machine = Machine {
        link: Some("lab-ann"),
        consent: Some("lab-ann"),
        os_accounts: &["root", "lab-ann"],
        ..Machine::new()
    };
    let mut person = Person::new("shell", "ann", &[GOOD]);
    assert_eq!(authenticate(&mut person, &machine, &mapping()), Ok(()));
    assert_eq!(person.user, b"lab-ann");
    assert_eq!(account(&mut person, &machine, &mapping()), Ok(()));
    assert_eq!(open_session(&mut person, &machine, &mapping()), Ok(()));
    assert_eq!(person.variables["DEPUTY_ACCOUNT"], "ann");
    // Somebody renames in between.
    person.user = b"root".to_vec();
    assert_eq!(account(&mut person, &machine, &mapping()), Err(Refusal::NotPermitted));
    assert_eq!(open_session(&mut person, &machine, &mapping()), Err(Refusal::Session));
    // Without authentication here (a key of sshd's), the account phase maps too.
    let mut person = Person::new("shell", "ann", &[]);
    assert_eq!(account(&mut person, &machine, &mapping()), Ok(()));
    assert_eq!(person.user, b"lab-ann");
    // Consent goes after the authentication.
    let machine = Machine { consent: None, ..machine };
    assert_eq!(account(&mut person, &machine, &mapping()), Err(Refusal::NotPermitted));
}

#[test]
fn a_role_that_is_required_is_had_or_not() {
    let machine = Machine::new();
    for (roles, expected) in
        [("user", Ok(())), ("viewer,user", Ok(())), ("superuser", Err(Refusal::NotAuthenticated))]
    {
        let options = options(&format!("application=demo require_role={roles}"));
        let (mut person, result) = log_in(&machine, &options, "web", "ann", GOOD);
        assert_eq!(result, expected, "{roles}");
        let expected = expected.map_err(|_| Refusal::NotPermitted);
        assert_eq!(account(&mut person, &machine, &options), expected);
    }
}

#[test]
fn a_password_of_another_module_is_tried_or_the_only_one() {
    let machine = Machine::new();
    let with = |line: &str, first: Option<&[u8]>, answers: &[&[u8]]| {
        let mut person = Person::new("web", "ann", answers);
        person.secrets.extend(first.map(|first| ("password", first.to_vec())));
        let result = authenticate(&mut person, &machine, &options(&format!("application=demo {line}")));
        (result, person.asked.len())
    };
    assert_eq!(with("use_first_pass", None, &[GOOD]), (Err(Refusal::NoFirstPass), 0));
    assert_eq!(with("use_first_pass", Some(b"wrong"), &[GOOD]), (Err(Refusal::NotAuthenticated), 0));
    assert_eq!(with("use_first_pass", Some(GOOD), &[]), (Ok(()), 0));
    assert_eq!(with("try_first_pass", Some(GOOD), &[]), (Ok(()), 0));
    assert_eq!(with("try_first_pass", Some(b"wrong"), &[GOOD]), (Ok(()), 1));
    assert_eq!(with("try_first_pass", None, &[GOOD]), (Ok(()), 1));
    assert_eq!(with("", Some(GOOD), &[b"wrong"]), (Err(Refusal::NotAuthenticated), 1));
    assert_eq!(with("", Some(GOOD), &[]), (Err(Refusal::Conversation), 1));
}

#[test]
fn a_daemon_that_is_absent_or_confused_lets_nobody_in() {
    for daemon in [Daemon::Absent, Daemon::Confused] {
        let machine = Machine::with(daemon);
        for service in ["shell", "web"] {
            let (mut person, result) = log_in(&machine, &demo(), service, "ann", GOOD);
            assert_eq!(result, Err(Refusal::Unavailable), "{daemon:?}");
            assert_eq!(account(&mut person, &machine, &demo()), Err(Refusal::Unavailable));
            assert!(open_session(&mut person, &machine, &demo()).is_err());
            person.variables.insert("DEPUTY_SESSION".into(), "/s/1".into());
            assert!(close_session(&mut person, &machine, &demo()).is_err());
            let changed = change_password(&mut person, &machine, &demo(), Phase::Check, true);
            assert_eq!(changed, Err(Refusal::Unavailable));
        }
    }
}

#[test]
fn an_empty_password_and_one_that_is_too_long_are_wrong_ones() {
    let machine = Machine::new();
    for password in [Vec::new(), vec![b'x'; 10 * 1024]] {
        let (_, result) = log_in(&machine, &demo(), "web", "ann", &password);
        assert_eq!(result, Err(Refusal::NotAuthenticated));
    }
    assert_eq!(machine.passwords().iter().map(Vec::len).collect::<Vec<_>>(), [0, MAX_SECRET]);
}

#[test]
fn a_password_that_has_to_be_replaced_is_and_only_then_a_session_is_opened_by_it() {
    let machine = Machine::new();
    machine.must_change.set(true);
    let (mut person, result) = log_in(&machine, &demo(), "shell", "ann", GOOD);
    assert_eq!(result, Ok(()));
    assert_eq!(account(&mut person, &machine, &demo()), Err(Refusal::NewPasswordNeeded));
    let new: &[u8] = b"oblique tundra marzipan bell";
    person.answers = [GOOD, b"short", b"short", new, b"another", new, new].map(<[u8]>::to_vec).into();
    let before = person.known.clone().unwrap().ticket;
    assert_eq!(change_password(&mut person, &machine, &demo(), Phase::Check, true), Ok(()));
    assert_eq!(change_password(&mut person, &machine, &demo(), Phase::Update, true), Ok(()));
    assert_eq!(person.complaints, ["message: remedy", "the two are not the same"]);
    assert!(before != person.known.clone().unwrap().ticket);
    assert_eq!(account(&mut person, &machine, &demo()), Ok(()));
    assert_eq!(open_session(&mut person, &machine, &demo()), Ok(()));
    // Nothing has to be replaced any more: nothing is asked.
    let asked = person.asked.len();
    assert_eq!(change_password(&mut person, &machine, &demo(), Phase::Check, true), Ok(()));
    assert_eq!(person.asked.len(), asked);
}

#[test]
fn only_who_knows_the_old_password_changes_it() {
    let machine = Machine::new();
    let change = |user: &str, answers: &[&[u8]], phase: Phase| {
        let mut person = Person::new("shell", user, answers);
        change_password(&mut person, &machine, &demo(), phase, false)
    };
    let new: &[u8] = b"oblique tundra marzipan bell";
    assert_eq!(change("ann", &[b"wrong", new, new], Phase::Check), Err(Refusal::OldPasswordWrong));
    assert_eq!(change("nobody", &[GOOD, new, new], Phase::Check), Err(Refusal::OldPasswordWrong));
    assert_eq!(change("a/b", &[GOOD, new, new], Phase::Check), Err(Refusal::OldPasswordWrong));
    assert_eq!(change("ann", &[], Phase::Check), Err(Refusal::Conversation));
    // The second call without the first.
    assert_eq!(change("ann", &[new, new], Phase::Update), Err(Refusal::OldPasswordWrong));
    assert_eq!(*machine.password.borrow(), GOOD);
    // Three that are not taken are enough.
    let mut person = Person::new("shell", "ann", &[GOOD, b"a", b"a", b"b", b"b", b"c", b"c", new, new]);
    assert_eq!(change_password(&mut person, &machine, &demo(), Phase::Check, false), Ok(()));
    let updated = change_password(&mut person, &machine, &demo(), Phase::Update, false);
    assert_eq!(updated, Err(Refusal::NewPasswordRefused));
    assert_eq!(*machine.password.borrow(), GOOD);
}

#[test]
fn no_line_of_the_log_has_a_password() {
    let machine = Machine::new();
    let debug = options("application=demo debug");
    for (user, password) in [("ann", GOOD), ("ann", b"hunter2 hunter2"), ("nobody", GOOD)] {
        let (mut person, _) = log_in(&machine, &debug, "shell", user, password);
        let _ = account(&mut person, &machine, &debug);
        let log = person.log.borrow().join("\n");
        assert!(!log.contains("violet") && !log.contains("hunter2"), "{log}");
        assert!(user == "ann" && password == GOOD || log.contains("refused"), "{log}");
    }
}
