//! Devices that the processes of one cgroup cannot open: a small program of the kernel's own (`bpf(2)`,
//! `BPF_PROG_TYPE_CGROUP_DEVICE`), attached to the job's cgroup. It needs no controller, only a cgroup of version 2.
//!
//! It is asked beside the filters of the groups above, and only takes away.

use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{major, minor};

/// A device of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    is_block: bool,
    major: u32,
    minor: u32,
}

impl Device {
    /// The device that a path of root's names.
    ///
    /// # Errors
    /// If there is nothing of this name, or if it is no device.
    pub fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let sort = metadata.file_type();
        if !sort.is_char_device() && !sort.is_block_device() {
            return Err(io::Error::other("it is not a device"));
        }
        let number = metadata.rdev();
        Ok(Self { is_block: sort.is_block_device(), major: major(number), minor: minor(number) })
    }
}

/// One instruction, `struct bpf_insn` of `linux/bpf.h`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `BPF_LDX | BPF_MEM | BPF_W`: a register from the memory that another one points to.
const LOAD: u8 = 0x61;
/// `BPF_ALU64 | BPF_AND | BPF_K`.
const AND: u8 = 0x57;
/// `BPF_JMP32 | BPF_JNE | BPF_K`: over so many instructions where the lower half of a register is not this.
const JUMP_UNLESS: u8 = 0x56;
/// `BPF_ALU64 | BPF_MOV | BPF_K`.
const SET: u8 = 0xb7;
/// `BPF_JMP | BPF_EXIT`.
const EXIT: u8 = 0x95;

/// The register that the program is given `struct bpf_cgroup_dev_ctx` in.
const CONTEXT: u8 = 1;
/// The register of its answer: 1 allows, 0 refuses with EPERM.
const ANSWER: u8 = 0;
const SORT: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;

/// The two sorts of `linux/bpf.h`, in the lower half of the context's first word.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD, registers: CONTEXT << 4 | register, offset, immediate: 0 }
}

fn jump_unless(register: u8, value: i32, over: i16) -> Instruction {
    Instruction { code: JUMP_UNLESS, registers: register, offset: over, immediate: value }
}

fn answer(value: i32) -> [Instruction; 2] {
    [
        Instruction { code: SET, registers: ANSWER, offset: 0, immediate: value },
        Instruction { code: EXIT, registers: 0, offset: 0, immediate: 0 },
    ]
}

/// The program that refuses these and allows everything else.
fn program(denied: &[Device]) -> Vec<Instruction> {
    let mut program = vec![
        load(SORT, 0),
        Instruction { code: AND, registers: SORT, offset: 0, immediate: 0xffff },
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for device in denied {
        let sort = if device.is_block { BLOCK } else { CHARACTER };
        program.push(jump_unless(SORT, sort, 4));
        program.push(jump_unless(MAJOR, device.major.cast_signed(), 3));
        program.push(jump_unless(MINOR, device.minor.cast_signed(), 2));
        program.extend(answer(0));
    }
    program.extend(answer(1));
    program
}

/// The part of `union bpf_attr` that loads a program.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
}

/// The part of `union bpf_attr` that attaches one.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Keeps the processes of a cgroup, and of those below it, from these devices for good: the program lives as long as
/// the cgroup.
///
/// # Errors
/// If the kernel has no such programs, or root's rights do not reach them.
pub fn deny(cgroup: BorrowedFd<'_>, denied: &[Device]) -> io::Result<()> {
    let instructions = program(denied);
    let load = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        // It calls nothing that wants a licence.
        license: c"MIT".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
    };
    // SAFETY: the attributes are the beginning of the union that this command reads, as long as is said; the pointers
    // in them are to a live vector of as many instructions as is said, and to a NUL-terminated text. The kernel only
    // reads them.
    let loaded =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<LoadAttributes>()) };
    let loaded = i32::try_from(loaded).map_err(io::Error::other)?;
    if loaded < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made this descriptor, and nobody else knows of it.
    let program = unsafe { OwnedFd::from_raw_fd(loaded) };
    let attach = AttachAttributes {
        target: cgroup.as_raw_fd().unsigned_abs(),
        program: program.as_raw_fd().unsigned_abs(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: as above; both descriptors are open during the call.
    let attached = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<AttachAttributes>())
    };
    if attached == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer: the few instructions that are used here, carried out.
    fn refuses(program: &[Instruction], access_type: u32, major: u32, minor: u32) -> bool {
        let context = [access_type, major, minor];
        let mut registers = [0_i64; 5];
        let mut at = 0;
        loop {
            let Instruction { code, registers: which, offset, immediate } = program[at];
            let register = usize::from(which & 0xf);
            match code {
                LOAD => {
                    registers[register] = i64::from(context[usize::try_from(offset).unwrap() / 4]);
                }
                AND => registers[register] &= i64::from(immediate),
                SET => registers[register] = i64::from(immediate),
                JUMP_UNLESS => {
                    let low = u32::try_from(registers[register]).unwrap();
                    if low != immediate.cast_unsigned() {
                        at += usize::try_from(offset).unwrap();
                    }
                }
                EXIT => return registers[usize::from(ANSWER)] == 0,
                other => panic!("instruction {other:#x}"),
            }
            at += 1;
        }
    }

    #[test]
    fn only_what_was_named_is_refused_whatever_is_asked_of_it() {
        let gpu = |minor| Device { is_block: false, major: 195, minor };
        let disk = Device { is_block: true, major: 8, minor: 0 };
        let program = program(&[gpu(0), gpu(2), disk]);
        let character = CHARACTER.cast_unsigned();
        for access in 0..8_u32 {
            let of = |sort: i32| access << 16 | sort.cast_unsigned();
            assert!(refuses(&program, of(CHARACTER), 195, 0));
            assert!(!refuses(&program, of(CHARACTER), 195, 1));
            assert!(refuses(&program, of(CHARACTER), 195, 2));
            assert!(!refuses(&program, of(BLOCK), 195, 0));
            assert!(refuses(&program, of(BLOCK), 8, 0));
            assert!(!refuses(&program, of(CHARACTER), 8, 0));
        }
        assert!(!refuses(&super::program(&[]), character, 1, 3));
    }

    #[test]
    fn a_device_is_known_by_its_numbers() {
        let null = Device::at(Path::new("/dev/null")).unwrap();
        assert_eq!(null, Device { is_block: false, major: 1, minor: 3 });
        assert!(Device::at(Path::new("/dev")).is_err());
        assert!(Device::at(Path::new("/dev/there-is-no-such-device")).is_err());
    }
}
