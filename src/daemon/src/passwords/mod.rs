//! The passwords that Deputy keeps for accounts: how they come in, what is asked of them, and where their hashes are.
//!
//! They have nothing to do with passwords of OS accounts, which never come into this process.

pub mod file;
pub mod hasher;
pub mod secret;
pub mod strength;
pub mod throttle;
pub mod transfer;

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deputy_core::application::PasswordPolicy;
use deputy_core::{AccountName, ApplicationName, Code, Denial};
use thiserror::Error;
use tokio::sync::Mutex as AsyncMutex;
use zeroize::Zeroizing;

use crate::authentication::PASSWORD_METHOD;
use crate::random;
use crate::store::{
    Account, Actor, AuditFilter, Change, PageRequest, PasswordFact, Store, StoreError, Timestamp,
};
use file::{FileError, HashFile, Kept};
use hasher::Hasher;
use secret::Secret;
use throttle::Throttle;

/// How far back wrong tries are looked for at the start, and in how many records.
const RECALLED: Duration = Duration::from_secs(900);
const RECALLED_RECORDS: u64 = 20_000;

/// The most hashes of an account that are kept where no policy says how many.
const MAX_KEPT: usize = 24;

/// The letters of a temporary password, none of which looks like another.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// How many of them: 100 bits.
const TEMPORARY_LETTERS: usize = 20;

/// Why the passwords cannot be had.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file.
    #[error("the passwords: {0}")]
    File(#[from] FileError),
    /// No random bytes, or the like.
    #[error("the passwords: {}", .0.message)]
    Denied(Denial),
}

/// A new password.
pub struct New<'a> {
    /// It.
    pub password: &'a Secret,
    /// Whether it has to be replaced at the next login.
    pub temporary: bool,
    /// The one that has to be in force still.
    pub replaces: Option<String>,
    /// What is asked of it; none for one that was made here.
    pub policy: Option<&'a PasswordPolicy>,
}

/// The passwords.
pub struct Passwords {
    /// None once it was closed.
    file: Arc<Mutex<Option<HashFile>>>,
    hasher: Hasher,
    /// How tries are slowed down.
    pub throttle: Throttle,
    /// Held from the hash's way to the disk until the ledger's record of it.
    setting: AsyncMutex<()>,
}

