//! Who may do what to which account: every step by every sort of caller, through the real D-Bus and the real polkit.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::{Barrier, Once};
use std::{fs, io::Write as _};

use deputy_suite::client::{Client, Dictionary, Failed, Options, on_bus, options, text};
use deputy_suite::machine::{add_person, add_service_user, install_application, wait_until};
use deputy_suite::{as_user, deputyctl, need_the_sandbox};
use zbus::Variant;

/// An application whose word is enough, and one whose word is not.
const ROLES: &str = r#"
service_user = "rolesportal"
trust = "application"
act_for = true
act_for_seconds = 60
[kinds.batch]
commands = ["*"]
[roles.helper]
permissions = ["manage_accounts", "run_jobs", "use_files"]
[roles.support]
permissions = ["act_for", "run_jobs", "use_files"]
"#;
const STRICT: &str = "service_user = \"strictportal\"\n[kinds.batch]\ncommands = [\"*\"]\n";

/// Whom a site's rule lets manage and see accounts without a question.
const RULE: &str = r#"
polkit.addRule(function(action, subject) {
    if (subject.user == "warden" && ["org.deputy.Deputy1.manage-accounts", "org.deputy.Deputy1.view"].indexOf(action.id) >= 0)
        return polkit.Result.YES;
});
"#;

/// The accounts that act, each with its role, and its role in a group.
#[expect(clippy::type_complexity, reason = "one table, read in one place")]
const ACTORS: [(&str, &str, Option<(&str, &str)>); 6] = [
    ("super", "superuser", None),
    ("admin", "administrator", None),
    ("helper", "helper", None),
    ("head", "user", Some(("lab", "administrator"))),
    ("otherhead", "user", Some(("otherlab", "administrator"))),
    ("viewer", "viewer", None),
];

static PREPARED: Once = Once::new();

fn prepare() {
    need_the_sandbox();
    PREPARED.call_once(|| {
        for user in ["rolesportal", "strictportal"] {
            add_service_user(user);
        }
        add_person("warden", "warden", &[]);
        let rules = "/etc/polkit-1/rules.d/10-deputy-suite.rules";
        fs::create_dir_all("/etc/polkit-1/rules.d").expect("polkit's folder");
        fs::File::create(rules).expect("a rule").write_all(RULE.as_bytes()).expect("a rule");
        install_application("roles", ROLES);
        install_application("strict", STRICT);
        // polkit watches its folder; how soon it sees the rule is its own affair.
        wait_until("polkit knows the rule", || {
            on_bus("warden", async |bus| accounts(&bus, &[("application", "roles")]).await.is_ok())
        });
        on_bus("rolesportal", async |bus| {
            for group in ["lab", "otherlab"] {
                ok(bus.call("Groups.Create", &(group, Options::new())).await);
            }
            for (name, role, in_group) in ACTORS {
                ok(bus.call("Accounts.Create", &(name, options(&[("role", role)]))).await);
                if let Some((group, role)) = in_group {
                    ok(bus.call("Groups.Add", &(group, name, options(&[("role", role)]))).await);
                }
            }
            ok(bus.call("Accounts.Register", &("pending", Options::new())).await);
            ok(bus.call("Accounts.Create", &("gone", options(&[("role", "superuser")]))).await);
            ok(bus.call("Accounts.Deactivate", &("gone", Options::new())).await);
        });
    });
}

fn ok(result: Result<(), Failed>) {
    result.unwrap_or_else(|failed| panic!("{failed:?}"));
}

