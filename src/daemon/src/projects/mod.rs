//! `.Projects`: bodies of work of an application's accounts.
//!
//! A project is a record. What its members may do with files is decided by the kernel, for each as his own OS account.

mod calls;
mod folder;
mod group;
mod shown;

pub use calls::{create, delete, edit, hand_over, publish, share, unshare};
pub use folder::share_folder;
pub use group::{Turns, bring_into_step, gid_for, reconcile};
pub use shown::{get, list};

use deputy_core::project::{MAX_UMASK, ProjectKey};
use deputy_core::{Denial, OsGroupName};

use crate::authority::{About, Call, Grant};
use crate::bus::options::Options;
use crate::store::{Project, ProjectDefaults};

/// What the jobs of a project begin with, or one job, as options say it: `umask` in octal, `os_group`.
pub(crate) fn defaults(options: &mut Options) -> Result<(Option<u32>, Option<OsGroupName>), Denial> {
    let umask = options.text("umask")?.map(|text| umask(&text)).transpose()?;
    Ok((umask, options.name("os_group")?))
}

fn umask(text: &str) -> Result<u32, Denial> {
    let digits = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let umask = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    umask.filter(|umask| *umask <= MAX_UMASK).ok_or_else(|| {
        Denial::invalid("the option umask is octal, 000 to 077: what it takes away beside the login's own")
    })
}

/// Decides a call about one project that exists, by its owner, or by whoever may manage the owner's projects.
async fn manage(call: &Call, options: &mut Options, key: &ProjectKey) -> Result<(Grant, Project), Denial> {
    let about = About::application(options.application()?).account(&key.owner).by(options.by()?);
    let grant = call.authorize(about).await?;
    let application = &grant.application()?.name;
    let project = call.daemon.store.project(application, key)?.ok_or_else(Denial::not_found)?;
    Ok((grant, project))
}

/// Defaults with what was named changed, and the rest as it was.
fn changed(old: ProjectDefaults, umask: Option<u32>, os_group: Option<OsGroupName>) -> ProjectDefaults {
    ProjectDefaults { umask: umask.or(old.umask), os_group: os_group.or(old.os_group) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_umask_is_octal_and_takes_nothing_from_the_owner() {
        for (text, expected) in [("0", 0), ("027", 0o027), ("77", 0o077)] {
            assert_eq!(umask(text).unwrap(), expected);
        }
        for text in ["", "+7", "8", "0o27", "700", "0100", "99999999999"] {
            assert!(umask(text).is_err(), "{text}");
        }
    }
}
