# Jobs and what restarts around them. Fifty jobs wait at a pipe; each then ends in its own way, and none may be lost,
# end early, or end otherwise.

JOBS=50

start_fifty() {
    local n
    rm -f /var/tmp/go fifty
    mkfifo -m 0666 /var/tmp/go
    for n in $(seq $JOBS); do
        if [ $((n % 5)) -eq 0 ]; then
            start alice /bin/sh -c 'read _ </var/tmp/go; kill -TERM $$' >>fifty
        else
            start alice /bin/sh -c "read _ </var/tmp/go; exit $n" >>fifty
        fi
    done
    equal $JOBS "$(pgrep -c -u alice -f '^/bin/sh -c read _ </var/tmp/go')"
    pgrep -u alice -f '^/bin/sh -c read _ </var/tmp/go' >pids
}

all_run_on() {
    equal "$(cat pids)" "$(pgrep -u alice -f '^/bin/sh -c read _ </var/tmp/go')"
}

# Each has to end as it should: every fifth by a signal, the others with their number.
let_them_end() {
    # Opened for writing once, and closed: every one of them is at its end.
    sleep 1 >/var/tmp/go
    eventually no_job_is_open
    portal --json job list demo | python3 -c '
import json, sys
jobs = {job["id"]: job for job in json.load(sys.stdin)}
paths = open("fifty").read().split()
assert len(paths) == int(sys.argv[1]), paths
for number, path in enumerate(paths, 1):
    job = jobs[path.rsplit("/", 1)[1]]
    end = (job["state"], job.get("exit_code"), job.get("signal"))
    assert end == (("done", None, 15) if number % 5 == 0 else ("done", number, None)), (number, job)
' $JOBS
}
no_job_is_open() {
    portal --json job list demo --state running >open
    equal '[]' "$(tr -d ' \n' <open)" >/dev/null
}

restarts_lose_no_job() {
    start_fifty
    systemctl restart deputyd.service
    all_run_on
    systemctl restart deputy-launcher.service
    all_run_on
    systemctl daemon-reload
    systemctl restart deputy-launcher.service deputyd.service
    equal "$(id -u alice)" "$(job id -u)"
    all_run_on
    systemctl daemon-reexec
    # Their launcher goes with them, and comes with the next request.
    systemctl restart deputy-launcher.socket deputy-owner.socket
    equal "$(id -u alice)" "$(job id -u)"
    as alice deputyctl consent list
    systemctl restart deputy-check-links.timer deputy-metrics.timer
    systemctl stop deputy-check-links.timer deputy-metrics.timer
    all_run_on
    let_them_end
}

main_pid() { systemctl show -P MainPID "$1"; }

updates_lose_no_job() {
    local holder daemon launcher
    daemon=$(main_pid deputyd.service)
    launcher=$(main_pid deputy-launcher.service)
    start_fifty
    holder=$(main_pid deputy-jobs.service)
    DEBIAN_FRONTEND=noninteractive apt-get install -y /machine-test/newer/*.deb
    dpkg-query -W -f '${Version}' deputy | grep newer
    # The new programs run.
    [ "$daemon" != "$(main_pid deputyd.service)" ]
    [ "$launcher" != "$(main_pid deputy-launcher.service)" ]
    all_run_on
    equal "$(id -u alice)" "$(job id -u)"
    DEBIAN_FRONTEND=noninteractive apt-get install -y --allow-downgrades /machine-test/debs/*.deb
    all_run_on
    equal "$(id -u alice)" "$(job id -u)"
    equal "$holder" "$(main_pid deputy-jobs.service)"
    let_them_end
}

a_kill_of_both_daemons_loses_no_job() {
    start_fifty
    systemctl kill --kill-whom=main -s KILL deputyd.service deputy-launcher.service
    eventually portal status
    all_run_on
    equal "$(id -u alice)" "$(job id -u)"
    let_them_end
}
