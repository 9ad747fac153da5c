//! Accounts that the operating system authenticates: scripted children of the launcher.

use super::*;

/// What the launcher's child does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Launcher {
    /// It asks for the password of `ann` and a code.
    Honest,
    /// It cannot be reached.
    Absent,
    /// It authenticates another one than was asked for.
    Confused,
}

impl Launcher {
    pub fn converse(
        self,
        request: &ConverseRequest,
        turn: &mut dyn FnMut(Turn) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal>,
    ) -> Result<OsIdentity, Ended> {
        if self == Launcher::Absent {
            return Err(Ended::Absent("it is not there".into()));
        }
        let mut ask = |next| match turn(next) {
            Ok(answer) => Ok(answer.unwrap_or_default().to_vec()),
            Err(refusal) => Err(Ended::ByPerson(refusal)),
        };
        ask(Turn::Told("Welcome".into()))?;
        let password = ask(Turn::Hidden("Password: ".into()))?;
        let code = ask(Turn::Shown("Code: ".into()))?;
        if self == Launcher::Confused {
            return Ok(identity("bob"));
        }
        if request.os_user.as_str() == "ann" && password == b"wonder" && code == b"123456" {
            return Ok(identity("ann"));
        }
        ask(Turn::Complaint("No".into()))?;
        Err(Ended::Refused(Denial::authentication_failed()))
    }
}

const ANSWERS: [&[u8]; 2] = [b"wonder", b"123456"];

fn machine() -> Machine {
    Machine { methods: "[\"os\"]", ..Machine::new() }
}

fn attempt(
    machine: &Machine,
    options: &Options,
    user: &str,
    answers: &[&[u8]],
) -> (Person, Result<(), Refusal>) {
    let mut person = Person::new("shell", user, answers);
    let result = authenticate(&mut person, machine, options);
    (person, result)
}

#[test]
fn each_question_is_passed_on_and_only_right_answers_open() {
    let machine = machine();
    let (person, result) = attempt(&machine, &demo(), "ann", &ANSWERS);
    assert_eq!(result, Ok(()));
    assert_eq!(person.asked, ["Password: ", "Code: (shown) "]);
    assert_eq!((person.told.len(), person.complaints.len()), (1, 0));
    // The password is the OS account's: neither the daemon nor another module hears of it.
    assert!(person.secrets.is_empty() && machine.passwords().is_empty());
    assert!(person.log.borrow().iter().all(|line| !line.contains("wonder") && !line.contains("123456")));
    for answers in [[b"wrong", ANSWERS[1]], [ANSWERS[0], b"000000"], [b"", b""]] {
        let (person, result) = attempt(&machine, &demo(), "ann", &answers);
        assert_eq!(result, Err(Refusal::NotAuthenticated), "{answers:?}");
        assert_eq!(person.complaints, ["No"]);
        assert!(person.known.is_none());
    }
    // Who goes away in the middle.
    let (_, result) = attempt(&machine, &demo(), "ann", &ANSWERS[..1]);
    assert_eq!(result, Err(Refusal::Conversation));
}

#[test]
fn who_cannot_be_let_in_answers_the_same_questions_for_the_same_time() {
    let unlinked = Machine { link: None, ..machine() };
    let inactive = Machine { status: Status::Deactivated, ..machine() };
    let without = Machine { consent: None, ..machine() };
    let lying = Machine { daemon: Daemon::Lying, ..machine() };
    let (right, _) = attempt(&machine(), &demo(), "ann", &ANSWERS);
    for (machine, user) in [
        (&unlinked, "ann"),
        (&inactive, "ann"),
        (&without, "ann"),
        (&machine(), "nobody-here"),
        (&machine(), "a/b"),
        (&machine(), "root"),
        (&lying, "bob"),
        (&lying, "root"),
    ] {
        let (person, result) = attempt(machine, &demo(), user, &ANSWERS);
        assert_eq!(result, Err(Refusal::NotAuthenticated), "{user}");
        assert_eq!(person.asked, right.asked, "{user}");
        assert!(person.known.is_none());
        // What the child said as a success was kept as long as a refusal.
        assert_eq!(machine.waited.get(), u32::from(user == "ann"), "{user}");
        let onto = machine.conversations.borrow().last().map(|request| request.os_user.to_string());
        let own = if user == "a/b" { "no-account-has-this-name" } else { user };
        assert_eq!(onto.as_deref(), Some(own));
    }
}

#[test]
fn another_identity_a_missing_launcher_and_a_first_password_open_nothing() {
    let with = |launcher| Machine { launcher, ..machine() };
    let (_, result) = attempt(&with(Launcher::Confused), &demo(), "ann", &ANSWERS);
    assert_eq!(result, Err(Refusal::NotAuthenticated));
    let (_, result) = attempt(&with(Launcher::Absent), &demo(), "ann", &ANSWERS);
    assert_eq!(result, Err(Refusal::Unavailable));
    let (person, result) = attempt(&machine(), &options("application=demo use_first_pass"), "ann", &ANSWERS);
    assert_eq!((result, person.asked.len()), (Err(Refusal::NoFirstPass), 0));
}

#[test]
fn a_conversation_maps_the_user_and_opens_a_session_on_roots_word() {
    let machine = Machine { os_accounts: &["root", "bob"], ..machine() };
    let (mut person, result) = attempt(&machine, &mapping(), "ann", &ANSWERS);
    assert_eq!((result, person.user.as_slice()), (Ok(()), b"ann".as_slice()));
    assert_eq!(account(&mut person, &machine, &mapping()), Ok(()));
    assert_eq!(open_session(&mut person, &machine, &mapping()), Ok(()));
}

#[test]
fn passwords_of_the_accounts_own_come_first_and_services_without_logins_have_no_conversation() {
    let both = Machine { methods: "[\"os\", \"password\"]", ..Machine::new() };
    let (_, result) = log_in(&both, &demo(), "shell", "ann", GOOD);
    assert_eq!((result, both.conversations.borrow().len()), (Ok(()), 0));
    let only = machine();
    let (_, result) = log_in(&only, &demo(), "web", "nobody-here", ANSWERS[0]);
    assert_eq!((result, only.conversations.borrow().len()), (Err(Refusal::NotAuthenticated), 0));
}
