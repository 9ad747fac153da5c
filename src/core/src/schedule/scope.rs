//! What holds a job up: ceilings of its account, its groups and its application, and the machine.

use std::collections::HashMap;
use std::fmt;

use super::amount::{Amount, Most, Resource};
use crate::names::{ApplicationName, GroupName};

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Earlier jobs of its account come first.
    EarlierJobs,
    /// Its account has as much as it may.
    Account(Resource),
    /// Its group has as much as it may.
    Group(GroupName, Resource),
    /// Its application has as much as it may.
    Application(Resource),
    /// The machine has no more.
    Machine(Resource),
    /// What is free is for jobs that come first.
    FairShare(Resource),
    /// It is about to start.
    Nothing,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::EarlierJobs => f.write_str("earlier jobs of the account"),
            Hold::Account(resource) => write!(f, "ceiling: account.{resource}"),
            Hold::Group(group, resource) => write!(f, "ceiling: group.{resource} ({group})"),
            Hold::Application(resource) => write!(f, "ceiling: total.{resource}"),
            Hold::Machine(resource) => write!(f, "machine: {resource}"),
            Hold::FairShare(resource) => write!(f, "fair share: {resource}"),
            Hold::Nothing => f.write_str("starting"),
        }
    }
}

/// What is used of one whole, and how much that may be at most.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scope {
    pub used: Amount,
    pub most: Most,
}

/// How one job stands in a scope.
enum Room {
    Enough,
    TooLittle(Resource),
    /// There is room, but it is for another.
    Reserved(Resource),
}

impl Scope {
    fn room(&self, need: Amount, reserved: Option<Amount>) -> Room {
        if let Some(resource) = self.most.lacks(self.used, need) {
            return Room::TooLittle(resource);
        }
        match reserved.and_then(|reserved| self.most.crowds(self.used, need, reserved)) {
            Some(resource) => Room::Reserved(resource),
            None => Room::Enough,
        }
    }
}

/// A group of an application.
pub(super) type GroupKey = (ApplicationName, GroupName);

/// The needs of the first job that is held up in each scope: others leave it so much, in what both use.
///
/// A job reserves in its narrow scopes as soon as they hold it up, and in the wide ones only when nothing narrower
/// does: who is held by a ceiling of his own holds nobody else up.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    machine: Option<Amount>,
    applications: HashMap<ApplicationName, Amount>,
    groups: HashMap<GroupKey, Amount>,
}

/// The scopes of one job.
pub(super) struct Scopes<'a> {
    pub application_name: &'a ApplicationName,
    pub account: &'a Scope,
    pub groups: &'a [(GroupKey, Scope)],
    pub application: &'a Scope,
    pub machine: &'a Scope,
}

impl Scopes<'_> {
    /// What holds a job up now; if something does, the reservations take note of the job.
    pub fn hold(&self, need: Amount, reservations: &mut Reservations) -> Option<Hold> {
        if let Room::TooLittle(resource) = self.account.room(need, None) {
            return Some(Hold::Account(resource));
        }
        let in_groups = self.groups.iter().find_map(|(key, group)| {
            match group.room(need, reservations.groups.get(key).copied()) {
                Room::Enough => None,
                Room::TooLittle(resource) => Some(Hold::Group(key.1.clone(), resource)),
                Room::Reserved(resource) => Some(Hold::FairShare(resource)),
            }
        });
        if in_groups.is_some() {
            self.reserve_in_groups(need, reservations);
            return in_groups;
        }
        let reserved = reservations.applications.get(self.application_name).copied();
        let in_application = match self.application.room(need, reserved) {
            Room::Enough => None,
            Room::TooLittle(resource) => Some(Hold::Application(resource)),
            Room::Reserved(resource) => Some(Hold::FairShare(resource)),
        };
        if in_application.is_some() {
            self.reserve_in_groups(need, reservations);
            self.reserve_in_application(need, reservations);
            return in_application;
        }
        let on_machine = match self.machine.room(need, reservations.machine) {
            Room::Enough => None,
            Room::TooLittle(resource) => Some(Hold::Machine(resource)),
            Room::Reserved(resource) => Some(Hold::FairShare(resource)),
        };
        if on_machine.is_some() {
            self.reserve_in_groups(need, reservations);
            self.reserve_in_application(need, reservations);
            reservations.machine.get_or_insert(need);
        }
        on_machine
    }

    fn reserve_in_groups(&self, need: Amount, reservations: &mut Reservations) {
        for (key, group) in self.groups {
            if !group.most.is_boundless() {
                reservations.groups.entry(key.clone()).or_insert(need);
            }
        }
    }

    fn reserve_in_application(&self, need: Amount, reservations: &mut Reservations) {
        if !self.application.most.is_boundless() {
            reservations.applications.entry(self.application_name.clone()).or_insert(need);
        }
    }
}
