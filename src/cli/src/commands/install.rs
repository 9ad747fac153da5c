//! `application install`: root's own way to put an application's file in place, after all checks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use deputy_core::application::{Application, Service};
use deputy_core::denial::Code;
use deputy_core::names::ApplicationName;
use deputy_etc::{Directory, ETC_DEPUTY, MAX_FILE};

use super::{Context, record_of};
use crate::failure::Failure;
use crate::launcher::{is_root, needs_root};
use crate::options::InstallOptions;

/// The mode of an application's file: everybody may read the rules.
const MODE: u32 = 0o644;

/// `application install`.
pub fn install(context: &Context, options: &InstallOptions) -> Result<ExitCode, Failure> {
    if !options.dry_run && !is_root() {
        return Err(needs_root("install an application's file"));
    }
    let name = name(options)?;
    let text = text(&options.file)?;
    let application = Application::parse(&text).map_err(|error| {
        Failure::new(Code::ApplicationInvalid, format!("{}: {error}", options.file.display()))
            .remedy("correct the file; nothing was changed")
    })?;
    let etc = Directory::new(ETC_DEPUTY);
    check(&etc, &name, &application, options.replace)?;
    let path = etc.application_path(&name);
    let record = record_of([("name", name.as_str()), ("path", &path.display().to_string())]);
    if options.dry_run {
        context.output.done(&format!("{name} could be installed as {}", path.display()), &record)?;
        return Ok(ExitCode::SUCCESS);
    }
    place(&path, text.as_bytes()).map_err(|error| {
        Failure::new(Code::Disk, format!("{}: {error}", path.display()))
            .remedy("the file that was there before is as it was; see what is wrong with the disk or folder")
    })?;
    // The file as Deputy reads it, along the whole path.
    etc.application(&name)?;
    context.output.done(&format!("{name} is installed as {}", path.display()), &record)?;
    Ok(ExitCode::SUCCESS)
}

/// The application's name: as given, or the file's.
fn name(options: &InstallOptions) -> Result<ApplicationName, Failure> {
    if let Some(name) = &options.name {
        return Ok(name.clone());
    }
    let stem =
        options.file.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".toml"));
    stem.and_then(|stem| stem.parse().ok()).ok_or_else(|| {
        Failure::new(Code::InvalidArgument, format!("{}: no application's name", options.file.display()))
            .remedy("call the file NAME.toml, or say --name NAME")
    })
}

fn text(path: &Path) -> Result<String, Failure> {
    use std::io::Read as _;
    let wrong =
        |message: String| Failure::new(Code::InvalidArgument, format!("{}: {message}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(wrong(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// Whether the file can take its place among the others.
fn check(
    etc: &Directory,
    name: &ApplicationName,
    application: &Application,
    replace: bool,
) -> Result<(), Failure> {
    let uid = service_uid(name, &application.service)?;
    for other in etc.names() {
        if other == *name {
            if !replace {
                return Err(Failure::new(
                    Code::Conflict,
                    format!("an application called {name} is installed already"),
                )
                .remedy("to put this file in its place, say --replace; else give it another name"));
            }
            continue;
        }
        // One that is broken fails closed by itself, and says so in its own check.
        let Ok(installed) = etc.application(&other) else { continue };
        if service_uid(&other, &installed.service).is_ok_and(|theirs| theirs == uid) {
            return Err(Failure::new(
                Code::ApplicationInvalid,
                format!("uid {uid} is the service user of {other} already: both would be refused"),
            )
            .remedy("give each application a service user of its own"));
        }
    }
    Ok(())
}

fn service_uid(name: &ApplicationName, service: &Service) -> Result<u32, Failure> {
    let user = match service {
        Service::Uid(uid) => return Ok(*uid),
        Service::User(user) => user,
    };
    let invalid =
        |message: String, remedy: String| Failure::new(Code::ApplicationInvalid, message).remedy(remedy);
    let found = nix::unistd::User::from_name(user.as_str()).map_err(|errno| {
        invalid(format!("the name service failed: {errno}"), "check nsswitch.conf".into())
    })?;
    match found {
        Some(found) if found.uid.is_root() => {
            Err(invalid(format!("{user} is root; an application never is"), "correct service_user".into()))
        }
        Some(found) => Ok(found.uid.as_raw()),
        None => Err(invalid(
            format!("service_user: this machine has no user {user}"),
            format!("create it (useradd --system {user}), or correct the file of {name}"),
        )),
    }
}

/// Writes the file beside its place and renames it there: readers see the old one or the new one.
fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // No application's name begins with a dot, so that nobody reads this.
    let beside: PathBuf = folder.join(format!(".install.{}", std::process::id()));
    let written = write_new(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What is half written is of no use to anybody; the failure is what is told.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    // Whatever the umask is.
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.sync_all()
}
