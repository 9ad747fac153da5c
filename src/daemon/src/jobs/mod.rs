//! `.Jobs` and `.Job`: runs of commands as the accounts' own OS accounts.

pub mod admit;
pub mod asked;
pub mod calls;
pub mod dependencies;
pub(crate) mod executor;
mod forget;
pub mod live;
pub mod output;
pub mod queue;
pub mod ready;
pub mod resources;
pub mod retention;
pub mod run;
mod services;
pub mod settle;
pub mod shown;
pub mod signals;
pub mod stdio;
pub mod track;
pub mod watch;

use deputy_core::ApplicationName;

use crate::authority::Owned;
use crate::store::Job;

impl Owned for Job {
    fn application(&self) -> &ApplicationName {
        &self.application
    }
    fn owner(&self) -> Option<u32> {
        Some(self.os.uid.raw())
    }
}
