//! What a call of `Jobs.Run` asks for, as far as the message alone tells.

use std::os::fd::{AsFd as _, OwnedFd};

use deputy_core::application::DEFAULT_KIND;
use deputy_core::limits::{JobBounds, MAX_GRACE_SECONDS, MAX_NICE, ResourceLimits};
use deputy_core::project::ProjectKey;
use deputy_core::size::{ByteSize, MilliCpus};
use deputy_core::slurm::dependency::Dependencies;
use deputy_core::slurm::{ExecutorChoice, Feature, Interactive, SlurmRequest};
use deputy_core::stream::{Input, Output, Streams};
use deputy_core::{Denial, KindName};

use super::stdio::{Descriptors, Use, check};
use crate::bus::options::{Given, Options, parse};
use crate::projects;
use crate::store::{Argument, JobSpec, no_input, no_output};

/// The most bytes of arguments and environment together; the kernel takes about as much.
const MAX_WORDS: usize = 1 << 20;

/// The longest path that the kernel takes.
const MAX_PATH: usize = 4095;

/// The most features that one job asks for.
const MAX_FEATURES: usize = 16;

/// What is asked for.
#[derive(Debug)]
pub struct Asked {
    /// The project.
    pub project: Option<ProjectKey>,
    /// The kind.
    pub kind: KindName,
    /// The program and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// The working directory.
    pub directory: Option<Vec<u8>>,
    /// Everything else that can be written down.
    pub spec: JobSpec,
    /// Where it is to run; absent: where its kind says.
    pub executor: Option<ExecutorChoice>,
    /// What cannot.
    pub descriptors: Descriptors,
    /// Where the job's states are told.
    pub watch: Option<OwnedFd>,
    /// The room that it needs.
    pub needs: Option<Needs>,
}

/// The room that a job needs, which is looked at before it is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Bytes.
    pub bytes: u64,
    /// The folder in which it needs them.
    pub folder: Vec<u8>,
}

impl Asked {
    /// Takes the options of a job out of a call's.
    pub fn new(argv: Vec<Vec<u8>>, options: &mut Options) -> Result<Self, Denial> {
        let kind = match options.name("kind")? {
            Some(kind) => kind,
            None => parse("kind", DEFAULT_KIND)?,
        };
        let directory = options.bytes("directory")?;
        if let Some(directory) = &directory {
            check_path("directory", directory)?;
            if directory.first() != Some(&b'/') {
                return Err(Denial::invalid("the option directory is not an absolute path"));
            }
        }
        let environment = options.list_of_bytes("environment")?.unwrap_or_default();
        let bytes = argv.iter().chain(&environment).map(|word| word.len() + 1).sum::<usize>();
        if bytes > MAX_WORDS {
            return Err(Denial::invalid(format!(
                "arguments and environment have more than {MAX_WORDS} bytes"
            )));
        }
        let mut descriptors = Descriptors::default();
        let interactive = interactive(options, &mut descriptors)?;
        let streams = if interactive == Some(Interactive::Terminal) {
            terminal_alone(options)?
        } else {
            streams(options, &mut descriptors)?
        };
        descriptors.script = descriptor(options, "script", Use::Script)?;
        descriptors.environment = descriptor(options, "environment_fd", Use::Environment)?;
        let (umask, os_group) = projects::defaults(options)?;
        let spec = JobSpec {
            name: options.name("name")?,
            script: descriptors.script.is_some(),
            environment: environment.into_iter().map(Argument).collect(),
            environment_descriptor: descriptors.environment.is_some(),
            umask,
            os_group,
            streams,
            bounds: bounds(options)?,
            gpus: count(options, "gpus")?.unwrap_or_default(),
            slurm: SlurmRequest { interactive, ..slurm(options)? },
            ..JobSpec::default()
        };
        let watch = descriptor(options, "watch", Use::Watch)?;
        let needs = needs(options, directory.as_ref())?;
        let executor = options.name("executor")?;
        let project = options.name("project")?;
        Ok(Self { project, kind, argv, directory, spec, executor, descriptors, watch, needs })
    }
}

