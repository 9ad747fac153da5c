#!/bin/sh
# make test-container: Deputy's packages on a Debian that systemd boots, in a container. Prints `ok NAME` and
# `not ok NAME reason`; the journal of a run that failed is in target/machine/.
#
#     tests/machine/container.sh          the tests
#     tests/machine/container.sh bench    `deputy-bench`, which is built already, with the packages installed
#     tests/machine/container.sh shell    a shell in such a machine, with the packages installed; gone afterwards
set -eu
cd "$(dirname "$0")/../.."
. tests/machine/lib.sh
need_root
# Mounts of its own, which are gone with it.
[ -n "${DEPUTY_MACHINE_MOUNTS-}" ] || DEPUTY_MACHINE_MOUNTS=1 exec unshare --mount --propagation private "$0" "$@"

for tool in mmdebstrap systemd-nspawn dpkg-buildpackage; do
    command -v "$tool" >/dev/null || skip "the booted container: $tool is not installed (tests/packages.sh)"
done
base=$(build_root) || skip 'the booted container: no Debian root could be made (is a mirror within reach?)'
work=$(mktemp -d /var/tmp/deputy-container.XXXXXX)
trap 'umount -l "$work/root" "$work/apart/root" 2>/dev/null || true; rm -rf "$work"' EXIT
mount_machine "$work" || skip 'the booted container: overlayfs cannot be mounted here'

# Its own network, without a way out. Version 2 of cgroups, whatever this machine itself uses. pidfd_getfd, with which
# deputyctl reads answers, is one of the calls that nspawn forbids by default.
nspawn() { nspawn_in "$work/root" "$@"; }
nspawn_in() {
    root=$1
    shift
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --directory="$root" --register=no --keep-unit \
        --private-network --resolv-conf=off --timezone=off \
        --system-call-filter=pidfd_getfd "$@"
}
nspawn true >"$work/log" 2>&1 </dev/null ||
    skip "the booted container: systemd-nspawn does not work here ($(tail -n 1 "$work/log"))"

need_debs
copy_tests "$work/root"

if [ "${1-}" = bench ]; then
    mkdir -p "$work/root/machine-test/bin"
    cp target/release/deputy-bench target/release/deputy-bench-limit "$work/root/machine-test/bin/"
    cp benches/bench.toml "$work/root/machine-test/"
    test_unit "$work/root"
    echo bench >"$work/root/machine-test/stage"
    nspawn --boot </dev/null >"$work/console" 2>&1 || true
    cat "$work/root/machine-test/output" || tail -n 20 "$work/console"
    exit
fi

newer_debs "$work/root/machine-test/newer"
probe=$(suite_program probe) && {
    mkdir -p "$work/root/machine-test/bin"
    cp "$probe" "$work/root/machine-test/bin/probe"
    cp target/debug/deputy-probe "$work/root/machine-test/bin/"
}
cargo build --locked --quiet --workspace --all-targets || fail names_are_built 'cargo build --workspace --all-targets failed'
mkdir -p "$work/root/machine-test/bin"
cp target/debug/deputy-nss-map "$work/root/machine-test/bin/"
test_unit "$work/root"

boot() {
    echo "$1" >"$work/root/machine-test/stage"
    nspawn --boot </dev/null >"$work/console" 2>&1 || true
    show_results "$1"
}

if [ "${1-}" = shell ]; then
    nspawn sh -c 'apt-get install -y --no-install-recommends /machine-test/debs/*.deb' </dev/null >/dev/null 2>&1
    rm -f "$work/root/etc/systemd/system/default.target.wants/machine-test.service"
    mkdir -p "$work/root/etc/systemd/system/console-getty.service.d"
    printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud console\n' \
        >"$work/root/etc/systemd/system/console-getty.service.d/root.conf"
    nspawn --boot
    exit
fi

# Beside the first boot, in a root of its own: packages where nothing runs.
mkdir "$work/apart"
mount_machine "$work/apart"
cp -r "$work/root/machine-test" "$work/apart/root/"
nspawn_in "$work/apart/root" --machine=apart sh -c 'exec /machine-test/chroot >/machine-test/output 2>&1' \
    </dev/null >"$work/apart/console" 2>&1 &
apart=$!

failed=0
boot container-1
boot container-names
boot container-2
wait "$apart" || true
mv "$work/apart/root/machine-test/output" "$work/root/machine-test/output" 2>/dev/null || true
cp "$work/apart/console" "$work/console"
show_results chroot
keep_journal container
exit "$failed"
