//! Argon2id: a bounded number of computations at once, away from the threads that answer calls.

use std::sync::Arc;

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use deputy_core::Denial;
use tokio::sync::Semaphore;

use super::secret::Secret;
use crate::random;

/// KiB of memory of one computation, passes over it, and lanes: the second of the choices that OWASP recommends.
const MEMORY: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// The most computations at once, whatever the machine has: each takes 19 MiB.
const MAX_AT_ONCE: usize = 4;

const SALT_BYTES: usize = 16;

/// Makes hashes and compares with them.
#[derive(Clone)]
pub struct Hasher {
    slots: Arc<Semaphore>,
    dummy: Arc<str>,
}

impl Hasher {
    /// With as many computations at once as the machine has processors, up to four.
    pub fn new() -> Result<Self, Denial> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { slots: Arc::new(Semaphore::new(processors.min(MAX_AT_ONCE))), dummy: dummy()?.into() })
    }

    /// A hash that no password has, for accounts without one: comparing with it costs the same.
    pub fn dummy(&self) -> Arc<str> {
        Arc::clone(&self.dummy)
    }

    /// The hash of a password, with a salt of its own.
    pub async fn hash(&self, password: Secret) -> Result<String, Denial> {
        let salt: [u8; SALT_BYTES] = random::bytes()?;
        self.compute(move |argon2| {
            argon2.hash_password_with_salt(password.bytes(), &salt).map(|hash| hash.to_string())
        })
        .await?
        .map_err(|error| Denial::internal(format!("a password could not be hashed: {error}")))
    }

    /// Whether a password has this hash. What is not a hash is nobody's.
    pub async fn matches(&self, password: Secret, hash: Arc<str>) -> Result<bool, Denial> {
        self.compute(move |argon2| argon2.verify_password(password.bytes(), &*hash).is_ok()).await
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(Argon2<'static>) -> T + Send + 'static,
    ) -> Result<T, Denial> {
        let closed = || Denial::internal("the computation of a hash was given up");
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| closed())?;
        let argon2 = argon2()?;
        tokio::task::spawn_blocking(move || {
            // Held by the computation itself: a caller that goes away does not make room before it ends.
            let _slot = slot;
            work(argon2)
        })
        .await
        .map_err(|_| closed())
    }
}

/// Whether this is a hash that a password can be compared with.
#[must_use]
pub fn is_hash(text: &str) -> bool {
    PasswordHash::new(text).is_ok_and(|hash| {
        hash.algorithm == Algorithm::Argon2id.ident() && hash.salt.is_some() && hash.hash.is_some()
    })
}

fn argon2() -> Result<Argon2<'static>, Denial> {
    let params = Params::new(MEMORY, PASSES, LANES, None)
        .map_err(|error| Denial::internal(format!("Argon2's parameters: {error}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// A hash with today's parameters whose password nobody knows: nothing was computed for it.
fn dummy() -> Result<String, Denial> {
    let internal = |error: String| Denial::internal(format!("a hash could not be made: {error}"));
    let salt: [u8; SALT_BYTES] = random::bytes()?;
    let output: [u8; 32] = random::bytes()?;
    let params = Params::new(MEMORY, PASSES, LANES, None).map_err(|error| internal(error.to_string()))?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: (&params).try_into().map_err(|_| internal("its parameters".to_owned()))?,
        salt: Some(Salt::new(&salt).map_err(|error| internal(error.to_string()))?),
        hash: Some(Output::new(&output).map_err(|error| internal(error.to_string()))?),
    };
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn secret(text: &str) -> Secret {
        Secret::new(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[tokio::test]
    async fn another_password_and_what_is_no_hash_do_not_match() {
        let hasher = Hasher::new().unwrap();
        let hash: Arc<str> = hasher.hash(secret("right")).await.unwrap().into();
        for (password, hash) in [
            ("wrong", Arc::clone(&hash)),
            ("", Arc::clone(&hash)),
            ("right", hasher.dummy()),
            ("right", "".into()),
            ("right", "$6$rounds$x".into()),
        ] {
            assert!(!hasher.matches(secret(password), hash).await.unwrap(), "{password:?}");
        }
        assert!(hasher.matches(secret("right"), hash).await.unwrap());
    }

    #[tokio::test]
    async fn hashes_say_how_they_were_made_and_differ() {
        let hasher = Hasher::new().unwrap();
        let (first, second) =
            (hasher.hash(secret("same")).await.unwrap(), hasher.hash(secret("same")).await.unwrap());
        assert_ne!(first, second);
        for hash in [&first, &second, &*hasher.dummy()] {
            assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
            assert_eq!(hash.len(), first.len());
        }
    }
}
