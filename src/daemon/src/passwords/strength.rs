//! How strong a new password is, in words that help.

use deputy_core::application::PasswordPolicy;
use deputy_core::{Code, Denial};
use zxcvbn::{Score, zxcvbn};

use super::secret::Secret;
use crate::store::Account;

/// The shortest word of a name that counts as easy to guess: shorter ones are in everything.
const MIN_WORD: usize = 3;

/// Whether a new password is strong enough for this account. The estimator keeps copies of what it looks at, which are
/// not wiped; they last no longer than the call.
pub fn check(policy: &PasswordPolicy, account: &Account, password: &Secret) -> Result<(), Denial> {
    let Some(text) = password.text() else {
        return Err(weak("a password is text, not empty, without control characters", ""));
    };
    let words = words_of(account);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let entropy = zxcvbn(text, &words);
    let score = number(entropy.score());
    if score >= policy.minimum_score {
        return Ok(());
    }
    let mut reason = format!(
        "the password is too easy to guess: strength {score} of 4, and {} is needed",
        policy.minimum_score
    );
    let mut advice = Vec::new();
    if let Some(feedback) = entropy.feedback() {
        if let Some(warning) = feedback.warning() {
            reason = format!("{reason}. {warning}");
        }
        advice.extend(feedback.suggestions().iter().map(ToString::to_string));
    }
    Err(weak(reason, &advice.join(" ")))
}

/// The refusal of a new password.
pub fn weak(message: impl Into<String>, advice: &str) -> Denial {
    let remedy =
        if advice.is_empty() { "a few unrelated words are long and easy to remember" } else { advice };
    Denial::new(Code::PasswordWeak, "passwords", message).remedy(remedy)
}

fn number(score: Score) -> u8 {
    score.into()
}

/// The names of the account, whole and word by word.
fn words_of(account: &Account) -> Vec<String> {
    let names = [
        Some(account.name.as_str()),
        Some(account.application.as_str()),
        account.email.as_deref(),
        account.first_name.as_deref(),
        account.last_name.as_deref(),
    ];
    let mut words = vec!["deputy".to_owned()];
    for name in names.into_iter().flatten() {
        words.push(name.to_lowercase());
        let parts =
            name.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().count() >= MIN_WORD);
        words.extend(parts.map(str::to_lowercase));
    }
    words
}