impl Passwords {
    /// Opens the file in this folder. Blocks.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            file: Arc::new(Mutex::new(Some(HashFile::open(folder)?))),
            hasher: Hasher::new().map_err(OpenError::Denied)?,
            throttle: Throttle::default(),
            setting: AsyncMutex::default(),
        })
    }

    /// Whether this is the account's password: what the ledger knows of it, if so. An account without one, or that is
    /// not there, takes the same path and time.
    pub async fn verify(
        &self,
        store: &Store,
        application: &ApplicationName,
        account: &AccountName,
        password: Secret,
    ) -> Result<Option<PasswordFact>, Denial> {
        let fact = store.password(application, account)?;
        // A file that fails for one account must not tell that the account has a password.
        let kept = self.kept(application, account).await.unwrap_or_else(|denial| {
            tracing::error!(message = denial.message, "a password's hash cannot be read");
            Vec::new()
        });
        let hash = fact.as_ref().and_then(|fact| kept.iter().find(|kept| kept.generation == fact.generation));
        let real = hash.is_some();
        let hash = hash.map_or_else(|| self.hasher.dummy(), |kept| Arc::from(kept.hash.as_str()));
        let matches = self.hasher.matches(password, hash).await?;
        Ok(fact.filter(|_| real && matches))
    }

    /// Gives an account a new password, and ends its sessions. The answer is what the new one is called.
    pub async fn set(
        &self,
        store: &Store,
        account: &Account,
        new: New<'_>,
        actor: Actor,
    ) -> Result<String, Denial> {
        let (application, name) = (&account.application, &account.name);
        if let Some(policy) = new.policy {
            self.check(store, account, policy, new.password).await?;
        }
        let hash = self.hasher.hash(new.password.clone()).await?;
        let generation = format!("{:016x}", u64::from_be_bytes(random::bytes()?));
        let _turn = self.setting.lock().await;
        let mut hashes = self.in_force(store, application, name).await?;
        // One at least: the present one stays in force until the ledger says otherwise.
        hashes.truncate(new.policy.map_or(MAX_KEPT, |policy| usize::from(policy.history)).max(1));
        hashes.insert(0, Kept { generation: generation.clone(), hash });
        self.put(application, name, hashes).await?;
        let change = Change::PasswordSet {
            application: application.clone(),
            account: name.clone(),
            generation: generation.clone(),
            temporary: new.temporary,
            replaces: new.replaces,
        };
        store.commit(change, actor).await?;
        Ok(generation)
    }

    /// Forgets the hashes of an account that was deleted. That its password is not in force any more is the ledger's.
    pub async fn forget(&self, application: &ApplicationName, account: &AccountName) -> Result<(), Denial> {
        let _turn = self.setting.lock().await;
        if self.kept(application, account).await?.is_empty() {
            return Ok(());
        }
        self.put(application, account, Vec::new()).await
    }

    /// Lets go of the file: another program may open it.
    pub fn close(&self) {
        drop(locked(&self.file).take());
    }

    /// Whether a password is strong enough, and not one of the latest.
    pub async fn check(
        &self,
        store: &Store,
        account: &Account,
        policy: &PasswordPolicy,
        password: &Secret,
    ) -> Result<(), Denial> {
        let (of, policy_of, secret) = (account.clone(), policy.clone(), password.clone());
        blocking(move || strength::check(&policy_of, &of, &secret)).await??;
        let old = self.in_force(store, &account.application, &account.name).await?;
        for kept in old.into_iter().take(usize::from(policy.history)) {
            if self.hasher.matches(password.clone(), kept.hash.into()).await? {
                return Err(strength::weak("the password was used before", "choose one that is new"));
            }
        }
        Ok(())
    }

    /// The hash that is in force, and those before it. What was put there and never came into force is left out.
    async fn in_force(
        &self,
        store: &Store,
        application: &ApplicationName,
        account: &AccountName,
    ) -> Result<Vec<Kept>, Denial> {
        let Some(fact) = store.password(application, account)? else { return Ok(Vec::new()) };
        let kept = self.kept(application, account).await?;
        Ok(kept.into_iter().skip_while(|kept| kept.generation != fact.generation).collect())
    }

    async fn kept(&self, application: &ApplicationName, account: &AccountName) -> Result<Vec<Kept>, Denial> {
        let (file, application, account) = (Arc::clone(&self.file), application.clone(), account.clone());
        let read = move || locked(&file).as_ref().ok_or(FileError::Closed)?.hashes(&application, &account);
        blocking(read).await?.map_err(|error| failed(&error))
    }

    async fn put(
        &self,
        application: &ApplicationName,
        account: &AccountName,
        hashes: Vec<Kept>,
    ) -> Result<(), Denial> {
        let (file, application, account) = (Arc::clone(&self.file), application.clone(), account.clone());
        let write =
            move || locked(&file).as_mut().ok_or(FileError::Closed)?.put(&application, &account, hashes);
        blocking(write).await?.map_err(|error| failed(&error))
    }

    /// Takes the wrong tries of the last minutes out of the ledger, so that a restart is no way around the waiting.
    /// Blocks.
    pub fn recall(&self, store: &Store) -> Result<(), StoreError> {
        let (now, clock) = (Instant::now(), Timestamp::now());
        let from = store.last_number().saturating_sub(RECALLED_RECORDS);
        let filter = AuditFilter { denied: true, ..AuditFilter::default() };
        let mut request = PageRequest::first(1000);
        loop {
            let page = store.audit(from, &filter, &request)?;
            for entry in page.items {
                let ago = Duration::from_micros(clock.0.saturating_sub(entry.at.0));
                if let Change::Denied {
                    code: Code::AuthenticationFailed, method, application, account, ..
                } = entry.change
                    && method == PASSWORD_METHOD
                    && ago <= RECALLED
                    && let (Some(application), Some(account)) = (application, account)
                {
                    self.throttle.remember(&application, &account, ago, now);
                }
            }
            let Some(next) = page.next else { return Ok(()) };
            request.after = Some(next);
        }
    }
}

fn locked(file: &Mutex<Option<HashFile>>) -> std::sync::MutexGuard<'_, Option<HashFile>> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: &FileError) -> Denial {
    tracing::error!(%error, "passwords");
    Denial::new(Code::Disk, "passwords", "the passwords' file failed, and nothing was changed")
        .remedy("look at the space and health of the disk below /var/lib/deputy, then restart deputyd")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Denial> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Denial::internal("a task for passwords is gone"))
}

/// A password that nobody could guess, to be replaced at the first login.
pub fn temporary() -> Result<Secret, Denial> {
    let bytes = Zeroizing::new(random::bytes::<TEMPORARY_LETTERS>()?);
    // Room for the hyphens: it must not grow, and leave a copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(TEMPORARY_LETTERS * 2));
    for (number, byte) in bytes.iter().enumerate() {
        if number > 0 && number % 5 == 0 {
            text.push(b'-');
        }
        text.push(LETTERS[usize::from(byte % 32)]);
    }
    Ok(Secret::new(text))
}

/// A pipe from which a password can be read once.
pub fn hand_out(password: &Secret) -> Result<OwnedFd, Denial> {
    let failed = |error: io::Error| Denial::internal(format!("a pipe: {error}"));
    let (reader, mut writer) = io::pipe().map_err(failed)?;
    // A pipe holds more than a password has: this does not wait for a reader.
    writer.write_all(password.bytes()).map_err(failed)?;
    Ok(reader.into())
}

#[cfg(test)]
mod tests;
