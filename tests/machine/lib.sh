# What the machines' scripts share. Sourced, from the project's folder.
#
#   DEPUTY_MACHINE_CACHE   where roots are kept between runs; default /var/cache/deputy-machine
#   DEPUTY_DEB_DIR         where `make deb` puts the packages; default target/deb

# The same order and words everywhere.
export LC_ALL=C.UTF-8
cache=${DEPUTY_MACHINE_CACHE:-/var/cache/deputy-machine}
debs=${DEPUTY_DEB_DIR:-$PWD/target/deb}
machine=$PWD/tests/machine

# Counted by tests/all.sh.
skip() {
    echo "SKIPPED $1"
    exit 0
}

fail() {
    echo "not ok $1 $2"
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || {
        echo "$0 needs root: it makes mounts and machines of its own" >&2
        exit 1
    }
}

# The packages of a machine's root, and the name of the root that is made of exactly these.
wanted_packages() { sed 's/#.*//; /^ *$/d; s/ //g' "$machine/root-packages"; }
root_name() { { cat "$machine/root-packages" && sed -n '/^build_root/,/^}/p' "$machine/lib.sh"; } | sha256sum | cut -c1-16; }

# Makes a Debian root below the cache, unless the same one is there: prints its path.
build_root() {
    root=$cache/root-$(root_name)
    if [ ! -d "$root" ]; then
        mkdir -p "$cache"
        new=$(mktemp -d "$cache/new.XXXXXX")
        include=$(wanted_packages | paste -sd,)
        # A folder of apt's own inside: what runs in the root cannot reach the network.
        if ! mmdebstrap --variant=apt --format=tar --include="$include" bookworm "$new/root.tar" >"$new/log" 2>&1; then
            tail -n 5 "$new/log" >&2
            rm -rf "$new"
            return 1
        fi
        mkdir "$new/root"
        tar -C "$new/root" -xf "$new/root.tar"
        # The journal survives a test that fails.
        mkdir -p "$new/root/var/log/journal"
        rm -f "$new/root/etc/resolv.conf"
        # A test begins what it needs of the file server's.
        for unit in nfs-server.service nfs-client.target nfs-blkmap.service rpcbind.service rpcbind.socket; do
            ln -sf /dev/null "$new/root/etc/systemd/system/$unit"
        done
        # Two who get here at once: one of them is first, and the other one's is thrown away.
        mv -T "$new/root" "$root" 2>/dev/null || [ -d "$root" ]
        rm -rf "$new"
        # What older lists made, and nobody has used for a week.
        find "$cache" -maxdepth 1 -name 'root-*' ! -path "$root" -mtime +7 -exec rm -rf {} +
    fi
    touch "$root"
    printf '%s\n' "$root"
}

# mount_machine DIRECTORY: DIRECTORY/root is a machine of its own, whose changes are in DIRECTORY/changes.
mount_machine() {
    mkdir -p "$1/changes" "$1/work" "$1/root"
    mount -t overlay machine -o "lowerdir=$base,upperdir=$1/changes,workdir=$1/work" "$1/root"
}

# The packages, built if something that goes into them is newer.
need_debs() {
    if ! find_debs >/dev/null || [ -n "$(find src nss-module pam-module pam dbus polkit systemd man docs debian Cargo.toml Cargo.lock -newer "$debs/built" -type f ! -path 'debian/deputy/*' ! -path 'debian/lib*-deputy/*' ! -path 'debian/.debhelper/*' -print -quit 2>/dev/null)" ]; then
        make --no-print-directory deb >"$work/deb.log" 2>&1 || {
            tail -n 30 "$work/deb.log"
            fail packages_are_built 'make deb failed'
        }
    fi
}
find_debs() { ls "$debs"/deputy_*.deb; }

