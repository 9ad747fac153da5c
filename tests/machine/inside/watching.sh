# What an administrator watches: figures, fields of the journal, a reload.

metric() { deputyctl metrics | awk -v name="$1" '$1 == name { print $2 }'; }

figures_say_what_happens() {
    local lost refused launched
    refused NotAuthorized portal metrics
    refused NotAuthorized as alice deputyctl metrics
    launched=$(metric deputy_launches_total)
    refused=$(metric 'deputy_refusals_total{code="CommandNotAllowed"}')
    job true
    refused CommandNotAllowed portal run --app demo --account alice --kind strict -- /usr/bin/head /etc/shadow
    equal $((launched + 1)) "$(metric deputy_launches_total)"
    equal $((${refused:-0} + 1)) "$(metric 'deputy_refusals_total{code="CommandNotAllowed"}')"
    lost=$(metric 'deputy_job_ends_total{end="lost"}')
    test -n "$lost"
    equal 1 "$(metric deputy_launcher_up)"
    test "$(metric 'deputy_accounts{application="demo",status="active"}')" -ge 2
    test "$(metric deputy_ledger_bytes)" -gt 1000
    deputyctl metrics | tail -n 1 | grep -x '# EOF'
}

the_timer_of_figures_is_off_and_works_when_it_is_on() {
    equal disabled "$(systemctl is-enabled deputy-metrics.timer || true)"
    equal inactive "$(systemctl is-active deputy-metrics.timer || true)"
    systemctl start deputy-metrics.service
    as bob cat /run/deputy-metrics/deputy.prom | grep '^deputy_version{version='
    equal deputy.prom "$(ls /run/deputy-metrics)"
}

# entries FIELD=VALUE...: how many lines the journal has with these fields.
entries() { journalctl --sync; journalctl -o cat "$@" | wc -l; }

the_journal_has_fields() {
    local path
    path=$(start alice /bin/true)
    eventually is_over "${path##*/}"
    test "$(entries "DEPUTY_JOB=${path##*/}" DEPUTY_APPLICATION=demo DEPUTY_EVENT=job_started \
        _SYSTEMD_UNIT=deputy-launcher.service _UID=0)" -eq 1
    refused CommandNotAllowed portal run --app demo --account alice --kind strict -- /usr/bin/head /etc/shadow
    test "$(entries DEPUTY_CODE=CommandNotAllowed DEPUTY_ACCOUNT=alice _SYSTEMD_UNIT=deputyd.service PRIORITY=6)" -ge 1
    # What a caller names stays inside of its field.
    portal run --app demo --account $'x\nDEPUTY_JOB=forged' -- id || true
    equal 0 "$(entries DEPUTY_JOB=forged)"
}

a_reload_says_what_is_wrong_with_the_files() {
    local pid
    pid=$(main_pid deputyd.service)
    echo 'no_such_key = 1' >/etc/deputy/applications.d/broken.toml
    systemctl reload deputyd.service
    eventually status_says deputyd.service 'no_such_key'
    eventually status_says deputyd.service 'findings, which the journal has'
    rm /etc/deputy/applications.d/broken.toml
    systemctl reload deputyd.service
    eventually status_says deputyd.service 'Status: "serving [0-9]* applications"'
    equal "$pid" "$(main_pid deputyd.service)"
}
