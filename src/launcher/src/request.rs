//! One request, in a process of its own: read one bounded message, decode it, carry it out, leave.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use deputy_core::consent::GivenBy;
use deputy_core::denial::{Code, Denial};
use deputy_core::ids::{JobId, OsUid};
use deputy_core::message::{
    self, Asking, ConsentRequest, LauncherReply, LauncherRequest, LinkState, MAX_FORGET, OwnerReply,
    SubmitRequest, WithdrawRequest, Withdrawn, decode,
};
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::settings::Settings;
use deputy_core::stream::CapturedStream;
use deputy_sys::process;
use deputy_sys::slots::{self, Slot};
use deputy_wire::{Packet, Peer};
use rustix::net::sockopt;
use serde::Serialize;

use crate::rules::Rules;
use crate::{
    agent, consents, conversation, examiner, holders, offers, owner, paths, pool, quota, rebind, rules,
    shepherd,
};

/// Through which socket a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// `launcher.sock`.
    Launcher,
    /// `owner.sock`.
    Owner,
}

/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// The descriptor of the connection in each child.
const CONNECTION: i32 = 3;

/// A child that asks for more than this of the machine's entropy does something wrong.
pub fn random<const N: usize>() -> Result<[u8; N], Denial> {
    let mut bytes = [0; N];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match got {
        Ok(count) if count == N => Ok(bytes),
        _ => Err(Denial::internal("the kernel gave no random numbers")),
    }
}

/// The child's whole life. What it inherits from the launcher is closed before anything is read.
pub fn child(entrance: Entrance, connection: OwnedFd, peer: Peer) -> ! {
    let status = catch_unwind(AssertUnwindSafe(|| {
        let connection = process::move_to(connection, CONNECTION)?;
        process::close_from(CONNECTION + 1)?;
        process::unblock_signals()?;
        process::ignore_file_size_signal()?;
        sockopt::set_socket_timeout(&connection, sockopt::Timeout::Recv, Some(PATIENCE))?;
        sockopt::set_socket_timeout(&connection, sockopt::Timeout::Send, Some(PATIENCE))?;
        match entrance {
            Entrance::Launcher => serve_launcher(connection, peer),
            Entrance::Owner => serve_owner(&connection, peer),
        }
        Ok::<(), io::Error>(())
    }));
    process::exit_now(i32::from(!matches!(status, Ok(Ok(())))));
}

/// The whole life of the child that ends what is left of jobs whose shepherds have gone. It leaves well whatever comes of
/// it, so that a failure does not make the launcher try for ever; who attaches to such a job tries again.
pub fn sweep() -> ! {
    let swept = catch_unwind(AssertUnwindSafe(|| {
        process::close_from(CONNECTION)?;
        process::unblock_signals()?;
        if let Ok(settings) = rules::settings() {
            shepherd::end_all_that_is_left(&settings);
        }
        Ok::<(), io::Error>(())
    }));
    if !matches!(swept, Ok(Ok(()))) {
        tracing::error!(event = "sweep_failed");
    }
    process::exit_now(0);
}

/// Sends a reply. A client that has gone has nobody to be told.
pub fn reply<M: Serialize>(connection: impl AsFd, message: &M) {
    reply_with(connection, message, &[]);
}