fn needs(options: &mut Options, directory: Option<&Vec<u8>>) -> Result<Option<Needs>, Denial> {
    let (bytes, path) = (options.long("needs")?, options.bytes("needs_path")?);
    let Some(bytes) = bytes else {
        return match path {
            None => Ok(None),
            Some(_) => Err(Denial::invalid("the option needs_path has a meaning only with needs")),
        };
    };
    let folder = path.as_ref().or(directory).ok_or_else(|| {
        Denial::invalid("the option needs is about a folder: name it by needs_path, or by directory")
    })?;
    check_path("needs_path", folder)?;
    Ok(Some(Needs { bytes, folder: folder.clone() }))
}

fn descriptor(options: &mut Options, key: &str, purpose: Use) -> Result<Option<OwnedFd>, Denial> {
    let fd = options.descriptor(key)?;
    if let Some(fd) = &fd {
        check(fd.as_fd(), key, purpose)?;
    }
    Ok(fd)
}

fn check_path(key: &str, path: &[u8]) -> Result<(), Denial> {
    if path.is_empty() || path.len() > MAX_PATH || path.contains(&0) {
        return Err(Denial::invalid(format!(
            "the option {key} is not a path: 1 to {MAX_PATH} bytes, without NUL"
        )));
    }
    Ok(())
}

/// Whether somebody speaks with it. A terminal goes into `descriptors`, as input and output.
fn interactive(options: &mut Options, descriptors: &mut Descriptors) -> Result<Option<Interactive>, Denial> {
    let wanted = options.flag("interactive")?;
    match descriptor(options, "terminal", Use::Terminal)? {
        None => Ok(wanted.then_some(Interactive::Streams)),
        Some(_) if !wanted => Err(Denial::invalid("the option terminal has a meaning only with interactive")),
        Some(terminal) => {
            let copy = terminal.try_clone();
            descriptors.streams[0] = Some(terminal);
            descriptors.streams[1] =
                Some(copy.map_err(|_| Denial::internal("a descriptor could not be kept"))?);
            Ok(Some(Interactive::Terminal))
        }
    }
}

/// The streams of a job with a terminal, which has no others.
fn terminal_alone(options: &mut Options) -> Result<Streams, Denial> {
    for key in ["stdin", "stdout", "stderr"] {
        if options.given(key)?.is_some() {
            return Err(Denial::invalid(format!("the option {key} and a terminal exclude each other")));
        }
    }
    Ok(Streams { input: Input::Descriptor, output: Output::Descriptor, error: Output::SameAsOutput })
}

/// The three streams. What comes by descriptor goes into `descriptors`.
fn streams(options: &mut Options, descriptors: &mut Descriptors) -> Result<Streams, Denial> {
    let input = match options.given("stdin")? {
        None => no_input(),
        Some(Given::Descriptor(fd)) => {
            check(fd.as_fd(), "stdin", Use::Input)?;
            descriptors.streams[0] = Some(fd);
            Input::Descriptor
        }
        Some(Given::Path(path)) => {
            check_path("stdin", &path)?;
            Input::File(path)
        }
        Some(Given::Word(word)) if word == "null" => no_input(),
        Some(Given::Word(_)) => return Err(Denial::invalid("the option stdin knows the word null only")),
    };
    let output = output(options, "stdout", "stdout_append", &mut descriptors.streams[1])?;
    let error = self::output(options, "stderr", "stderr_append", &mut descriptors.streams[2])?;
    Ok(Streams { input, output, error })
}

