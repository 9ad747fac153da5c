#!/bin/sh
# make bench: builds in release, compiles the references, and measures inside a sandbox whose state is on a real disk.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
cargo=${CARGO:-cargo}
bin=${CARGO_TARGET_DIR:-target}/release
$cargo build --locked --release --quiet -p deputyd -p deputyctl -p deputy-launcher -p deputy-sandbox -p deputy-bench
cc -O2 -Wall -Wextra -o "$bin/deputy-bench-limit" benches/reference/limit.c -lpam

# On the file system of the build, which is a real one: the records are put on it as on a server's.
state=$(mktemp -d "$bin/bench-state.XXXXXX")
trap 'rm -rf "$state"' EXIT
"$bin/deputy-sandbox" --bin-dir "$bin" --state-dir "$state" --user service/portal: --user alice:wonder:lab1 \
    --application benches/bench.toml -- deputy-bench "$@"
