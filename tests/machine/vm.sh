#!/bin/sh
# make test-vm: Deputy's packages on a Debian of its own kernel, in a virtual machine: cgroups of version 2 with all
# controllers, quotas, the audit system's loginuid. Emulated, unless a short try shows that KVM works here.
# Prints `ok NAME` and `not ok NAME reason`; the journal of a run that failed is in target/machine/.
#
#     tests/machine/vm.sh          the tests
#     tests/machine/vm.sh shell    a root shell in such a machine; gone afterwards
set -eu
cd "$(dirname "$0")/../.."
. tests/machine/lib.sh
need_root
# Mounts of its own, which are gone with it.
[ -n "${DEPUTY_MACHINE_MOUNTS-}" ] || DEPUTY_MACHINE_MOUNTS=1 exec unshare --mount --propagation private "$0" "$@"

for tool in mmdebstrap systemd-nspawn dpkg-buildpackage qemu-system-x86_64 mkfs.ext4 debugfs; do
    command -v "$tool" >/dev/null || skip "the virtual machine: $tool is not installed (tests/packages.sh)"
done
[ "$(uname -m)" = x86_64 ] || skip 'the virtual machine: only emulated on x86-64 so far'
base=$(build_root) || skip 'the virtual machine: no Debian root could be made (is a mirror within reach?)'
work=$(mktemp -d /var/tmp/deputy-vm.XXXXXX)
trap 'umount -l "$work/root" 2>/dev/null || true; rm -rf "$work"' EXIT
mount_machine "$work" || skip 'the virtual machine: overlayfs cannot be mounted here'

need_debs
copy_tests "$work/root"
[ "${1-}" = shell ] || copy_suite "$work/root" launcher_bounds launcher_gpus launcher_ending launcher_confine launcher_capture \
    files_kernel_quota
test_unit "$work/root"
echo vm >"$work/root/machine-test/stage"
# Installed before it boots: emulated, it would take longer than all tests.
systemd-nspawn --quiet --directory="$work/root" --register=no --keep-unit --private-network --resolv-conf=off \
    --timezone=off sh -c 'apt-get install -y --no-install-recommends /machine-test/debs/*.deb' \
    </dev/null >"$work/log" 2>&1 || {
    tail -n 5 "$work/log"
    fail vm 'the packages could not be installed into its root'
}
echo '/dev/vda / ext4 defaults 0 0' >"$work/root/etc/fstab"
echo machine >"$work/root/etc/hostname"
if [ "${1-}" = shell ]; then
    rm "$work/root/etc/systemd/system/default.target.wants/machine-test.service"
    mkdir -p "$work/root/etc/systemd/system/serial-getty@ttyS0.service.d"
    printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %%I\n' \
        >"$work/root/etc/systemd/system/serial-getty@ttyS0.service.d/root.conf"
    echo 'A root shell comes up in a moment. Leave with: systemctl poweroff'
fi

truncate -s 4G "$work/disk"
mkfs.ext4 -q -d "$work/root" "$work/disk"
# Inside of a machine KVM may be there and hang, or abort. A kernel without a root is to come to its panic, soon.
kvm_works() {
    [ -w /dev/kvm ] || return 1
    timeout -k 5 30 qemu-system-x86_64 -accel kvm -cpu max -m 512 -nographic -no-reboot -nic none \
        -kernel "$(ls "$base"/boot/vmlinuz-*)" -append 'console=ttyS0 panic=-1 root=/dev/none' \
        </dev/null >"$work/probe" 2>&1 && grep -q 'Kernel panic' "$work/probe"
}
accelerator=tcg,thread=multi
if kvm_works; then accelerator=kvm; fi

# no_timer_check: on a busy machine an emulated timer comes late, which is no reason to panic.
run_machine() {
    $starter qemu-system-x86_64 -accel "$accelerator" -cpu max -m 2048 -smp 2 -nographic -no-reboot \
        -kernel "$(ls "$base"/boot/vmlinuz-*)" -initrd "$(ls "$base"/boot/initrd.img-*)" \
        -append "root=/dev/vda rw console=ttyS0 quiet no_timer_check systemd.show_status=0" \
        -drive "file=$work/disk,format=raw,if=virtio,cache=unsafe" -nic none "$@"
}
starter=
if [ "${1-}" = shell ]; then
    run_machine
    exit
fi

failed=0
starter='timeout -k 10 1800' # a machine that never comes to its end
run_machine </dev/null >"$work/console" 2>&1 || true

# Its file system, without a mount.
umount "$work/root"
mkdir -p "$work/root/machine-test" "$work/root/var/log/journal"
debugfs -R "dump /machine-test/output $work/root/machine-test/output" "$work/disk" >/dev/null 2>&1
show_results vm
[ "$failed" -eq 0 ] || debugfs -R "rdump /var/log/journal $work/root/var/log" "$work/disk" >/dev/null 2>&1
keep_journal vm
exit "$failed"