async fn accounts(bus: &Client, filter: &[(&'static str, &str)]) -> Result<Vec<String>, Failed> {
    let (found, _): (Vec<Dictionary>, String) = bus.call("Accounts.List", &(options(filter),)).await?;
    Ok(found.iter().filter_map(|record| text(record, "account")).collect())
}

async fn field(bus: &Client, account: &str, name: &str) -> Option<String> {
    let body = (account, options(&[("application", "roles")]));
    let record: Result<Dictionary, Failed> = bus.call("Accounts.Get", &body).await;
    record.ok().and_then(|record| text(&record, name))
}

/// Every step of `deputy_core::account::Step`.
const STEPS: [&str; 9] =
    ["Create", "Register", "Approve", "Reject", "Edit", "SetRole", "Deactivate", "Reactivate", "Delete"];

/// Brings an account into the status from which the step starts.
async fn ready(root: &Client, name: &str, step: &str) {
    let mut of = options(&[("application", "roles")]);
    // What is deleted must not be in a group any more.
    if step != "Delete" {
        of.insert("group", Variant::from("lab"));
    }
    let plain = || options(&[("application", "roles")]);
    match step {
        "Create" | "Register" => {}
        "Approve" | "Reject" => ok(root.call("Accounts.Register", &(name, of)).await),
        _ => ok(root.call("Accounts.Create", &(name, of)).await),
    }
    if step == "Reactivate" {
        ok(root.call("Accounts.Deactivate", &(name, plain())).await);
    }
}

async fn take(bus: &Client, name: &str, step: &str, mut given: Options) -> Result<(), Failed> {
    let method = format!("Accounts.{step}");
    match step {
        "Create" => {
            given.insert("group", Variant::from("lab"));
            bus.call(&method, &(name, given)).await
        }
        "Edit" => {
            given.insert("first_name", Variant::from("Ada"));
            bus.call(&method, &(name, given)).await
        }
        "Reject" => bus.call(&method, &(name, "no", given)).await,
        "SetRole" => bus.call(&method, &(name, "viewer", given)).await,
        _ => bus.call(&method, &(name, given)).await,
    }
}

/// What an account shows after the step, where it was taken.
fn taken(step: &str) -> (&'static str, Option<&'static str>) {
    match step {
        "Create" | "Approve" | "Reactivate" => ("status", Some("active")),
        "Register" => ("status", Some("pending")),
        "Reject" => ("status", Some("rejected")),
        "Edit" => ("first_name", Some("Ada")),
        "SetRole" => ("role", Some("viewer")),
        "Deactivate" => ("status", Some("deactivated")),
        _ => ("status", None),
    }
}

/// Who, as which user and on whose behalf, by what steps. `+`: done. P: `PermissionMissing`, A: `AccountNotActive`,
/// N: `NotFound`, U: `NotAuthorized`, I: `InvalidArgument`.
const TABLE: &str = "
    who          user          Create Register Approve Reject Edit SetRole Deactivate Reactivate Delete
    -            rolesportal   +      +        +       +      +    +       +          +          +
    -            root          +      +        +       +      +    +       +          +          +
    -            warden        +      +        +       +      +    +       +          +          +
    super        rolesportal   +      I        +       +      +    +       +          +          +
    admin        rolesportal   +      I        +       +      +    +       +          +          +
    helper       rolesportal   +      I        +       +      +    P       +          +          +
    head         rolesportal   +      I        +       +      +    P       +          +          P
    otherhead    rolesportal   P      I        P       P      P    P       P          P          P
    viewer       rolesportal   P      I        P       P      P    P       P          P          P
    pending      rolesportal   A      I        A       A      A    A       A          A          A
    gone         rolesportal   A      I        A       A      A    A       A          A          A
    nobody       rolesportal   N      I        N       N      N    N       N          N          N
    -            strictportal  N      N        N       N      N    N       N          N          N
    super        strictportal  N      I        N       N      N    N       N          N          N
    -            carol         U      U        U       U      U    U       U          U          U
    super        root          I      I        I       I      I    I       I          I          I
";

fn code(letter: &str) -> &'static str {
    match letter {
        "P" => "PermissionMissing",
        "A" => "AccountNotActive",
        "N" => "NotFound",
        "U" => "NotAuthorized",
        "I" => "InvalidArgument",
        other => panic!("{other}"),
    }
}

#[test]
fn every_step_by_every_sort_of_caller_is_as_the_table_says() {
    prepare();
    let rows = TABLE.trim().lines().skip(1);
    for (number, row) in rows.enumerate() {
        let cells: Vec<&str> = row.split_whitespace().collect();
        let (who, user) = (cells[0], cells[1]);
        for (step, expected) in STEPS.iter().zip(&cells[2..]) {
            let name = format!("t{number}-{}", step.to_lowercase());
            on_bus("root", async |root| ready(&root, &name, step).await);
            let (field_name, after) = taken(step);
            let before = on_bus("root", async |root| field(&root, &name, field_name).await);
            let result = on_bus(user, async |bus| {
                let mut given = options(&[("application", "roles")]);
                if who != "-" {
                    given.insert("by", Variant::from(who.to_owned()));
                }
                take(&bus, &name, step, given).await
            });
            let now = on_bus("root", async |root| field(&root, &name, field_name).await);
            if *expected == "+" {
                assert_eq!(result, Ok(()), "{who} as {user}: {step}");
                assert_eq!(now.as_deref(), after, "{who} as {user}: {step}");
            } else {
                let failed = result.expect_err(&format!("{who} as {user}: {step}"));
                assert_eq!(failed.code(), code(expected), "{who} as {user}: {step}");
                assert_eq!(now, before, "{who} as {user}: {step} was refused and changed something");
            }
        }
    }
}

/// Brings a new account of the group `lab` into this status.
async fn bring(root: &Client, name: &str, status: &str) {
    let plain = || options(&[("application", "roles")]);
    let in_lab = options(&[("application", "roles"), ("group", "lab")]);
    let first =
        if matches!(status, "pending" | "rejected") { "Accounts.Register" } else { "Accounts.Create" };
    ok(root.call(first, &(name, in_lab)).await);
    match status {
        "rejected" => ok(root.call("Accounts.Reject", &(name, "no", plain())).await),
        "deactivated" => ok(root.call("Accounts.Deactivate", &(name, plain())).await),
        _ => {}
    }
}

/// Those who may take most steps: the machine's administrators, root and by polkit, the application, and its accounts
/// with a role in it or in the group.
const MIGHTY: [(&str, &str); 6] = [
    ("-", "root"),
    ("-", "warden"),
    ("-", "rolesportal"),
    ("super", "rolesportal"),
    ("admin", "rolesportal"),
    ("head", "rolesportal"),
];

#[test]
fn from_the_wrong_status_nobody_takes_a_step() {
    prepare();
    for (number, (who, user)) in MIGHTY.into_iter().enumerate() {
        for status in ["pending", "active", "rejected", "deactivated"] {
            for step in STEPS {
                let allowed = match step {
                    "Approve" | "Reject" => status == "pending",
                    "Deactivate" => status == "active",
                    "Reactivate" => status == "deactivated",
                    "Edit" | "SetRole" => status != "rejected",
                    "Register" => status == "rejected",
                    "Create" => false,
                    _ => true,
                };
                // The first two of these nobody asks for on behalf of an account, or in a group only.
                if allowed || who != "-" && step == "Register" || who == "head" && step == "SetRole" {
                    continue;
                }
                let name = format!("w{number}-{status}-{}", step.to_lowercase());
                on_bus("root", async |root| bring(&root, &name, status).await);
                let result = on_bus(user, async |bus| {
                    let mut given = options(&[("application", "roles")]);
                    if who != "-" {
                        given.insert("by", Variant::from(who.to_owned()));
                    }
                    take(&bus, &name, step, given).await
                });
                assert_eq!(result.expect_err(&name).code(), "Conflict", "{who} as {user}: {name}");
                let now = on_bus("root", async |root| field(&root, &name, "status").await);
                assert_eq!(now.as_deref(), Some(status), "{who} as {user}: {name}");
            }
        }
    }
    on_bus("root", async |root| {
        let plain = || options(&[("application", "roles")]);
        // What is not there is not changed into something.
        for step in STEPS.iter().filter(|step| !matches!(**step, "Create" | "Register")) {
            let refused = take(&root, "w-absent", step, plain()).await.expect_err(step);
            assert_eq!(refused.code(), "NotFound", "{step}");
            assert_eq!(field(&root, "w-absent", "status").await, None, "{step}");
        }
        // Who was rejected may ask again.
        ok(root.call("Accounts.Register", &("w-again", plain())).await);
        ok(root.call("Accounts.Reject", &("w-again", "unknown", plain())).await);
        assert_eq!(field(&root, "w-again", "reason").await.as_deref(), Some("unknown"));
        ok(root.call("Accounts.Register", &("w-again", plain())).await);
        assert_eq!(field(&root, "w-again", "status").await.as_deref(), Some("pending"));
    });
}

#[test]
fn nobody_gives_or_manages_what_he_does_not_have() {
    prepare();
    on_bus("rolesportal", async |bus| {
        for name in ["n-user", "n-super", "n-admin"] {
            ok(bus.call("Accounts.Create", &(name, options(&[("group", "lab")]))).await);
        }
        ok(bus.call("Accounts.SetRole", &("n-super", "superuser", Options::new())).await);
        ok(bus.call("Accounts.SetRole", &("n-admin", "administrator", Options::new())).await);
        let set = async |by: &str, whom: &str, role: &str, group: &str| {
            let mut given = options(&[("by", by)]);
            if !group.is_empty() {
                given.insert("group", Variant::from(group.to_owned()));
            }
            bus.call::<_, ()>("Accounts.SetRole", &(whom, role, given)).await
        };
        let refused = [
            set("admin", "n-user", "superuser", "").await,
            set("admin", "n-super", "user", "").await,
            set("admin", "n-user", "support", "").await,
            set("super", "n-user", "support", "").await,
            set("helper", "n-user", "administrator", "").await,
            set("head", "n-user", "superuser", "lab").await,
            set("head", "n-super", "", "lab").await,
            set("head", "n-user", "administrator", "").await,
            set("admin", "admin", "superuser", "").await,
            bus.call("Accounts.Deactivate", &("n-super", options(&[("by", "admin")]))).await,
            bus.call("Accounts.Deactivate", &("n-admin", options(&[("by", "helper")]))).await,
            bus.call("Accounts.Create", &("n-new", options(&[("by", "helper"), ("role", "viewer")]))).await,
            bus.call("Accounts.Create", &("n-new", options(&[("by", "head")]))).await,
            bus.call("Groups.Create", &("n-lab", options(&[("by", "head")]))).await,
            bus.call("Groups.Delete", &("lab", options(&[("by", "head")]))).await,
            // Else a laboratory's head would get power over anybody by taking him in.
            bus.call("Groups.Add", &("lab", "viewer", options(&[("by", "head")]))).await,
            bus.call("Groups.Remove", &("lab", "n-super", options(&[("by", "head")]))).await,
        ];
        for (number, result) in refused.into_iter().enumerate() {
            assert_eq!(
                result.expect_err(&format!("number {number}")).code(),
                "PermissionMissing",
                "{number}"
            );
        }
        assert_eq!(set("super", "n-user", "no-such-role", "").await.unwrap_err().code(), "InvalidArgument");
        assert_eq!(
            accounts(&bus, &[("group", "lab"), ("by", "otherhead")]).await.unwrap_err().code(),
            "PermissionMissing"
        );
        // What they have they give.
        ok(set("head", "n-user", "administrator", "lab").await);
        ok(set("head", "n-user", "", "lab").await);
        ok(set("super", "n-user", "superuser", "").await);
        ok(bus.call("Groups.Remove", &("lab", "n-admin", options(&[("by", "head")]))).await);
        assert!(
            accounts(&bus, &[("group", "lab"), ("by", "head")]).await.unwrap().contains(&"n-user".into())
        );
        // Everybody changes what is known of himself, and nothing else.
        let own = options(&[("by", "viewer"), ("email", "v@example.org")]);
        ok(bus.call("Accounts.Edit", &("viewer", own)).await);
        let own: Result<(), Failed> =
            bus.call("Accounts.Deactivate", &("viewer", options(&[("by", "viewer")]))).await;
        assert_eq!(own.unwrap_err().code(), "PermissionMissing");
    });
}

#[test]
fn an_application_whose_word_is_not_enough_changes_nothing_by_itself() {
    prepare();
    on_bus("strictportal", async |bus| {
        for step in STEPS.into_iter().filter(|step| *step != "Register") {
            let failed = take(&bus, "anybody", step, Options::new()).await.unwrap_err();
            assert_eq!(failed.code(), "ActingAccountRequired", "{step}");
            let failed = take(&bus, "anybody", step, options(&[("by", "boss")])).await.unwrap_err();
            assert_eq!(failed.code(), "SessionRequired", "{step}");
        }
        for (method, name) in [("Groups.Create", "g"), ("Groups.Delete", "g")] {
            let failed: Result<(), Failed> = bus.call(method, &(name, Options::new())).await;
            assert_eq!(failed.unwrap_err().code(), "ActingAccountRequired", "{method}");
        }
        ok(bus.call("Accounts.Register", &("asks", Options::new())).await);
        assert_eq!(accounts(&bus, &[("status", "pending")]).await.unwrap(), ["asks"]);
    });
}

#[test]
fn the_administrator_of_one_application_has_no_power_in_another() {
    prepare();
    let root =
        |account: &str| deputyctl("root", &["account", "add", "strict", account, "--role", "superuser"]);
    assert_eq!(root("boss").status, 0);
    let session: zbus::OwnedObjectPath = on_bus("rolesportal", async |bus| {
        ok(bus.call("Accounts.Create", &("boss", options(&[("role", "superuser")]))).await);
        bus.call("Authentication.Vouch", &("boss", Options::new())).await.unwrap()
    });
    // The session is good where it was made.
    on_bus("rolesportal", async |bus| {
        let by = options(&[("by", session.as_str())]);
        ok(bus
            .call(
                "Accounts.Edit",
                &("viewer", {
                    let mut by = by;
                    by.insert("last_name", "V".into());
                    by
                }),
            )
            .await);
    });
    // It is nothing to another application, and one of that name there is another one.
    on_bus("strictportal", async |bus| {
        for step in STEPS.into_iter().filter(|step| *step != "Register") {
            let by = options(&[("by", session.as_str())]);
            assert_eq!(take(&bus, "boss", step, by).await.unwrap_err().code(), "NotFound", "{step}");
        }
        for application in ["roles", "no-such-application"] {
            let failed = accounts(&bus, &[("application", application)]).await.unwrap_err();
            assert_eq!(failed.code(), "NotFound", "{application}");
        }
    });
    let other = deputyctl("strictportal", &["account", "list", "roles"]);
    assert!(other.stderr.contains("NotFound"), "{}", other.stderr);
}

#[test]
fn the_last_superuser_stays_whoever_asks() {
    prepare();
    add_service_user("lastportal");
    install_application("last", "service_user = \"lastportal\"\ntrust = \"application\"\n");
    on_bus("root", async |root| {
        let of = || options(&[("application", "last")]);
        let first = options(&[("application", "last"), ("role", "superuser")]);
        ok(root.call("Accounts.Create", &("one", first)).await);
        let refused: [Result<(), Failed>; 3] = [
            root.call("Accounts.SetRole", &("one", "user", of())).await,
            root.call("Accounts.Deactivate", &("one", of())).await,
            root.call("Accounts.Delete", &("one", of())).await,
        ];
        for result in refused {
            assert_eq!(result.unwrap_err().code(), "LastSuperuser");
        }
        ok(root.call("Accounts.Create", &("two", of())).await);
        ok(root.call("Accounts.SetRole", &("two", "superuser", of())).await);
        ok(root.call("Accounts.Delete", &("one", of())).await);
    });
}

#[test]
fn the_first_superuser_is_made_by_the_machines_administrator_alone_and_once() {
    prepare();
    add_service_user("freshportal");
    install_application("fresh", "service_user = \"freshportal\"\nauthentication = [\"password\"]\n");
    for (user, code) in [("freshportal", "NotAuthorized"), ("carol", "NotAuthorized")] {
        let refused = deputyctl(user, &["setup", "fresh", "first"]);
        assert!(refused.stderr.contains(code), "{user}: {}", refused.stderr);
    }
    // A password that is too easy leaves no account behind.
    let weak = as_user("root", &["sh", "-c", "echo secret | deputyctl setup fresh first --answers-fd 0"]);
    assert!(weak.stderr.contains("PasswordWeak"), "{}{}", weak.stdout, weak.stderr);
    let race = || deputyctl("root", &["--json", "setup", "fresh", "first", "--email", "f@example.org"]);
    let outputs = std::thread::scope(|scope| {
        let both = [scope.spawn(race), scope.spawn(race)];
        both.map(|one| one.join().unwrap())
    });
    let (won, lost): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status == 0);
    assert_eq!((won.len(), lost.len()), (1, 1), "{outputs:?}");
    assert!(lost[0].stderr.contains("Conflict"), "{}", lost[0].stderr);
    let told: serde_json::Value = serde_json::from_str(&won[0].stdout).unwrap();
    let password = told["password"].as_str().expect("a temporary password").to_owned();
    let login = format!(
        "printf '%s\\nQuieter-Harbour-Lantern-7\\n' '{password}' | deputyctl login fresh first --method password --answers-fd 0"
    );
    let login = as_user("freshportal", &["sh", "-c", &login]);
    assert!(login.stdout.contains("/session/"), "{}{}", login.stdout, login.stderr);
    // With its session the application's own administration begins.
    let session = login.stdout.trim().to_owned();
    let add = deputyctl("freshportal", &["account", "add", "fresh", "second", "--by", &session]);
    assert_eq!(add.status, 0, "{}", add.stderr);
    let without = deputyctl("freshportal", &["account", "add", "fresh", "third"]);
    assert!(without.stderr.contains("ActingAccountRequired"), "{}", without.stderr);
}

