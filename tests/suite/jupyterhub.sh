#!/bin/sh
# A JupyterHub for the test that logs in through its PAM authenticator: from PyPI, into a folder outside of the tree,
# once. Debian has none. Where PyPI cannot be reached, it says so, and that test is skipped.
#
#     tests/suite/jupyterhub.sh    fetches it, if it is not there; prints nothing where it is
#
#   DEPUTY_JUPYTERHUB   the folder; default /var/cache/deputy-suite/jupyterhub-VERSION
set -eu
version=6.1.1
folder=${DEPUTY_JUPYTERHUB:-/var/cache/deputy-suite/jupyterhub-$version}
[ ! -d "$folder" ] || exit 0
mkdir -p "$(dirname "$folder")"
new=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$new"' EXIT
# Debian's own Python, which the tests use. Built packages only: nothing of theirs runs here.
if ! /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --no-warn-script-location --only-binary :all: --target "$new" "jupyterhub==$version" >"$new/log" 2>&1; then
    echo "jupyterhub.sh: jupyterhub $version could not be fetched: $(tail -n 1 "$new/log")"
    exit 0
fi
chmod 755 "$new"
# Two who get here at once: one of them is first, and the other one's is thrown away.
mv -T "$new" "$folder" 2>/dev/null || [ -d "$folder" ]
