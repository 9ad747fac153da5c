# What the tests inside a machine share. Each test is a function; it fails with its first command that fails, and what
# it did is shown then. bash.

people() {
    groupadd lab1 && groupadd lab2
    useradd --create-home --user-group --groups lab1 --shell /bin/bash alice
    useradd --create-home --user-group --groups lab2 --shell /bin/bash bob
    useradd --system --user-group --shell /usr/sbin/nologin portal
    useradd --system --user-group --shell /usr/sbin/nologin otherportal
    printf 'alice:wonder\nbob:builder\n' | chpasswd
}

as() {
    local user=$1
    shift
    runuser -u "$user" -- "$@"
}
portal() { as portal deputyctl "$@"; }

# A job of alice's through the application demo; its output and status are this command's.
job() { portal run --app demo --account alice -- "$@"; }

# start ACCOUNT COMMAND...: a job that nobody follows; prints its path.
start() { as portal python3 /machine-test/start.py "$@"; }

# field JOB NAME: of a job's record.
field() { portal --json job show "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1]))' "$2"; }

# Waits for something that has to come; the time is only an end to waiting for what does not.
eventually() {
    local _
    for _ in $(seq 600); do
        "$@" >/tmp/eventually 2>&1 && return
        sleep 0.1
    done
    cat /tmp/eventually
    echo "waited in vain: $*"
    return 1
}

# The shell does not end at a "! command" that fails.
not() { ! "$@"; }
equal() { [ "$1" = "$2" ] || { printf 'expected: %s\ngot:      %s\n' "$1" "$2"; return 1; }; }
is_over() { [ "$(field "$1" state)" = done ]; }
refused() {
    local code=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "was allowed: $*"
        return 1
    fi
    grep -q "^deputyctl: $code:" <<<"$output" || { echo "$output"; return 1; }
}

# The demo application, with alice's and bob's consent by root.
demo() {
    deputyctl application install --yes /machine-test/applications/demo.toml 2>/dev/null ||
        install -m 0644 /machine-test/applications/demo.toml /etc/deputy/applications.d/
    for name in alice bob; do
        portal account add demo "$name"
        deputyctl consent grant demo "$name" "$name"
        portal link request demo "$name" "$name"
    done
}

# run TEST...: prints for each one line that the project's own scripts count.
run() {
    local name output
    for name in "$@"; do
        # Not "if output=...": there the first failed command would not end it.
        output=$(set -eu; "$name" 2>&1)
        # shellcheck disable=SC2181
        if [ $? -eq 0 ]; then
            echo "ok $name"
        else
            echo "not ok $name $(tail -n 1 <<<"$output")"
            tail -n 25 <<<"$output" | cut -c1-300 | sed 's/^/    /'
        fi
    done
}
