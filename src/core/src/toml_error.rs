//! What is wrong with a TOML text, in one line: where, what, and the key that was probably meant.

/// A mistyped key is at most this far from the one that was meant.
const MAX_DISTANCE: usize = 3;

/// The line for an error that reading `text` gave.
pub fn explain(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    // The list of all keys is for programs; a person is helped by the one that was meant, or by the page.
    let short =
        message.split(", expected ").next().unwrap_or(message).replace("unknown field", "unknown key");
    let meant = unknown_key(message).and_then(|(key, known)| nearest(key, &known));
    let words = match (meant, message.starts_with("unknown field")) {
        (Some(meant), true) => format!("{short}; did you mean `{meant}`?"),
        (None, true) => format!("{short}; docs/applications.md lists the keys"),
        _ => message.replace('\n', " "),
    };
    match error.span() {
        Some(span) => {
            let (line, column) = position(text, span.start);
            format!("line {line}, column {column}: {words}")
        }
        None => words,
    }
}

/// Line and column of a byte, counted from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// The key that is not known and those that are, out of serde's message.
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let key = quoted.next()?;
    Some((key, quoted.collect()))
}

/// The known word that is nearest to a mistyped one, if any is near.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Longer than any key there is: nothing is near, and nothing is worth comparing.
    if word.len() > 64 {
        return None;
    }
    let near = |candidate: &&&str| distance(word, candidate) <= MAX_DISTANCE.min(candidate.len() / 2);
    known.iter().filter(near).min_by_key(|candidate| distance(word, candidate)).copied()
}

/// How many characters have to be put in, left out, replaced, or exchanged with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let same = from[i - 1] == to[j - 1];
            let mut least =
                (rows[i - 1][j - 1] + usize::from(!same)).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::Application;

    fn error(text: &str) -> String {
        Application::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_mistyped_key_is_told_with_its_place_and_the_key_that_was_meant() {
        let told = error("service_user = \"a\"\n\nenviroment = []\n");
        assert_eq!(told, "line 3, column 1: unknown key `enviroment`; did you mean `environment`?");
        let told = error("service_user = \"a\"\n[os_accounts]\nmin_iud = 1000\n");
        assert!(told.starts_with("line 3") && told.contains("did you mean `min_uid`?"), "{told}");
        let told = error("service_user = \"a\"\n[link]\n  conset_seconds = 5\n");
        assert!(told.starts_with("line 3, column 3") && told.contains("`consent_seconds`"), "{told}");
    }

    #[test]
    fn what_is_near_to_nothing_is_not_guessed() {
        let told = error("service_user = \"a\"\nx = 1\n");
        assert!(!told.contains("did you mean") && told.contains("unknown key `x`"), "{told}");
        let long = format!("{} = 1\nservice_user = \"a\"\n", "k".repeat(5000));
        assert!(!error(&long).contains("did you mean"));
        assert!(error("service_user = 5").starts_with("line 1, column 16: "));
        assert!(!error("broken [[").contains('\n'));
    }

    #[test]
    fn neighbours_that_changed_places_are_one_mistake() {
        assert_eq!(distance("trsut", "trust"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kind", "kinds"), 1);
        assert_eq!(nearest("roles", &["roots", "roles"]), Some("roles"));
        assert_eq!(nearest("q", &["pam"]), None);
    }
}