# newer_debs DIRECTORY: the same packages with a higher version, as an upgrade.
newer_debs() {
    mkdir -p "$1"
    for deb in "$debs"/*.deb; do
        dpkg-deb -R "$deb" "$1/tree"
        sed -i 's/^Version: .*/&+newer1/' "$1/tree/DEBIAN/control"
        dpkg-deb --root-owner-group -b "$1/tree" "$1" >/dev/null
        rm -rf "$1/tree"
    done
}

# copy_tests ROOT: what runs inside.
copy_tests() {
    mkdir -p "$1/machine-test/debs"
    cp -r "$machine/inside/." "$1/machine-test/"
    cp "$debs"/*.deb "$1/machine-test/debs/"
    cp -r tests/suite/applications "$1/machine-test/"
    # What debian/tests needs of the source tree.
    mkdir -p "$1/machine-test/tree/debian" "$1/machine-test/tree/tests/machine/inside" "$1/machine-test/tree/docs"
    cp -r debian/tests "$1/machine-test/tree/debian/"
    cp tests/machine/inside/guide.py "$1/machine-test/tree/tests/machine/inside/"
    cp docs/administration.md "$1/machine-test/tree/docs/"
}

# test_unit ROOT: what boots there runs the stage that /machine-test/stage names, and powers off.
test_unit() {
    cat >"$1/etc/systemd/system/machine-test.service" <<'UNIT'
[Unit]
Description=The tests of Deputy on a whole machine
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'exec /machine-test/$(cat /machine-test/stage) >/machine-test/output 2>&1'
ExecStopPost=/usr/bin/systemctl poweroff --no-block
UNIT
    mkdir -p "$1/etc/systemd/system/default.target.wants"
    ln -sf ../machine-test.service "$1/etc/systemd/system/default.target.wants/machine-test.service"
}

# show_results STAGE: what the tests printed. A machine that did not come to its end is a failure, too.
show_results() {
    cat "$work/root/machine-test/output" 2>/dev/null || true
    if ! grep -q '^ok ' "$work/root/machine-test/output" 2>/dev/null; then
        tail -n 20 "$work/console"
        echo "not ok $1 it printed no results"
        failed=1
    elif grep -q '^not ok ' "$work/root/machine-test/output"; then
        failed=1
    elif ! tail -n 1 "$work/root/machine-test/output" | grep -qx 'end of the tests'; then
        echo "not ok $1 it did not come to its end"
        failed=1
    fi
    rm -f "$work/root/machine-test/output"
}

# keep_journal NAME: of a run that failed.
keep_journal() {
    [ "$failed" -ne 0 ] || return 0
    mkdir -p target/machine
    journalctl --no-pager -o short-precise -D "$work/root/var/log/journal" >"target/machine/$1.journal" 2>/dev/null || true
    echo "the journal is in target/machine/$1.journal"
}

# suite_program NAME: the newest build of one of the suite's test programs.
suite_program() {
    # The same selection of packages as everywhere: see tests/programs.sh.
    found=$(cargo test --locked --quiet --workspace --test "$1" --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\/'"$1"'-[^"]*\)".*/\1/p' | tail -n 1)
    [ -n "$found" ] && printf '%s\n' "$found"
}

# copy_suite ROOT NAME...: programs of the suite, and the sandbox with the very programs that the package has.
copy_suite() {
    suite=$1/machine-test/suite
    shift
    mkdir -p "$suite/bin"
    cargo build --locked --quiet --workspace --all-targets || fail suite_is_built 'cargo build --workspace --all-targets failed'
    # Without what only a debugger reads: the machine's disk is small.
    strip -o "$suite/bin/deputy-sandbox" target/debug/deputy-sandbox
    cp target/release/deputyd target/launcher/deputy-launcher target/release/deputyctl target/release/deputy-store \
        "$suite/bin/"
    for name in "$@"; do
        program=$(suite_program "$name") || fail suite_is_built "cargo test --test $name --no-run failed"
        strip -o "$suite/$name" "$program"
    done
}
