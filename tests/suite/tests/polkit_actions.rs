//! A machine whose polkit does not know Deputy's actions: a check says so, and root goes on.
#![forbid(unsafe_code)]

use std::fs;

use deputy_suite::machine::wait_until;
use deputy_suite::{deputyctl, need_the_sandbox};

const ACTIONS: &str = "/usr/share/polkit-1/actions/org.deputy.Deputy1.policy";

#[test]
fn actions_that_polkit_does_not_know_are_found_with_the_remedy() {
    need_the_sandbox();
    let added = deputyctl("root", &["account", "add", "demo", "polkitless"]);
    assert_eq!(added.status, 0, "{}", added.stderr);
    let check = || deputyctl("root", &["--json", "link", "check", "demo", "polkitless", "alice"]).stdout;
    assert!(!check().contains("polkit-"), "{}", check());
    let policy = fs::read(ACTIONS).expect("the sandbox's own copy");
    fs::remove_file(ACTIONS).expect("the sandbox's own copy");
    // polkit watches its folder; how soon it sees the change is its own affair.
    wait_until("polkit has forgotten the actions", || check().contains("polkit-action-missing"));
    for said in ["org.deputy.Deputy1.manage-accounts", "install org.deputy.Deputy1.policy"] {
        assert!(check().contains(said), "{said}: {}", check());
    }
    // What polkit does not know is nobody's but root's.
    assert!(deputyctl("carol", &["account", "list", "demo"]).stderr.contains("NotAuthorized"));
    fs::write(ACTIONS, policy).expect("the sandbox's own copy");
    wait_until("polkit knows the actions again", || !check().contains("polkit-"));
}
