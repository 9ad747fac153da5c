//! What would be decided about a job: the decision of a run itself, without a folder, PAM, or a consent written down.

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::JobId;
use deputy_core::message::{ExplainRequest, Explanation, RunRequest};
use deputy_core::stream::Streams;

use super::decide::{self, Purpose};
use super::variables::Variables;
use crate::rules;

/// Decides as a run would.
pub fn explain(request: ExplainRequest) -> Result<Explanation, Denial> {
    let run = RunRequest {
        // No run has this id: nothing is started.
        job: JobId::from_random([0; JobId::BYTES]),
        application: request.application,
        account: request.account,
        os_account: request.os_account,
        kind: request.kind,
        argv: request.argv,
        script: false,
        directory: request.directory,
        environment: request.environment,
        environment_descriptor: false,
        umask: None,
        os_group: request.os_group,
        project_group: None,
        streams: Streams::default(),
        bounds: request.bounds,
        gpus: Vec::new(),
        login: None,
    };
    let purpose = Purpose::Explain { slurm: request.slurm.as_ref() };
    match decide::decide(&rules::settings()?, &run, &Variables::default(), purpose) {
        Ok(decision) => Ok(Explanation::Allowed { rule: decision.rule }),
        // A fault of the machine's is no decision.
        Err(denial) if denial.code == Code::Internal => Err(denial),
        Err(denial) => Ok(Explanation::Refused(denial)),
    }
}
