#!/bin/sh
# cargo's runner for all test programs of the workspace: those of the suite run inside a sandbox of their own, the others as
# they are. cargo says whose a program is.
set -eu
case ${CARGO_PKG_NAME-} in
    deputy-suite) exec "$(dirname "$0")/run.sh" "$@" ;;
    *) exec "$@" ;;
esac