/// How many races are run.
const ROUNDS: usize = 200;

#[test]
fn of_two_conflicting_changes_one_wins_and_nothing_is_left_by_half() {
    prepare();
    let barrier = Barrier::new(2);
    let race = |step: &'static str| {
        let barrier = &barrier;
        move || {
            on_bus("rolesportal", async |bus| {
                let mut won = BTreeSet::new();
                for round in 0..ROUNDS {
                    let name = format!("r{round}");
                    barrier.wait();
                    match take(&bus, &name, step, Options::new()).await {
                        Ok(()) => drop(won.insert(round)),
                        Err(failed) => assert_eq!(failed.code(), "Conflict", "{step} {name}"),
                    }
                }
                won
            })
        }
    };
    on_bus("rolesportal", async |bus| {
        for round in 0..ROUNDS {
            ok(bus.call("Accounts.Register", &(format!("r{round}"), Options::new())).await);
        }
    });
    let (approved, rejected) = std::thread::scope(|scope| {
        let (left, right) = (scope.spawn(race("Approve")), scope.spawn(race("Reject")));
        (left.join().unwrap(), right.join().unwrap())
    });
    assert_eq!(approved.len() + rejected.len(), ROUNDS, "each has exactly one winner");
    on_bus("root", async |root| {
        for round in 0..ROUNDS {
            let status = field(&root, &format!("r{round}"), "status").await;
            let expected = match (approved.contains(&round), rejected.contains(&round)) {
                (true, false) => "active",
                (false, true) => "rejected",
                both => panic!("round {round}: {both:?}"),
            };
            assert_eq!(status.as_deref(), Some(expected), "round {round}");
            let reason = field(&root, &format!("r{round}"), "reason").await;
            assert_eq!(reason.is_some(), expected == "rejected", "round {round}");
        }
    });
}

