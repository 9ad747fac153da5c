#!/bin/sh
# Builds every test program of the workspace and runs them, as many at a time as there are processors: most of them wait
# more than they compute. What a program prints comes in one piece, when it has ended. Those of the suite run inside a
# sandbox of their own each (tests/suite/in-sandbox.sh).
#
# cargo's selection of packages is always the same: another one has other features of the crates that they share, and
# builds all of these anew.
set -u
cd "$(dirname "$0")/.."

if [ "${1-}" = one ]; then
    # The second half: PACKAGE FOLDER PROGRAM, as cargo would run it.
    package=$2
    folder=$3
    program=$4
    runner=$PWD/tests/suite/in-sandbox.sh
    printed=$(mktemp)
    (
        cd "$folder" || exit 1
        CARGO_PKG_NAME=$package CARGO_MANIFEST_DIR=$folder exec "$runner" "$program"
    ) >"$printed" 2>&1 </dev/null
    status=$?
    {
        flock 9
        printf '\n   Running %s (%s)\n' "$(basename "$program")" "$package"
        cat "$printed"
        [ "$status" -eq 0 ] || printf 'test program %s ended with status %s ... FAILED\n' "$(basename "$program")" "$status"
    } 9>>"$DEPUTY_TEST_TURN"
    rm -f "$printed"
    exit "$status"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
DEPUTY_TEST_TURN=$work/turn
export DEPUTY_TEST_TURN

cargo test --locked --workspace --no-run --message-format=json >"$work/built" || exit 1
python3 - "$work/built" >"$work/programs" <<'PYTHON' || exit 1
import json, os, sys

for line in open(sys.argv[1]):
    built = json.loads(line)
    if built.get("profile", {}).get("test") and built.get("executable"):
        package = built["package_id"].split("#")[-1].split("@")[0]
        print(package, os.path.dirname(built["manifest_path"]), built["executable"])
PYTHON
[ -s "$work/programs" ] || { echo 'cargo told of no test program' >&2; exit 1; }
sort "$work/programs" | xargs -n 3 -P "${DEPUTY_TEST_PROGRAMS:-$(nproc)}" tests/programs.sh one
