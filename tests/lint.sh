#!/bin/sh
# Formatting, clippy with warnings as errors, and the house rules that a search can check.
set -eu
cd "$(dirname "$0")/.."
status=0

complain() {
    echo "house rule: $1" >&2
    echo "$2" >&2
    status=1
}

cargo fmt --all --check || status=1
cargo clippy --locked --workspace --all-targets --quiet -- -D warnings || status=1

# Unsafe code is in src/sys, and in the shims of the two modules; everything else forbids it.
for root in src/core src/wire src/etc src/launcher src/daemon src/cli nss-module/format pam-module/core tests/sandbox tests/suite; do
    for file in "$root"/src/lib.rs "$root"/src/main.rs "$root"/src/bin/*.rs; do
        [ -f "$file" ] || continue
        grep -q '^#!\[forbid(unsafe_code)\]' "$file" || complain 'forbid(unsafe_code) in each crate root' "$file"
    done
done

# One place drops identities.
found=$(grep -rnE '\b(set(res|re|fs)?[ug]id|setgroups)\(' --include='*.rs' src | grep -v '^src/sys/src/drop.rs:' || true)
[ -z "$found" ] || complain 'only src/sys/src/drop.rs calls setgroups and set*id' "$found"

# polkit is asked about the bus name, never about a pid (CVE-2013-4288).
found=$(grep -rnE 'Subject::new_for_(pid|owner)|unix-process' --include='*.rs' src || true)
[ -z "$found" ] || complain "polkit's subject is the system-bus-name" "$found"

# Nothing is left for later in code.
found=$(grep -rnE '\b(todo|unimplemented)!\(|FIXME|XXX' --include='*.rs' src tests benches || true)
[ -z "$found" ] || complain 'no stubs' "$found"

exit "$status"
