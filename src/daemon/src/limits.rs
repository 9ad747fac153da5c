//! How much of something one uid, and all together, may have at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use deputy_core::{Code, Denial};

/// A ceiling. Clones share it.
#[derive(Debug, Clone)]
pub struct Ceiling(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    what: &'static str,
    per_uid: usize,
    in_all: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_uid: HashMap<u32, usize>,
    in_all: usize,
}

/// A place below the ceiling, given back when dropped.
#[derive(Debug)]
pub struct Place {
    ceiling: Ceiling,
    uid: u32,
}

impl Ceiling {
    /// A ceiling for `what`, in words.
    pub fn new(what: &'static str, per_uid: usize, in_all: usize) -> Self {
        Self(Arc::new(Inner { what, per_uid, in_all, held: Mutex::default() }))
    }

    /// A place for a uid, if there is one.
    pub fn enter(&self, uid: u32) -> Result<Place, Denial> {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.by_uid.get(&uid).copied().unwrap_or_default();
        if own >= self.0.per_uid || held.in_all >= self.0.in_all {
            return Err(Denial::new(
                Code::Busy,
                format!("at most {} {} of one uid, {} in all", self.0.per_uid, self.0.what, self.0.in_all),
                format!("there are too many {} at once", self.0.what),
            )
            .remedy("wait for some of them to end, and try again"));
        }
        held.by_uid.insert(uid, own + 1);
        held.in_all += 1;
        drop(held);
        Ok(Place { ceiling: self.clone(), uid })
    }

    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).in_all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.ceiling.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.in_all -= 1;
        if let Some(own) = held.by_uid.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                held.by_uid.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uid_cannot_take_the_place_of_all() {
        let ceiling = Ceiling::new("things", 2, 3);
        let mut places = vec![ceiling.enter(1).unwrap(), ceiling.enter(1).unwrap()];
        assert_eq!(ceiling.enter(1).unwrap_err().code, Code::Busy);
        places.push(ceiling.enter(2).unwrap());
        assert_eq!(ceiling.enter(3).unwrap_err().code, Code::Busy);
        places.clear();
        assert_eq!(ceiling.taken(), 0);
        assert!(ceiling.enter(1).is_ok());
        assert!(ceiling.0.held.lock().unwrap().by_uid.is_empty());
    }
}
