//! The interface for files, over one connection.

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::Result;
use zbus::Variant;

use super::ROOT;
use crate::contender::USER;

/// The interface, over one connection.
pub struct Files(zbus::Proxy<'static>);

type Options = std::collections::HashMap<&'static str, Variant<'static>>;

impl Files {
    pub async fn connect() -> Result<Self> {
        let connection = zbus::Connection::system().await?;
        Ok(Self(crate::portal::proxy(&connection, "/org/deputy/Deputy1".to_owned(), "Files").await?))
    }

    pub async fn open(&self, name: &str, flags: &[&'static str]) -> Result<(File, String)> {
        let options: Options = flags.iter().map(|flag| (*flag, true.into())).collect();
        let path = format!("{ROOT}/{name}").into_bytes();
        let (file, handle): (zbus::OwnedFd, String) = self.0.call("Open", &(USER, path, options)).await?;
        Ok((OwnedFd::from(file).into(), handle))
    }

    pub async fn open_many(&self, paths: Vec<Vec<u8>>) -> Result<usize> {
        let (files, _): (Vec<zbus::OwnedFd>, Vec<std::collections::HashMap<String, zbus::OwnedVariant>>) =
            self.0.call("OpenMany", &(USER, paths, Options::new())).await?;
        Ok(files.len())
    }

    pub async fn channel(&self) -> Result<OwnedFd> {
        let socket: zbus::OwnedFd = self.0.call("Channel", &(USER, Options::new())).await?;
        Ok(socket.into())
    }

    pub async fn commit(&self, handle: &str) -> Result<()> {
        Ok(self.0.call("Commit", &(USER, handle, Options::new())).await?)
    }

    pub async fn list(&self, name: &str) -> Result<File> {
        let path = format!("{ROOT}/{name}").into_bytes();
        let pipe: zbus::OwnedFd = self.0.call("ListStream", &(USER, path, Options::new())).await?;
        Ok(OwnedFd::from(pipe).into())
    }
}
