#!/bin/sh
# The Debian packages: what they install, and what lintian says. Prints `ok NAME` and `not ok NAME reason`.
#
#     tests/machine/packages.sh            the tests
#     tests/machine/packages.sh --write    writes tests/machine/deb-files.txt anew
set -eu
cd "$(dirname "$0")/../.."
. tests/machine/lib.sh

command -v dpkg-buildpackage >/dev/null || skip 'the packages: dpkg-dev is not installed (tests/packages.sh)'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
need_debs

# Mode, owner and path of each file, by package; sizes and times differ.
for deb in "$debs"/*.deb; do
    echo "== $(dpkg-deb -f "$deb" Package)"
    dpkg-deb -c "$deb" | awk '{ print $1, $2, $6, $7, $8 }' | sed 's/ *$//' | LC_ALL=C sort -k 3
    echo "-- conffiles"
    dpkg-deb --ctrl-tarfile "$deb" | tar -xO ./conffiles 2>/dev/null || true
done >"$work/files"
[ "${1-}" != --write ] || cp "$work/files" tests/machine/deb-files.txt

failed=0
if diff -u tests/machine/deb-files.txt "$work/files"; then
    echo 'ok packages_install_the_listed_files'
else
    echo 'not ok packages_install_the_listed_files see tests/machine/packages.sh --write'
    failed=1
fi
if ! command -v lintian >/dev/null; then
    echo 'SKIPPED packages_satisfy_lintian: lintian is not installed (tests/packages.sh)'
elif lintian --allow-root --fail-on error,warning --info "$debs"/*.deb 2>&1; then
    echo 'ok packages_satisfy_lintian'
else
    echo 'not ok packages_satisfy_lintian an error or warning that debian/*.lintian-overrides does not explain'
    failed=1
fi
exit "$failed"