fn output(
    options: &mut Options,
    key: &str,
    append: &str,
    descriptor: &mut Option<OwnedFd>,
) -> Result<Output, Denial> {
    let output = match options.given(key)? {
        None => no_output(),
        Some(Given::Descriptor(fd)) => {
            check(fd.as_fd(), key, Use::Output)?;
            *descriptor = Some(fd);
            Output::Descriptor
        }
        Some(Given::Path(path)) => {
            check_path(key, &path)?;
            return Ok(Output::File { path, append: options.flag(append)? });
        }
        Some(Given::Word(word)) => match (word.as_str(), key) {
            ("null", _) => no_output(),
            ("capture", _) => Output::Captured,
            ("stdout", "stderr") => Output::SameAsOutput,
            _ => {
                return Err(Denial::invalid(format!(
                    "the option {key} knows the words null and capture, and for stderr stdout"
                )));
            }
        },
    };
    if options.flag(append)? {
        return Err(Denial::invalid(format!("the option {append} has a meaning only with a file for {key}")));
    }
    Ok(output)
}

/// What only Slurm has.
pub fn slurm(options: &mut Options) -> Result<SlurmRequest, Denial> {
    Ok(SlurmRequest {
        cluster: options.name("cluster")?,
        partition: options.name("partition")?,
        account: options.name("slurm_account")?,
        qos: options.name("qos")?,
        nodes: positive("nodes", options.number("nodes")?)?,
        tasks: positive("tasks", options.number("tasks")?)?,
        features: features(options)?,
        dependencies: options.name::<Dependencies>("dependency")?.unwrap_or_default().0,
        hold: options.flag("hold")?,
        requeue: options.flag("requeue")?,
        ..SlurmRequest::default()
    })
}

/// What each node has to have.
fn features(options: &mut Options) -> Result<Vec<Feature>, Denial> {
    let text = options.text("constraint")?;
    let all = text.as_deref().map(|text| text.split(',').map(|name| parse("constraint", name)).collect());
    let all: Vec<Feature> = all.transpose()?.unwrap_or_default();
    if all.len() > MAX_FEATURES {
        return Err(Denial::invalid(format!("the option constraint has at most {MAX_FEATURES} features")));
    }
    Ok(all)
}

/// A small number.
pub fn count(options: &mut Options, key: &str) -> Result<Option<u16>, Denial> {
    let number = options.number(key)?;
    number
        .map(|number| u16::try_from(number).map_err(|_| Denial::invalid(format!("{key} is too large"))))
        .transpose()
}

/// A number of at least 1.
fn positive(key: &str, number: Option<u32>) -> Result<Option<u32>, Denial> {
    if number == Some(0) {
        return Err(Denial::invalid(format!("the option {key} is at least 1")));
    }
    Ok(number)
}

/// What is asked for below what policy allows.
pub fn bounds(options: &mut Options) -> Result<JobBounds, Denial> {
    let bounds = JobBounds {
        limits: ResourceLimits {
            pids: positive("pids", options.number("pids")?)?,
            files: positive("files", options.number("files")?)?,
            core: options.long("core")?.map(ByteSize),
            ..resources(options)?
        },
        time_limit_seconds: positive("time_limit_seconds", options.number("time_limit_seconds")?)?,
        grace_seconds: options.number("grace_seconds")?,
        nice: options.number("nice")?.map(|nice| u8::try_from(nice).unwrap_or(u8::MAX)),
    };
    if bounds.grace_seconds.is_some_and(|grace| grace > MAX_GRACE_SECONDS) {
        return Err(Denial::invalid(format!("the option grace_seconds is at most {MAX_GRACE_SECONDS}")));
    }
    if bounds.nice.is_some_and(|nice| nice > MAX_NICE) {
        return Err(Denial::invalid(format!("the option nice is 0 to {MAX_NICE}")));
    }
    Ok(bounds)
}

/// Memory and CPUs.
pub fn resources(options: &mut Options) -> Result<ResourceLimits, Denial> {
    let memory = options.long("memory")?;
    if memory == Some(0) {
        return Err(Denial::invalid("the option memory is at least 1"));
    }
    let cpus = options.decimal("cpus")?;
    let cpus = cpus
        .map(|cpus| {
            MilliCpus::from_cpus(cpus)
                .ok_or_else(|| Denial::invalid("the option cpus is a number above 0, such as 1 or 0.5"))
        })
        .transpose()?;
    Ok(ResourceLimits { memory: memory.map(ByteSize), cpus, ..ResourceLimits::default() })
}
