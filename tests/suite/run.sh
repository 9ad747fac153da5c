#!/bin/sh
# Runs one test program of the suite inside a sandbox of its own; cargo calls it as its runner.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
program=$1
shift
test_arguments=$*
. "$here/people.sh"
# These need a Slurm, which takes some seconds to start: jobs run there, or are looked for.
name=$(basename "$program")
case ${name%-*} in
    slurm_without_accounting) set -- --slurm-without-accounting "$@" ;;
    slurm_clusters) set -- --slurm --second-cluster "$@" ;;
    pool_return | slurm_*) set -- --slurm "$@" ;;
esac
bin=${DEPUTY_BIN_DIR:-$here/../../target/debug}
# shellcheck disable=SC2086 # the arguments of a test program are plain words
exec "$bin/deputy-sandbox" --bin-dir "$bin" "$@" -- "$program" $test_arguments
