#!/bin/sh
# Every test: lints, the tests of all crates, those of the whole of Deputy inside the sandbox, the demo, whole machines.
# The last lines say how many passed, failed and were skipped, and why each skipped one was.
set -u
cd "$(dirname "$0")/.."
[ "$(id -u)" -eq 0 ] || { echo 'make test needs root: it makes namespaces, users and mounts of its own' >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log
skipped_list=$work/skipped
: >"$skipped_list"
stages_failed=0
stages_passed=0

# For whoever wants to know what the time goes into; nothing depends on it.
times=$work/times

stage() {
    title=$1
    shift
    begun=$(date +%s)
    printf '\n== %s\n' "$title"
    if { "$@" 2>&1; echo "$?" >"$work/status"; } | tee -a "$log" && [ "$(cat "$work/status")" -eq 0 ]; then
        stages_passed=$((stages_passed + 1))
    else
        stages_failed=$((stages_failed + 1))
        echo "stage failed: $title" | tee -a "$work/failed"
    fi
    printf 'seconds: %5d  %s\n' "$(($(date +%s) - begun))" "$title" >>"$times"
}

# From PyPI, beside the build; what could not be fetched is said again by the test that is skipped.
tests/suite/jupyterhub.sh &
hub=$!
stage 'build' cargo build --locked --workspace --all-targets
stage 'lints and house rules' tests/lint.sh
wait "$hub"
# The tests wait more than they compute, so what the last stages need is made beside them. Whatever is missing then is
# made there.
{
    nice make --no-print-directory deb
    (. tests/machine/lib.sh && build_root)
} >"$work/beside.log" 2>&1 &
beside=$!
stage 'unit tests, the sandbox itself, and the whole inside the sandbox' tests/programs.sh
wait "$beside" || true
stage 'the demo' demo/run.sh
# The packages are what a machine gets: built once, looked at, then installed on whole machines.
stage 'the Debian packages' tests/machine/packages.sh
stage 'a booted container' tests/machine/container.sh
stage 'a virtual machine' tests/machine/vm.sh

if command -v cargo-deny >/dev/null 2>&1; then
    stage 'licences and bans' cargo deny --offline check bans licenses sources
else
    echo 'licences and bans: cargo-deny is not installed (cargo install cargo-deny)' >>"$skipped_list"
fi

count() {
    sed -n "s/^test result: .* \([0-9]*\) $1;.*/\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'
}
# What the machines' tests print, a line each.
count_lines() { grep -cE "$1" "$log" || true; }
passed=$(($(count passed) + $(count_lines '^ok [a-z0-9_]+$') + stages_passed))
failed=$(($(count failed) + $(count_lines '^not ok [a-z0-9_]+ ') + stages_failed))
sed -n 's/.*SKIPPED //p' "$log" >>"$skipped_list"
skipped=$(wc -l <"$skipped_list")

printf '\n'
grep -hE '^test .* (FAILED|failed)$|^not ok ' "$log"
[ ! -f "$work/failed" ] || cat "$work/failed"
sed 's/^/skipped: /' "$skipped_list"
cat "$times"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
