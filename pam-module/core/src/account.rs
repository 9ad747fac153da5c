//! `account`: whether the account may be used here and now.

use zeroize::Zeroizing;

use crate::options::Options;
use crate::pam::{Pam, Refusal, World};
use crate::start::Start;

/// Status, role, link and consent; last, because the program goes on when it has been changed, the password's age.
pub fn account<P: Pam, W: World>(pam: &mut P, world: &W, options: &Options) -> Result<(), Refusal> {
    let mut start = Start::new(pam, world, options)?;
    let standing = start.standing()?;
    let os_user = start.may_enter(standing.as_ref()).map_err(|why| {
        start.refused(&why);
        Refusal::NotPermitted
    })?;
    if start.known.is_none() {
        // Something else authenticated it.
        start.enter(os_user, Zeroizing::default())?;
    }
    if standing.is_some_and(|standing| standing.must_change) {
        start.debug("the password has to be replaced");
        return Err(Refusal::NewPasswordNeeded);
    }
    Ok(())
}
