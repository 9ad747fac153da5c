//! The GPUs of a job: what programs are told of them, and which devices the job cannot open.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use deputy_core::denial::Denial;
use deputy_core::queue::{Capacity, GpuIndex};
use deputy_sys::device_filter::{self, Device};

/// By what NVIDIA's and AMD's libraries, and containers, know which GPUs they may use.
const VARIABLES: [&str; 3] = ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];

/// Lets the indices be places on the bus, as those of the devices are, and not by speed.
const ORDER: &str = "CUDA_DEVICE_ORDER=PCI_BUS_ID";

/// What the libraries open beside a GPU's own device: where a job has one, it has these.
const SHARED: [&str; 5] =
    ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset", "/dev/kfd"];

/// The devices of all GPUs that jobs can be leased: those of the settings, or those that are found.
fn devices(capacity: &Capacity) -> Vec<PathBuf> {
    if let Some(configured) = &capacity.gpus {
        return configured.iter().map(PathBuf::from).collect();
    }
    let mut found = numbered("/dev", "nvidia");
    // A render node alone may be any graphics card's; with this device AMD's can compute.
    if Path::new("/dev/kfd").exists() {
        found.extend(numbered("/dev/dri", "renderD"));
    }
    found
}

/// The devices in a folder whose names are this and a number, by number.
fn numbered(folder: &str, prefix: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let number = |name: &str| -> Option<u32> {
        let digits = name.strip_prefix(prefix)?;
        digits.parse().ok().filter(|number: &u32| number.to_string() == digits)
    };
    let found: BTreeSet<u32> = names.filter_map(|name| number(name.file_name().to_str()?)).collect();
    found.into_iter().map(|number| format!("{folder}/{prefix}{number}").into()).collect()
}

/// How many GPUs there are that jobs can be leased.
pub fn count_gpus(capacity: &Capacity) -> u16 {
    u16::try_from(devices(capacity).len()).unwrap_or(u16::MAX)
}

/// The GPUs of this machine, and which of them a job was leased.
pub struct Gpus {
    devices: Vec<PathBuf>,
    leased: BTreeSet<GpuIndex>,
}

impl Gpus {
    /// Looks which there are.
    ///
    /// # Errors
    /// If the machine does not have what was leased.
    pub fn leased(capacity: &Capacity, leased: &[GpuIndex]) -> Result<Self, Denial> {
        let devices = devices(capacity);
        match leased.iter().find(|gpu| usize::from(gpu.0) >= devices.len()) {
            Some(gpu) => Err(Denial::invalid(format!("this machine has no GPU {gpu}"))),
            None => Ok(Self { devices, leased: leased.iter().copied().collect() }),
        }
    }

    /// The variables for the job, each `NAME=VALUE`; none on a machine without GPUs. No program sees one that was not
    /// leased, if it asks there.
    pub fn variables(&self) -> Vec<Vec<u8>> {
        if self.devices.is_empty() {
            return Vec::new();
        }
        let list = self.leased.iter().map(GpuIndex::to_string).collect::<Vec<_>>().join(",");
        let mut variables: Vec<_> =
            VARIABLES.iter().map(|name| format!("{name}={list}").into_bytes()).collect();
        variables.push(ORDER.into());
        variables
    }

    /// The devices that the job uses, for one that sees no others.
    pub fn devices_of_job(&self) -> Vec<PathBuf> {
        if self.leased.is_empty() {
            return Vec::new();
        }
        let own = self.leased.iter().filter_map(|gpu| self.devices.get(usize::from(gpu.0)).cloned());
        own.chain(SHARED.map(PathBuf::from)).filter(|path| path.exists()).collect()
    }

    /// Keeps the job from the devices of the others, as far as the kernel lets that be done.
    pub fn deny_the_others(&self, cgroup: Option<BorrowedFd<'_>>) {
        let others =
            (0_u16..).zip(&self.devices).filter(|(index, _)| !self.leased.contains(&GpuIndex(*index)));
        let denied: Vec<_> = others.filter_map(|(_, path)| known(path)).collect();
        let Some(cgroup) = cgroup.filter(|_| !denied.is_empty()) else { return };
        if let Err(error) = device_filter::deny(cgroup, &denied) {
            tracing::warn!(event = "devices_not_denied", error = %error);
        }
    }
}

/// A device that is not there cannot be opened either.
fn known(path: &Path) -> Option<Device> {
    Device::at(path)
        .inspect_err(|error| tracing::warn!(event = "gpu_unknown", path = %path.display(), error = %error))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(configured: &[&str], leased: &[u16]) -> Result<Gpus, Denial> {
        let configured = configured.iter().map(|path| (*path).to_owned()).collect();
        let capacity = Capacity { gpus: Some(configured), ..Capacity::default() };
        Gpus::leased(&capacity, &leased.iter().copied().map(GpuIndex).collect::<Vec<_>>())
    }

    #[test]
    fn what_the_machine_does_not_have_is_refused() {
        assert!(gpus(&[], &[0]).is_err());
        assert!(gpus(&["/dev/a", "/dev/b"], &[0, 2]).is_err());
        assert!(gpus(&["/dev/a", "/dev/b"], &[0, 1]).is_ok());
    }

    #[test]
    fn a_job_without_a_gpu_has_no_device_of_one() {
        assert!(gpus(&["/dev/null", "/dev/zero"], &[]).unwrap().devices_of_job().is_empty());
        let devices = gpus(&["/dev/null", "/dev/gone", "/dev/zero"], &[1, 2]).unwrap().devices_of_job();
        assert_eq!(devices.first(), Some(&PathBuf::from("/dev/zero")));
        assert!(!devices.contains(&PathBuf::from("/dev/null")));
    }

    #[test]
    fn programs_are_told_of_what_was_leased_and_of_nothing_else() {
        let told = |configured: &[&str], leased: &[u16]| -> Vec<String> {
            let variables = gpus(configured, leased).unwrap().variables();
            variables.into_iter().map(|variable| String::from_utf8(variable).unwrap()).collect()
        };
        assert!(told(&[], &[]).is_empty());
        let some = told(&["/dev/a", "/dev/b", "/dev/c"], &[2, 0]);
        assert_eq!(some[0], "CUDA_VISIBLE_DEVICES=0,2");
        assert_eq!(told(&["/dev/a"], &[])[0], "CUDA_VISIBLE_DEVICES=");
    }
}
