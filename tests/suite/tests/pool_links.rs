//! Leases through `deputyd`: an application's account without an OS account gets one, and works as it.
#![forbid(unsafe_code)]

use deputy_suite::machine::run;
use deputy_suite::need_the_sandbox;
use deputy_suite::people::{deputyctl, ok, refused};
use deputy_suite::pool::{lease, pool, record_path};

#[test]
fn an_account_without_an_os_account_is_leased_one_and_works_as_it() {
    need_the_sandbox();
    let pool = pool(220_000, 220_009, "");
    let tenants = |arguments: &[&str]| deputyctl("tenants", arguments);
    // An application without the key, a stranger, and an account that is not there: nothing is leased.
    ok(&deputyctl("portal", &["account", "add", "demo", "unleased"]));
    assert_eq!(refused(&deputyctl("portal", &["pool", "lease", "demo", "unleased"])), "PoolNotAllowed");
    assert_eq!(refused(&tenants(&["pool", "lease", "tenants", "nobody"])), "NotFound");
    ok(&tenants(&["account", "add", "tenants", "ada"]));
    let stranger = refused(&deputyctl("alice", &["pool", "lease", "tenants", "ada"]));
    assert!(matches!(stranger.as_str(), "NotAuthorized" | "NotFound"), "{stranger}");
    assert!(!record_path(pool.first).exists());

    for _ in 0..2 {
        assert!(ok(&tenants(&["pool", "lease", "tenants", "ada"])).ends_with("active"));
    }
    let links = ok(&tenants(&["--json", "link", "list", "tenants", "--account", "ada"]));
    let links: serde_json::Value = serde_json::from_str(&links).unwrap();
    assert_eq!(links.as_array().map(Vec::len), Some(1), "{links}");
    let link = &links[0];
    assert_eq!((link["os_user"].as_str(), link["uid"].as_u64()), (Some("dp220000"), Some(220_000)), "{link}");
    assert_eq!(
        (link["state"].as_str(), link["given_by"].as_str()),
        (Some("active"), Some("policy")),
        "{link}"
    );
    let said = ok(&tenants(&["run", "--app", "tenants", "--account", "ada", "--", "id", "-un"]));
    assert_eq!(said, "dp220000");

    // Who has an OS account needs none.
    ok(&tenants(&["account", "add", "tenants", "linked"]));
    run("deputyctl", &["consent", "grant", "tenants", "linked", "alice"]);
    ok(&tenants(&["link", "request", "tenants", "linked", "alice"]));
    assert_eq!(refused(&tenants(&["pool", "lease", "tenants", "linked"])), "Conflict");
    assert!(!record_path(pool.first + 1).exists());
    assert!(ok(&tenants(&["pool", "lease", "tenants", "linked", "--relink"])).ends_with("active"));
    assert_eq!(lease("linked").os_account.uid.raw(), pool.first + 1);
}