#[test]
fn of_every_two_steps_at_once_what_is_left_is_what_one_after_the_other_leaves() {
    prepare();
    // From an active account: what the two answers are, and what is there afterwards.
    for (left, right) in [
        ("Deactivate", "Delete"),
        ("Deactivate", "SetRole"),
        ("Delete", "Edit"),
        ("SetRole", "Delete"),
        ("Deactivate", "Deactivate"),
        ("Delete", "Delete"),
    ] {
        let barrier = Barrier::new(2);
        let race = |step: &'static str| {
            let barrier = &barrier;
            move || {
                on_bus("rolesportal", async |bus| {
                    let mut answers = Vec::new();
                    for round in 0..40 {
                        let name = format!("p-{left}-{right}-{round}").to_lowercase();
                        barrier.wait();
                        answers.push(
                            take(&bus, &name, step, Options::new()).await.map_err(|f| f.code().to_owned()),
                        );
                    }
                    answers
                })
            }
        };
        on_bus("rolesportal", async |bus| {
            for round in 0..40 {
                let name = format!("p-{left}-{right}-{round}").to_lowercase();
                ok(bus.call("Accounts.Create", &(name, Options::new())).await);
            }
        });
        let (lefts, rights) = std::thread::scope(|scope| {
            let (left, right) = (scope.spawn(race(left)), scope.spawn(race(right)));
            (left.join().unwrap(), right.join().unwrap())
        });
        for (round, (of_left, of_right)) in lefts.iter().zip(&rights).enumerate() {
            let name = format!("p-{left}-{right}-{round}").to_lowercase();
            assert!(of_left.is_ok() || of_right.is_ok(), "{name}: {of_left:?} {of_right:?}");
            for refused in [of_left, of_right].into_iter().filter_map(|answer| answer.as_ref().err()) {
                assert!(["Conflict", "NotFound"].contains(&refused.as_str()), "{name}: {refused}");
            }
            let done = |step: &str| (left == step && of_left.is_ok()) || (right == step && of_right.is_ok());
            let (status, role, first) = on_bus("root", async |root| {
                let status = field(&root, &name, "status").await;
                (status, field(&root, &name, "role").await, field(&root, &name, "first_name").await)
            });
            // Each acknowledged step is there in full, and none that was refused.
            if done("Delete") {
                assert_eq!(status, None, "{name}");
                continue;
            }
            let expected = if done("Deactivate") { "deactivated" } else { "active" };
            assert_eq!(status.as_deref(), Some(expected), "{name}");
            assert_eq!(role.as_deref(), Some(if done("SetRole") { "viewer" } else { "user" }), "{name}");
            assert_eq!(first.is_some(), done("Edit"), "{name}");
        }
        if left == right {
            let wins = lefts.iter().zip(&rights).filter(|(a, b)| a.is_ok() && b.is_ok()).count();
            assert_eq!(wins, 0, "{left}: done twice");
        }
    }
}

