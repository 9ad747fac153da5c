//! How much room there is, in words and as a decision.

use std::fmt::Write as _;

use crate::denial::{Code, Denial};
use crate::message::FilePlace;
use crate::quota::{QuotaUsage, human_bytes};

/// How much room there is at these places that can be written, to be added to a sentence.
pub fn words(places: &[FilePlace]) -> String {
    places.iter().filter(|place| place.writable).fold(String::new(), |mut words, place| {
        words.push_str("; ");
        words.push_str(&of_place(place));
        words
    })
}

fn of_place(place: &FilePlace) -> String {
    let mut words = format!("{}: {} free", String::from_utf8_lossy(&place.path), human_bytes(place.free));
    for QuotaUsage { whose, space, files } in &place.quotas {
        for (amount, what) in [(space, "space"), (files, "files")] {
            let show = |number: u64| if what == "space" { human_bytes(number) } else { number.to_string() };
            if let Some(limit) = amount.limit() {
                let kind = if amount.hard.is_some() { "" } else { " (soft limit)" };
                // Writing to a String cannot fail.
                let _ = write!(words, ", {whose}: {} of {} {what}{kind}", show(amount.used), show(limit));
            }
        }
    }
    words
}

/// How many bytes more can be written there now (seconds since 1970), by the quotas and by the file system.
pub fn room(place: &FilePlace, now: u64) -> u64 {
    let quotas = place.quotas.iter();
    // Without a number for a file nothing can be written, however much space there is.
    let none = quotas.clone().any(|quota| quota.files.room(now) == Some(0));
    if none || (place.files > 0 && place.files_free == 0) {
        return 0;
    }
    quotas.filter_map(|quota| quota.space.room(now)).fold(place.free, u64::min)
}

/// Whether so many bytes have room.
pub fn check_needs(place: &FilePlace, needs: u64, now: u64) -> Result<(), Denial> {
    let path = String::from_utf8_lossy(&place.path);
    let room = room(place, now);
    if place.writable && room >= needs {
        return Ok(());
    }
    let why = if place.writable {
        format!(
            "the job needs {} in {path}, and {} can be written there: {}",
            human_bytes(needs),
            human_bytes(room),
            of_place(place)
        )
    } else {
        format!("the job needs {} in {path}, which is read-only for the application", human_bytes(needs))
    };
    Err(Denial::new(Code::NotEnoughSpace, "option needs", why)
        .remedy("remove files there, have the quota raised, or name another folder (needs_path)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OsGid, OsUid};
    use crate::quota::{Amount, Whose};

    const NOW: u64 = 1_800_000_000;
    const GIB: u64 = 1 << 30;

    fn quota(whose: Whose, space: Amount, files: Amount) -> QuotaUsage {
        QuotaUsage { whose, space, files }
    }

    fn place(free: u64, quotas: Vec<QuotaUsage>) -> FilePlace {
        FilePlace {
            path: b"/data/lab1".to_vec(),
            root: b"/data/lab1".to_vec(),
            filesystem: "xfs".into(),
            device: 1,
            writable: true,
            size: 1000 * GIB,
            free,
            files: 100,
            files_free: 50,
            quotas,
        }
    }

    fn of_user(used: u64, soft: Option<u64>, hard: Option<u64>, grace_ends: Option<u64>) -> QuotaUsage {
        let whose = Whose::User(OsUid::new(1001).unwrap());
        quota(whose, Amount { used, soft, hard, grace_ends }, Amount::default())
    }

    #[test]
    fn the_narrowest_limit_decides() {
        let group = quota(
            Whose::Group(OsGid::new(7).unwrap()),
            Amount { used: 9 * GIB, hard: Some(10 * GIB), ..Amount::default() },
            Amount::default(),
        );
        let at_soft = of_user(6 * GIB, Some(5 * GIB), Some(20 * GIB), Some(NOW + 9));
        for (place, expected) in [
            (place(500 * GIB, vec![]), 500 * GIB),
            (place(2 * GIB, vec![of_user(0, None, Some(10 * GIB), None)]), 2 * GIB),
            (place(500 * GIB, vec![of_user(4 * GIB, None, Some(10 * GIB), None)]), 6 * GIB),
            (place(500 * GIB, vec![of_user(4 * GIB, None, Some(10 * GIB), None), group]), GIB),
            // Above the soft limit, up to the hard one, until the time is over.
            (place(500 * GIB, vec![at_soft]), 14 * GIB),
            (place(500 * GIB, vec![of_user(6 * GIB, Some(5 * GIB), None, Some(NOW))]), 0),
            (place(500 * GIB, vec![of_user(11 * GIB, None, Some(10 * GIB), None)]), 0),
        ] {
            assert_eq!(room(&place, NOW), expected, "{place:?}");
            assert!(check_needs(&place, expected, NOW).is_ok());
            let denial = check_needs(&place, expected + 1, NOW).unwrap_err();
            assert_eq!(denial.code, Code::NotEnoughSpace);
        }
    }

    #[test]
    fn without_a_number_for_a_file_there_is_no_room() {
        let files = Amount { used: 10, hard: Some(10), ..Amount::default() };
        let user = Whose::User(OsUid::new(1001).unwrap());
        assert_eq!(room(&place(GIB, vec![quota(user, Amount::default(), files)]), NOW), 0);
        let mut full = place(GIB, vec![]);
        full.files_free = 0;
        assert_eq!(room(&full, NOW), 0);
        // A file system that does not count them.
        full.files = 0;
        assert_eq!(room(&full, NOW), GIB);
    }

    #[test]
    fn the_refusal_has_the_numbers() {
        let full = place(500 * GIB, vec![of_user(40 * GIB, None, Some(50 * GIB), None)]);
        let message = check_needs(&full, 50 * GIB, NOW).unwrap_err().message;
        for expected in ["50.0 GiB", "10.0 GiB", "uid 1001: 40.0 GiB of 50.0 GiB space", "/data/lab1"] {
            assert!(message.contains(expected), "{expected}: {message}");
        }
        let closed = FilePlace { writable: false, ..place(GIB, vec![]) };
        assert!(check_needs(&closed, 1, NOW).unwrap_err().message.contains("read-only"));
        assert_eq!(words(&[closed]), "");
        assert_eq!(words(&[place(GIB, vec![])]), "; /data/lab1: 1.0 GiB free");
    }
}
