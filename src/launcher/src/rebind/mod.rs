//! Trees that go from one OS account to another: planned, done, and put back. Only root asks.
//!
//! This is root's code in a tree that others can change while it works. What keeps it to what was meant:
//!
//! - a plan is a list of inodes, found below the tree's top by descriptors, one name at a time, without links, magic links
//!   and other mounts ([`plan`]);
//! - what is changed is on that list, and is looked at and changed through one descriptor ([`step`]): that it is that
//!   inode, and that a source account (or already the destination) owns it. Neither can be changed by anybody but root;
//! - names only lead to inodes ([`follow`]): whoever swaps them makes the walk miss something, never touch something else.

mod carry;
mod follow;
mod journal;
mod links;
mod parties;
mod plan;
mod quota;
mod records;
mod step;
mod talk;
mod tree;

use std::os::fd::OwnedFd;

use deputy_core::denial::{Code, Denial};
use deputy_core::message::{RebindReply, RebindRequest};
use deputy_core::rebind::RebindState;
use deputy_core::settings::Settings;
use deputy_wire::Peer;

use self::carry::Direction;
use self::records::Records;
use self::talk::Talk;
use crate::request::refuse;

/// Does what root asks, and answers.
pub fn serve(settings: &Settings, wanted: RebindRequest, connection: &OwnedFd, peer: Peer) {
    let mut talk = Talk::new(connection);
    match answer(settings, wanted, peer, &mut talk) {
        Ok(reply) => talk.end(reply),
        Err(denial) => {
            talk.flush();
            refuse(connection, peer, denial);
        }
    }
}

fn answer(
    settings: &Settings,
    wanted: RebindRequest,
    peer: Peer,
    talk: &mut Talk<'_>,
) -> Result<RebindReply, Denial> {
    // What gives files away is root's own word alone: nothing that passes through deputyd.
    if peer.uid != 0 {
        return Err(Denial::new(
            Code::PeerNotAllowed,
            "rebind",
            "only root moves trees to other OS accounts",
        )
        .remedy("run the same deputyctl rebind command as root"));
    }
    match wanted {
        RebindRequest::Plan { path, from, to, groups, leave_linked } => {
            let _turn = records::turn()?;
            let parties = parties::named(settings, &from, &to, &groups)?;
            let plan = plan::make(&path, parties, leave_linked, talk)?;
            tracing::info!(
                event = "rebind_planned",
                plan = %plan.id,
                path = %plan.path,
                os_user = %plan.to.name,
                files = plan.moved.files,
            );
            Ok(RebindReply::Planned(Box::new(plan)))
        }
        RebindRequest::Apply { id, while_running } => {
            let _turn = records::turn()?;
            let (records, plan) = Records::open(&id)?;
            carry::carry(settings, &records, &plan, Direction::There, while_running, talk)
                .map(RebindReply::Ended)
        }
        RebindRequest::Undo { id, while_running } => {
            let _turn = records::turn()?;
            let (records, plan) = Records::open(&id)?;
            carry::carry(settings, &records, &plan, Direction::Back, while_running, talk)
                .map(RebindReply::Ended)
        }
        RebindRequest::List => {
            for id in records::ids()? {
                let (records, plan) = Records::open(&id)?;
                let (state, done) = records.state()?;
                talk.say(RebindReply::Found { plan: Box::new(plan), state, done });
            }
            Ok(RebindReply::Done)
        }
        RebindRequest::Show { id } => {
            let (records, plan) = Records::open(&id)?;
            let (state, done) = records.state()?;
            records.each_problem(|problem| talk.problem(problem))?;
            talk.flush();
            Ok(RebindReply::Found { plan: Box::new(plan), state, done })
        }
        RebindRequest::Forget { id } => {
            let _turn = records::turn()?;
            let (records, _) = Records::open(&id)?;
            match records.state()?.0 {
                RebindState::Applying | RebindState::Undoing => Err(Denial::new(
                    Code::Conflict,
                    "rebind",
                    "the plan was begun and has not come to its end",
                )
                .remedy("let apply or undo end first: its records say what was there")),
                _ => records.remove().map(|()| RebindReply::Done),
            }
        }
    }
}