#[test]
fn who_is_deactivated_has_no_session_and_opens_none() {
    prepare();
    on_bus("rolesportal", async |bus| {
        ok(bus.call("Accounts.Create", &("leaver", Options::new())).await);
        let session: zbus::OwnedObjectPath =
            bus.call("Authentication.Vouch", &("leaver", Options::new())).await.unwrap();
        let argv = vec![b"/bin/true".to_vec()];
        ok(bus.call("Accounts.Deactivate", &("leaver", options(&[("reason", "left")]))).await);
        let run = async |subject: &str| -> Failed {
            bus.call::<_, zbus::OwnedObjectPath>("Jobs.Run", &(subject, argv.clone(), Options::new()))
                .await
                .unwrap_err()
        };
        assert_eq!(run("leaver").await.code(), "AccountNotActive");
        assert_eq!(run(session.as_str()).await.code(), "NotFound");
        let vouched: Result<zbus::OwnedObjectPath, Failed> =
            bus.call("Authentication.Vouch", &("leaver", Options::new())).await;
        assert_eq!(vouched.unwrap_err().code(), "AccountNotActive");
        ok(bus.call("Accounts.Reactivate", &("leaver", Options::new())).await);
        assert_eq!(run(session.as_str()).await.code(), "NotFound");
        assert_eq!(run("leaver").await.code(), "NotLinked");
        // A viewer looks, and runs nothing.
        ok(bus.call("Accounts.SetRole", &("leaver", "viewer", Options::new())).await);
        assert_eq!(run("leaver").await.code(), "PermissionMissing");
    });
}

