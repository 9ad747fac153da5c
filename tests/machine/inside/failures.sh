# What can be wrong with a machine. Each has to be told clearly, and to be over when it is over.

# status_says UNIT PATTERN: `systemctl status` tells it, which reads the unit's state and the journal.
status_says() { systemctl status --no-pager --full --lines=30 "$1" | grep "$2"; }

a_daemon_that_hangs_is_started_again() {
    local pid
    mkdir -p /run/systemd/system/deputyd.service.d
    printf '[Service]\nWatchdogSec=1s\n' >/run/systemd/system/deputyd.service.d/test.conf
    systemctl daemon-reload
    systemctl restart deputyd.service
    pid=$(main_pid deputyd.service)
    kill -STOP "$pid"
    eventually another_daemon "$pid"
    rm -r /run/systemd/system/deputyd.service.d
    systemctl daemon-reload
    systemctl restart deputyd.service
    portal status
}
another_daemon() { [ "$(systemctl is-active deputyd.service)" = active ] && [ "$(main_pid deputyd.service)" != "$1" ]; }

a_damaged_ledger_is_named_and_stops_the_start_and_no_job() {
    local path segment
    mkfifo -m 0666 /var/tmp/go 2>/dev/null || true
    path=$(start alice /bin/sh -c 'read _ </var/tmp/go; exit 23')
    # An orderly end, so that no record is an unfinished one.
    systemctl stop deputyd.service
    segment=$(ls /var/lib/deputy/ledger/*.ledger | tail -n 1)
    cp -a "$segment" /tmp/segment
    # shellcheck disable=SC2064
    trap "cp -a /tmp/segment '$segment'" EXIT
    printf '\377' | dd of="$segment" bs=1 seek=300 conv=notrunc status=none
    systemctl start deputyd.service && return 1
    eventually status_says deputyd.service "the store does not open: .*${segment##*/}"
    refused DaemonUnavailable portal status
    # Its end comes while nobody can be told.
    : >/var/tmp/go
    cp -a /tmp/segment "$segment"
    # What is written from here on stays.
    trap - EXIT
    eventually portal status
    eventually is_over "${path##*/}"
    equal 23 "$(field "${path##*/}" exit_code)"
    deputyctl store verify
}

a_disk_that_is_read_only_loses_nothing() {
    local before
    before=$(portal --json account list demo)
    systemctl stop deputyd.service
    mount --bind /var/lib/deputy /var/lib/deputy
    trap 'umount /var/lib/deputy 2>/dev/null || true' EXIT
    mount -o remount,bind,ro /var/lib/deputy
    systemctl start deputyd.service && return 1
    eventually status_says deputyd.service '[Rr]ead-only file system'
    umount /var/lib/deputy
    eventually portal status
    equal "$before" "$(portal --json account list demo)"
}

without_polkit_only_root_administers() {
    trap 'systemctl unmask polkit.service' EXIT
    systemctl mask --now polkit.service
    deputyctl account list demo
    refused NotAuthorized as alice deputyctl account list demo
    equal "$(id -u alice)" "$(job id -u)"
}

a_bus_that_dies_is_found_again_and_no_job_ends() {
    start_fifty
    systemctl kill --kill-whom=main -s KILL dbus.service
    eventually portal status
    all_run_on
    equal "$(id -u alice)" "$(job id -u)"
    let_them_end
}

a_full_disk_is_named_and_over_when_there_is_room() {
    local ledger=/var/lib/deputy/ledger n last=0
    systemctl stop deputyd.service
    mkdir /var/tmp/small
    mount -t tmpfs -o size=2m small /var/tmp/small
    cp -a $ledger /var/tmp/small/ledger
    mount --bind /var/tmp/small/ledger $ledger
    # shellcheck disable=SC2064
    trap "systemctl stop deputyd.service; umount $ledger; cp -a /var/tmp/small/ledger/. $ledger/
        umount /var/tmp/small; rmdir /var/tmp/small; systemctl start deputyd.service" EXIT
    systemctl start deputyd.service
    dd if=/dev/zero of=/var/tmp/small/filler bs=4k 2>/dev/null || true
    # Some still fit into what the last segment has.
    for n in $(seq 200); do
        portal account add demo "full$n" 2>refusal || break
        last=$n
    done
    cat refusal
    [ "$n" -gt "$last" ]
    eventually status_says deputyd.service '[Nn]o space left on device'
    rm /var/tmp/small/filler
    eventually portal account add demo room-again
    for n in $(seq "$last"); do portal account show demo "full$n"; done
    equal "$(id -u alice)" "$(job id -u)"
    deputyctl store verify
}

# Only on a machine whose clock is its own.
a_clock_that_is_set_is_told_and_ends_what_rests_on_it() {
    local path session
    trap 'date -s "@$(($(date +%s) + ${shifted:-0}))"' EXIT
    path=$(start alice /bin/sleep 4249)
    session=$(as portal deputyctl login demo alice --answers-fd 9 9< <(echo wonder))
    portal session show "$session"
    date -s '-3 days'
    shifted=$((3 * 24 * 3600))
    eventually status_says deputyd.service "the machine's clock was set back"
    refused NotFound portal session show "$session"
    # The job does not notice, new ones run, and who logs in again is let in.
    equal "$(id -u alice)" "$(job id -u)"
    pgrep -f '^/bin/sleep 4249'
    session=$(as portal deputyctl login demo alice --answers-fd 9 9< <(echo wonder))
    # Put right, as the guide says.
    date -s '+3 days'
    shifted=0
    eventually status_says deputyd.service "the machine's clock was set ahead"
    refused NotFound portal session show "$session"
    systemctl reload deputyd.service
    eventually clock_is_not_mentioned
    portal job cancel "${path##*/}" --grace 0
    eventually is_over "${path##*/}"
    equal 15 "$(field "${path##*/}" signal)"
    # Set while nobody looked.
    systemctl stop deputyd.service
    date -s '-3 days'
    shifted=$((3 * 24 * 3600))
    systemctl start deputyd.service
    eventually status_says deputyd.service "the machine's clock was set back"
    equal "$(id -u alice)" "$(job id -u)"
    deputyctl store verify
}
clock_is_not_mentioned() { not grep clock <<<"$(systemctl show -P StatusText deputyd.service)"; }