fn reply_with<M: Serialize>(connection: impl AsFd, message: &M, descriptors: &[BorrowedFd<'_>]) {
    match message::encode(message) {
        Ok(packet) => {
            let _ = deputy_wire::send(connection, &packet, descriptors);
        }
        Err(error) => tracing::error!(event = "reply_failed", error = %error),
    }
}

/// Takes a slot of this sort, which the process then holds until it ends.
pub fn slot(sort: &'static str, count: u16) -> Result<Slot, Denial> {
    take(sort, sort, count)
}

/// Takes a slot of an application's own share of a sort: half of them, so that one application that holds on to its
/// own does not keep the others out.
pub fn share(sort: &'static str, count: u16, service_uid: u32) -> Result<Slot, Denial> {
    take(sort, &format!("{sort}-of-{service_uid}"), count.div_ceil(2))
}

/// Takes a slot of one OS account's own share of a sort: whoever has the account can keep its processes from going on.
pub fn share_of_os_account(sort: &'static str, count: u16, uid: OsUid) -> Result<Slot, Denial> {
    take(sort, &format!("{sort}-as-{}", uid.raw()), count)
}

fn take(sort: &str, name: &str, count: u16) -> Result<Slot, Denial> {
    slots::take(Path::new(paths::SLOTS), name, count)
        .map_err(|error| Denial::internal(format!("{}: {error}", paths::SLOTS)))?
        .ok_or_else(|| {
            Denial::new(
                Code::Busy,
                format!("deputy.toml: launcher.max_{sort}"),
                format!("{count} of these run already"),
            )
            .remedy("try again later, or let root raise the limit")
        })
}

fn receive(connection: &OwnedFd) -> Result<Option<Packet>, Denial> {
    Ok(deputy_wire::receive(connection)?)
}

fn serve_owner(connection: &OwnedFd, peer: Peer) {
    let answer = || -> Result<Option<OwnerReply>, Denial> {
        // Looked at before the request is waited for: a process that connected and ended leaves a pid that goes to
        // somebody else, while another one of its job still holds the connection.
        let settings = rules::settings();
        let no_job = settings.as_ref().map_or(Ok(()), |settings| owner::refuse_jobs(settings, peer));
        let Some(packet) = receive(connection)? else { return Ok(None) };
        if !packet.descriptors.is_empty() {
            return Err(unwanted_descriptors());
        }
        let request = decode(&packet.bytes)?;
        let _slot = slot("requests", settings?.launcher.max_requests)?;
        no_job?;
        owner::answer(request, peer).map(Some)
    };
    match answer() {
        Ok(None) => {}
        Ok(Some(answer)) => reply(connection, &answer),
        Err(denial) => {
            denied(&denial, peer);
            reply(connection, &OwnerReply::Denied(denial));
        }
    }
}

fn serve_launcher(connection: OwnedFd, peer: Peer) {
    let packet = match receive(&connection) {
        Ok(Some(packet)) => packet,
        Ok(None) => return,
        Err(denial) => return refuse(&connection, peer, denial),
    };
    let request = match decode::<LauncherRequest>(&packet.bytes) {
        Ok(request) => request,
        Err(error) => return refuse(&connection, peer, error.into()),
    };
    let settings = match rules::settings() {
        Ok(settings) => settings,
        Err(denial) => return refuse(&connection, peer, denial),
    };
    // Three requests take descriptors and keep the connection; the others are answered here.
    match request {
        LauncherRequest::Run(run) => {
            shepherd::run(&settings, &run, None, packet.descriptors, &connection, peer);
        }
        LauncherRequest::Interact(SubmitRequest { run, slurm }) => {
            shepherd::run(&settings, &run, Some(&slurm), packet.descriptors, &connection, peer);
        }
        LauncherRequest::Converse(_) => {
            conversation::start(&packet.bytes, packet.descriptors, connection, peer);
        }
        LauncherRequest::Submit(wanted) => {
            shepherd::submit(&settings, &wanted, packet.descriptors, &connection, peer);
        }
        _ if !packet.descriptors.is_empty() => refuse(&connection, peer, unwanted_descriptors()),
        LauncherRequest::Captured { job, stream } => captured(&settings, &job, stream, &connection, peer),
        LauncherRequest::Attach { job } => shepherd::attach(&settings, &job, &connection),
        LauncherRequest::Files(wanted) => agent::serve(&settings, &wanted, connection, peer),
        LauncherRequest::ExplainPath(wanted) => agent::explain(&settings, &wanted, &connection, peer),
        LauncherRequest::Rebind(wanted) => rebind::serve(&settings, wanted, &connection, peer),
        request => match answer(&settings, request, peer) {
            Ok(answer) => reply(&connection, &answer),
            Err(denial) => refuse(&connection, peer, denial),
        },
    }
}

/// Answers with a refusal and leaves a line in the journal.
pub fn refuse(connection: &OwnedFd, peer: Peer, denial: Denial) {
    denied(&denial, peer);
    reply(connection, &LauncherReply::Denied(denial));
}

fn denied(denial: &Denial, peer: Peer) {
    tracing::warn!(
        event = "denied",
        code = denial.code.as_str(),
        rule = %denial.rule,
        message = %denial.message,
        peer_uid = peer.uid,
        peer_pid = peer.pid,
    );
}

fn unwanted_descriptors() -> Denial {
    Denial::new(Code::BadMessage, "protocol", "this request takes no descriptors")
}

fn answer(settings: &Settings, request: LauncherRequest, peer: Peer) -> Result<LauncherReply, Denial> {
    let _slot = slot("requests", settings.launcher.max_requests)?;
    match request {
        LauncherRequest::RequestLink(wanted) => request_link(settings, &wanted, peer),
        LauncherRequest::Grant(wanted) => grant(&wanted, peer),
        LauncherRequest::Withdraw(unwanted) => withdraw(&unwanted, peer),
        LauncherRequest::Consents { application, after } => consents::page(after.as_deref(), |consent| {
            application.as_ref().is_none_or(|a| *a == consent.application)
        })
        .map(LauncherReply::Consents),
        LauncherRequest::Examine(wanted) => examiner::examine(&wanted, peer).map(LauncherReply::Findings),
        LauncherRequest::Explain(wanted) => shepherd::explain(wanted).map(LauncherReply::Explained),
        LauncherRequest::Abandon { job } => shepherd::abandon(&job).map(|()| LauncherReply::Done),
        LauncherRequest::Forget { jobs } => forget(settings, &jobs),
        LauncherRequest::Folders { after } => shepherd::jobs_after(after.as_ref(), MAX_FORGET)
            .map(|jobs| LauncherReply::Folders { jobs })
            .map_err(|error| Denial::new(Code::Disk, "jobs", format!("the jobs' folders: {error}"))),
        LauncherRequest::Gpus => {
            Ok(LauncherReply::Gpus { count: shepherd::count_gpus(&settings.executor.local.capacity) })
        }
        LauncherRequest::TellQuota(wanted) => quota::told(settings, &wanted, peer).map(LauncherReply::Quotas),
        LauncherRequest::CommandAtSlurm { job, command } => {
            shepherd::command_at_slurm(settings, &job, command).map(|()| LauncherReply::Done)
        }
        LauncherRequest::Cluster(wanted) => {
            shepherd::resources(settings, &wanted).map(LauncherReply::Cluster)
        }
        LauncherRequest::AskSlurm { jobs } => {
            shepherd::ask_slurm(settings, &jobs).map(LauncherReply::AtSlurm)
        }
        LauncherRequest::LeasePool { application, account } => {
            pool::lease(&application, &account, peer).map(LauncherReply::Leased)
        }
        LauncherRequest::ReturnPool { application, account } => {
            pool::give_back(settings, &application, &account, peer).map(LauncherReply::Returned)
        }
        LauncherRequest::ListPool { after } => pool::page(after, peer).map(LauncherReply::Pool),
        LauncherRequest::ImportPool { records } => {
            pool::import(settings, &records, peer).map(|()| LauncherReply::Done)
        }
        LauncherRequest::MakeGroup { application, project } => {
            pool::make_group(&application, &project).map(pool::group)
        }
        LauncherRequest::Group { application, gid } => pool::group_of(&application, gid).map(pool::group),
        LauncherRequest::SetGroup(wanted) => pool::set_group(&wanted, peer),
        LauncherRequest::ListGroups { after } => pool::groups_page(after, peer).map(LauncherReply::Groups),
        LauncherRequest::ImportGroups { groups } => {
            pool::import_groups(settings, &groups, peer).map(|()| LauncherReply::Done)
        }
        LauncherRequest::Run(_)
        | LauncherRequest::Interact(_)
        | LauncherRequest::Submit(_)
        | LauncherRequest::Files(_)
        | LauncherRequest::ExplainPath(_)
        | LauncherRequest::Rebind(_)
        | LauncherRequest::Converse(_)
        | LauncherRequest::Attach { .. }
        | LauncherRequest::Captured { .. } => Err(Denial::internal("this request is answered elsewhere")),
    }
}

/// Answers with the descriptors of a captured stream.
fn captured(settings: &Settings, job: &JobId, stream: CapturedStream, connection: &OwnedFd, peer: Peer) {
    let open = || {
        let slot = slot("requests", settings.launcher.max_requests)?;
        let files = shepherd::captured(job, stream).map_err(|error| {
            Denial::new(Code::Disk, "jobs", format!("the captured output cannot be opened: {error}"))
        })?;
        Ok((files.ok_or_else(Denial::not_found)?, slot))
    };
    match open() {
        Ok((files, _slot)) => {
            reply_with(connection, &LauncherReply::Captured, &[files.bytes.as_fd(), files.left_out.as_fd()]);
        }
        Err(denial) => refuse(connection, peer, denial),
    }
}

fn request_link(settings: &Settings, wanted: &ConsentRequest, peer: Peer) -> Result<LauncherReply, Denial> {
    let rules = Rules::read(&wanted.application)?;
    let (_, identity) = rules.target(&wanted.os_user)?;
    let offer = || {
        let lifetime = settings.links.code_lifetime_seconds;
        offers::make(&wanted.application, &wanted.account, &identity, lifetime, wanted.expires)
    };
    let state = match consents::valid(&rules, &wanted.account, &identity, peer.uid) {
        Ok(consent) => LinkState::Active {
            given_by: consent.given_by,
            expires: consent.expires,
            renewal: (wanted.asking == Asking::Renew).then(offer).transpose()?.map(|offer| offer.code),
        },
        // What is missing, expired or stale, the owner can give anew.
        Err(denial)
            if wanted.asking != Asking::Look
                && matches!(denial.code, Code::NoConsent | Code::ConsentExpired | Code::LinkStale) =>
        {
            holders::check(&rules, &wanted.account, identity.uid)?;
            let offer = offer()?;
            LinkState::Waiting { code: offer.code, expires: offer.expires }
        }
        Err(denial) => return Err(denial),
    };
    Ok(LauncherReply::Link { os_account: identity, state })
}

fn grant(wanted: &ConsentRequest, peer: Peer) -> Result<LauncherReply, Denial> {
    // What creates right is root's own word alone: nothing that passes through deputyd, polkit's answer included.
    if peer.uid != 0 {
        return Err(Denial::new(Code::PeerNotAllowed, "consent by root", "only root grants consent")
            .remedy("run deputyctl consent grant as root"));
    }
    let rules = Rules::read(&wanted.application)?;
    let (_, identity) = rules.target(&wanted.os_user)?;
    let consent =
        consents::give(&rules, &wanted.account, &identity, GivenBy::Root, peer.uid, wanted.expires)?;
    let state = LinkState::Active { given_by: GivenBy::Root, expires: consent.expires, renewal: None };
    Ok(LauncherReply::Link { os_account: identity, state })
}

fn withdraw(unwanted: &WithdrawRequest, peer: Peer) -> Result<LauncherReply, Denial> {
    let WithdrawRequest { application, account, os_account, end_jobs } = unwanted;
    let by_root = peer.uid == 0;
    let removed = consents::withdraw(application, account, os_account.uid, peer.uid, by_root)?;
    Ok(LauncherReply::Withdrawn(withdrawn(application, account, os_account.uid, removed, *end_jobs)))
}

/// Ends what runs under a consent that has been taken back, where that is wanted, and says what was done.
pub fn withdrawn(
    application: &ApplicationName,
    account: &AccountName,
    uid: OsUid,
    removed: bool,
    end_jobs: bool,
) -> Withdrawn {
    let (ended, left) = if end_jobs { shepherd::end_all(application, account, uid) } else { (0, 0) };
    Withdrawn { removed, ended, left }
}

fn forget(settings: &Settings, jobs: &[JobId]) -> Result<LauncherReply, Denial> {
    if jobs.len() > MAX_FORGET {
        return Err(Denial::invalid(format!("at most {MAX_FORGET} jobs at a time")));
    }
    shepherd::forget(settings, jobs).map(|()| LauncherReply::Done)
}