#[test]
fn others_jobs_are_seen_and_ended_by_those_who_may() {
    prepare();
    for arguments in [
        &["account", "add", "roles", "worker", "--group", "lab"][..],
        &["consent", "grant", "roles", "worker", "alice"],
        &["link", "request", "roles", "worker", "alice"],
        &["account", "add", "roles", "bystander"],
    ] {
        let output = deputyctl("root", arguments);
        assert_eq!(output.status, 0, "{arguments:?}: {}", output.stderr);
    }
    on_bus("rolesportal", async |bus| {
        let start = async || -> zbus::OwnedObjectPath {
            let argv: Vec<Vec<u8>> = [&b"/bin/sleep"[..], b"1000"].map(Vec::from).to_vec();
            bus.call("Jobs.Run", &("worker", argv, Options::new())).await.expect("a job")
        };
        let listed = async |by: &str| -> Result<usize, Failed> {
            let given = options(&[("by", by), ("account", "worker")]);
            let (found, _): (Vec<Dictionary>, String) = bus.call("Jobs.List", &(given,)).await?;
            let open = |job: &&Dictionary| {
                text(job, "state").is_some_and(|state| ["queued", "running"].contains(&state.as_str()))
            };
            Ok(found.iter().filter(open).count())
        };
        let job = start().await;
        for by in ["worker", "viewer", "head", "admin"] {
            assert_eq!(listed(by).await, Ok(1), "{by}");
        }
        for by in ["bystander", "otherhead", "helper"] {
            assert_eq!(listed(by).await.unwrap_err().code(), "PermissionMissing", "{by}");
        }
        let cancel = async |job: &str, by: &str| -> Result<(), Failed> {
            bus.call_at(job, "Job.Cancel", &(options(&[("by", by)]),)).await
        };
        for by in ["bystander", "otherhead", "viewer"] {
            assert_eq!(cancel(job.as_str(), by).await.unwrap_err().code(), "PermissionMissing", "{by}");
        }
        let stop = async |by: &str| -> Result<(), Failed> {
            bus.call_at(job.as_str(), "Job.Signal", &(19, options(&[("by", by)]))).await
        };
        for by in ["bystander", "otherhead", "viewer"] {
            assert_eq!(stop(by).await.unwrap_err().code(), "PermissionMissing", "{by}");
        }
        for by in ["worker", "head", "admin"] {
            ok(stop(by).await);
        }
        assert_eq!(listed("worker").await, Ok(1));
        ok(cancel(job.as_str(), "head").await);
        let ended = async || {
            for _ in 0..1000 {
                if listed("admin").await == Ok(0) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            panic!("the job does not end");
        };
        ended().await;
        // Whoever is put out of use keeps his jobs, unless it is said that they end too.
        start().await;
        ok(bus.call("Accounts.Deactivate", &("worker", Options::new())).await);
        assert_eq!(listed("admin").await, Ok(1));
        ok(bus.call("Accounts.Reactivate", &("worker", Options::new())).await);
        let mut with_jobs = options(&[("by", "admin")]);
        with_jobs.insert("cancel_jobs", Variant::from(true));
        ok(bus.call("Accounts.Deactivate", &("worker", with_jobs)).await);
        ended().await;
    });
}

#[test]
fn a_laboratory_s_head_manages_its_accounts_projects_and_limits_only() {
    prepare();
    for (name, group, os_user) in
        [("limited", "lab", "os-limited"), ("unlimited", "otherlab", "os-unlimited")]
    {
        add_person(os_user, "x", &[]);
        for arguments in [
            &["account", "add", "roles", name, "--group", group][..],
            &["consent", "grant", "roles", name, os_user],
            &["link", "request", "roles", name, os_user],
        ] {
            let output = deputyctl("root", arguments);
            assert_eq!(output.status, 0, "{arguments:?}: {}", output.stderr);
        }
    }
    on_bus("rolesportal", async |bus| {
        let one = || Options::from([("jobs", Variant::from(1_u32))]);
        let limit = async |whom: &str, by: &str, mut limits: Options| -> Result<(), Failed> {
            limits.extend(options(&[("by", by)]));
            bus.call("Accounts.SetLimits", &(whom, limits)).await
        };
        for (whom, by) in [
            ("unlimited", "head"),
            ("limited", "otherhead"),
            ("limited", "viewer"),
            ("limited", "helper"),
            // Nobody sets his own.
            ("limited", "limited"),
            ("super", "head"),
        ] {
            assert_eq!(limit(whom, by, one()).await.unwrap_err().code(), "PermissionMissing", "{whom} {by}");
        }
        assert_eq!(limit("limited", "gone", one()).await.unwrap_err().code(), "AccountNotActive");
        assert_eq!(limit("nobody", "admin", one()).await.unwrap_err().code(), "NotFound");
        let wrong = Options::from([("cpus", Variant::from(-1_f64))]);
        assert_eq!(limit("limited", "head", wrong).await.unwrap_err().code(), "InvalidArgument");
        ok(limit("limited", "head", one()).await);

        // They hold at once, for the account that they are about.
        let run = async |account: &str, seconds: &str| -> zbus::OwnedObjectPath {
            let argv: Vec<Vec<u8>> = ["/bin/sleep", seconds].map(|word| word.as_bytes().to_vec()).to_vec();
            bus.call("Jobs.Run", &(account, argv, Options::new())).await.expect("a job")
        };
        let state = async |job: &zbus::OwnedObjectPath| -> String {
            let got: Dictionary = bus.call_at(job.as_str(), "Job.Get", &()).await.expect("the job");
            text(&got, "state").expect("a state")
        };
        let first = run("limited", "1000").await;
        let second = run("limited", "1000").await;
        let other = run("unlimited", "1000").await;
        assert_eq!(state(&first).await, "running");
        assert_eq!((state(&second).await.as_str(), state(&other).await.as_str()), ("queued", "running"));
        ok(limit("limited", "head", Options::from([("jobs", Variant::from(2_u32))])).await);
        for _ in 0..1000 {
            if state(&second).await == "running" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(state(&second).await, "running");
        for job in [&first, &second, &other] {
            ok(bus.call_at(job.as_str(), "Job.Cancel", &(Options::new(),)).await);
        }

        // Projects, too, of those who are in the group.
        for (owner, name) in [("limited", "inside"), ("unlimited", "outside")] {
            let _: (String,) =
                bus.call("Projects.Create", &(owner, name, Options::new())).await.expect("a project");
        }
        let publish = async |project: &str, by: &str| -> Result<(), Failed> {
            bus.call("Projects.Publish", &(project, true, options(&[("by", by)]))).await
        };
        for (project, by) in
            [("unlimited/outside", "head"), ("limited/inside", "otherhead"), ("limited/inside", "viewer")]
        {
            let refused = publish(project, by).await.unwrap_err();
            assert!(
                ["PermissionMissing", "NotFound"].contains(&refused.code()),
                "{project} {by} {refused:?}"
            );
        }
        ok(publish("limited/inside", "head").await);
    });
    let by_hand = |arguments: &[&str]| deputyctl("rolesportal", &[&["account"], arguments].concat());
    let limited = by_hand(&["limit", "roles", "limited", "--cpus", "0.5", "--memory", "1G", "--by", "head"]);
    assert_eq!(limited.status, 0, "{}", limited.stderr);
    let shown = by_hand(&["show", "roles", "limited", "--by", "head"]).stdout;
    assert!(shown.contains("cpus") && shown.contains("0.5") && !shown.contains("jobs="), "{shown}");
    assert_eq!(by_hand(&["limit", "roles", "limited", "--none"]).status, 0);
    assert!(!by_hand(&["show", "roles", "limited"]).stdout.contains("cpus"));
    assert_ne!(by_hand(&["limit", "roles", "limited"]).status, 0);
}

#[test]
fn a_link_is_removed_by_its_account_and_by_those_who_manage_links() {
    prepare();
    for (name, os_user) in [("unlink-own", "bob"), ("unlink-lab", "carol")] {
        for arguments in [
            &["account", "add", "roles", name, "--group", "lab"][..],
            &["consent", "grant", "roles", name, os_user],
            &["link", "request", "roles", name, os_user],
        ] {
            let output = deputyctl("root", arguments);
            assert_eq!(output.status, 0, "{arguments:?}: {}", output.stderr);
        }
    }
    on_bus("rolesportal", async |bus| {
        let unlink = async |name: &str, by: &str| -> Result<(), Failed> {
            bus.call("Links.Unlink", &(name, options(&[("by", by)]))).await
        };
        for by in ["viewer", "helper", "otherhead", "unlink-own"] {
            assert_eq!(unlink("unlink-lab", by).await.unwrap_err().code(), "PermissionMissing", "{by}");
        }
        assert_eq!(unlink("unlink-lab", "gone").await.unwrap_err().code(), "AccountNotActive");
        ok(unlink("unlink-own", "unlink-own").await);
    });
    let by = |who: &str| {
        deputyctl("rolesportal", &["link", "remove", "roles", "unlink-lab", "--yes", "--by", who])
    };
    assert!(by("viewer").stderr.contains("PermissionMissing"));
    assert_eq!(by("head").status, 0);
    // The owner and root act in their own name.
    let root = deputyctl("root", &["link", "request", "roles", "unlink-lab", "bob", "--by", "head"]);
    assert!(root.stderr.contains("InvalidArgument"), "{}", root.stderr);
}

#[test]
fn acting_for_another_account_needs_the_role_a_reason_and_lasts_a_while() {
    prepare();
    on_bus("rolesportal", async |bus| {
        ok(bus.call("Accounts.Create", &("supporter", options(&[("role", "support")]))).await);
        ok(bus.call("Accounts.Create", &("customer", Options::new())).await);
        let act = async |whom: &str, reason: &str, by: &str| {
            let given = if by.is_empty() { Options::new() } else { options(&[("by", by)]) };
            bus.call::<_, zbus::OwnedObjectPath>("Accounts.ActFor", &(whom, reason, given)).await
        };
        for (whom, reason, by, expected) in [
            ("customer", "ticket", "", "ActingAccountRequired"),
            ("customer", "ticket", "super", "PermissionMissing"),
            ("customer", " ", "supporter", "InvalidArgument"),
            ("supporter", "ticket", "supporter", "InvalidArgument"),
            ("admin", "ticket", "supporter", "PermissionMissing"),
            ("pending", "ticket", "supporter", "AccountNotActive"),
            ("nobody", "ticket", "supporter", "NotFound"),
        ] {
            assert_eq!(act(whom, reason, by).await.unwrap_err().code(), expected, "{whom} {by}");
        }
        let session = act("customer", "ticket 12", "supporter").await.unwrap();
        // It administers nothing.
        let administers: Result<(), Failed> = bus
            .call("Accounts.Edit", &("customer", options(&[("by", session.as_str()), ("email", "x")])))
            .await;
        assert_eq!(administers.unwrap_err().code(), "PermissionMissing");
        let argv = vec![b"/bin/true".to_vec()];
        let run = async || -> Failed {
            bus.call::<_, zbus::OwnedObjectPath>(
                "Jobs.Run",
                &(session.as_str(), argv.clone(), Options::new()),
            )
            .await
            .unwrap_err()
        };
        assert_eq!(run().await.code(), "NotLinked");
        // It ends with either account.
        ok(bus.call("Accounts.Deactivate", &("supporter", Options::new())).await);
        assert_eq!(run().await.code(), "NotFound");
    });
}

#[test]
fn the_command_line_has_all_of_it() {
    prepare();
    let run = |arguments: &[&str], status: i32| -> String {
        let output = deputyctl("rolesportal", arguments);
        assert_eq!(output.status, status, "{arguments:?}: {}{}", output.stdout, output.stderr);
        format!("{}{}", output.stdout, output.stderr)
    };
    run(&["group", "create", "roles", "cli-lab", "--description", "by hand"], 0);
    let file = "/tmp/deputy-suite-accounts.csv";
    fs::write(
        file,
        "account,email,group\ncli-a,a@example.org,cli-lab\ncli-b,,\n../x,,\ncli-c,,no-such-group\n",
    )
    .unwrap();
    let dry = run(&["account", "import", "roles", file, "--dry-run"], 1);
    assert!(dry.contains("to be added") && dry.contains("refused"), "{dry}");
    run(&["account", "show", "roles", "cli-a"], 125);
    run(&["account", "import", "roles", file], 1);
    let again = run(&["account", "import", "roles", file], 1);
    assert!(again.contains("there already") && !again.contains("added\n"), "{again}");
    assert!(run(&["account", "list", "roles", "--group", "cli-lab"], 0).contains("cli-a"));
    let text = run(&["account", "list", "roles", "--text", "A@EXAMPLE"], 0);
    assert!(text.contains("cli-a") && !text.contains("cli-b"), "{text}");
    assert_eq!(run(&["account", "list", "roles", "--unused-days", "30", "--text", "cli-"], 0), "none\n");
    run(&["role", "set", "roles", "cli-a", "helper"], 0);
    run(&["role", "set", "roles", "cli-a", "administrator", "--group", "cli-lab"], 0);
    assert!(run(&["group", "members", "roles", "cli-lab"], 0).contains("administrator"));
    run(&["role", "take", "roles", "cli-a", "--group", "cli-lab"], 0);
    assert!(run(&["role", "list", "roles"], 0).contains("manage_accounts run_jobs use_files"));
    run(&["account", "register", "roles", "cli-d"], 0);
    assert!(
        run(&["account", "list", "roles", "--status", "pending", "--sort", "created", "--desc"], 0)
            .contains("cli-d")
    );
    run(&["account", "reject", "roles", "cli-d", "--reason", "unknown"], 0);
    run(&["account", "register", "roles", "cli-d"], 0);
    run(&["account", "approve", "roles", "cli-d", "--by", "admin"], 0);
    run(&["account", "edit", "roles", "cli-d", "--email", "d@example.org"], 0);
    run(&["account", "deactivate", "roles", "cli-d", "--reason", "left", "--cancel-jobs"], 0);
    assert!(run(&["account", "show", "roles", "cli-d"], 0).contains("left"));
    run(&["account", "reactivate", "roles", "cli-d"], 0);
    assert!(run(&["account", "remains", "roles", "cli-a"], 1).contains("cli-lab"));
    assert!(run(&["account", "delete", "roles", "cli-a", "--yes"], 125).contains("NotEmpty"));
    assert!(run(&["group", "delete", "roles", "cli-lab", "--yes"], 125).contains("NotEmpty"));
    run(&["group", "remove", "roles", "cli-lab", "cli-a"], 0);
    run(&["account", "remains", "roles", "cli-a"], 0);
    run(&["account", "delete", "roles", "cli-a", "--yes"], 0);
    run(&["group", "delete", "roles", "cli-lab", "--yes"], 0);
    assert!(!run(&["group", "list", "roles"], 0).contains("cli-lab"));
    let acting = run(&["account", "act-for", "roles", "cli-b", "--by", "viewer", "--reason", "x"], 125);
    assert!(acting.contains("PermissionMissing"), "{acting}");
}
