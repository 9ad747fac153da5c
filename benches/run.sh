#!/bin/sh
# make bench: builds in release, compiles the references, and measures inside a sandbox whose state is on a real disk.
# BENCH names the sections that are wanted; arguments go to the one that measures launches.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
sections=${BENCH:-launches container memory accounts refusals names logins files slurm}
for section in $sections; do
    case $section in
        launches | container | memory | accounts | refusals | names | logins | files | slurm) ;;
        *) echo "BENCH: there is no section $section; there are launches, container, memory, accounts, refusals, names, logins, files and slurm" >&2; exit 2 ;;
    esac
done
cargo=${CARGO:-cargo}
bin=${CARGO_TARGET_DIR:-target}/release
$cargo build --locked --release --quiet -p deputyd -p deputyctl -p deputy-sandbox -p deputy-bench \
    -p deputy-nss -p deputy-pam -p deputy-nss-format -p deputy-suite
# As it is installed: see its profile in Cargo.toml.
$cargo build --locked --profile launcher --quiet -p deputy-launcher
ln -f "$bin/../launcher/deputy-launcher" "$bin/"
cc -O2 -Wall -Wextra -o "$bin/deputy-bench-limit" benches/reference/limit.c -lpam
cc -O2 -Wall -Wextra -o "$bin/deputy-bench-nss" benches/reference/nss.c
cc -O2 -Wall -Wextra -o "$bin/deputy-bench-login" benches/reference/login.c -lpam -lcrypt
DEPUTY_BENCH_NSS=$(realpath "$bin")/libnss_deputy.so
DEPUTY_BENCH_PAM=$(realpath "$bin")/libpam_deputy.so
export DEPUTY_BENCH_NSS DEPUTY_BENCH_PAM

# On the file system of the build, which is a real one: the records are put on it as on a server's.
state=
trap 'rm -rf "$state"' EXIT

# Runs a command in a sandbox of its own: in_sandbox OPTION... -- COMMAND
in_sandbox() {
    rm -rf "$state"
    state=$(mktemp -d "$bin/bench-state.XXXXXX")
    "$bin/deputy-sandbox" --bin-dir "$bin" --state-dir "$state" "$@"
}

for section in $sections; do
    case $section in
        launches)
            printf '\n== Launches\n\n'
            in_sandbox --user service/portal: --user alice:wonder:lab1 --application benches/bench.toml -- \
                deputy-bench "$@"
            ;;
        container)
            printf '\n== Launches in a container that systemd booted\n\n'
            tests/machine/container.sh bench
            ;;
        memory)
            printf '\n== Memory\n\n'
            in_sandbox --user service/portal: --user alice:wonder:lab1 --application benches/memory/bench.toml -- \
                deputy-bench memory
            ;;
        accounts)
            printf '\n== One million accounts\n\n'
            in_sandbox --no-daemons -- deputy-bench accounts
            ;;
        refusals)
            printf '\n== Refusal times\n\n'
            in_sandbox -- env -u DEPUTY_BENCH_PAM deputy-refusal-times
            printf '\nThe same by PAM:\n\n'
            in_sandbox -- deputy-refusal-times
            ;;
        files)
            printf '\n== Files\n\n'
            # shellcheck disable=SC2086 # options are plain words
            in_sandbox --user service/portal: --user alice:wonder:lab1 --application benches/files/bench.toml -- \
                deputy-bench files ${BENCH_FILES-}
            ;;
        slurm)
            printf '\n== Slurm\n\n'
            # shellcheck disable=SC2086 # options are plain words
            in_sandbox --slurm --user service/portal: --user alice:wonder:lab1 --application benches/slurm/bench.toml -- \
                deputy-bench --rounds 40 slurm ${BENCH_SLURM-}
            ;;
        names)
            printf '\n== The name service\n\n'
            in_sandbox --no-daemons -- deputy-bench names
            ;;
        logins)
            printf '\n== Logins by PAM\n\n'
            in_sandbox --user service/portal: --user alice:wonder:lab1 --application benches/logins/bench.toml -- \
                deputy-bench --rounds 100 logins
            ;;
    esac
done
