#!/bin/sh
# The main job of Deputy, as a story, in a sandbox that leaves nothing behind.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=${DEPUTY_BIN_DIR:-$here/../target/debug}
[ "$(id -u)" -eq 0 ] || { echo 'the demo needs root: it makes a sandbox with users of its own' >&2; exit 1; }
exec "$bin/deputy-sandbox" --bin-dir "$bin" \
    --user service/portal: --user ada:lovelace:lab1 --user ben:franklin:lab2 --user eve:mallory \
    --application "$here/portal.toml" -- "$here/story.sh"
