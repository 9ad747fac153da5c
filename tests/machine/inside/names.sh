# The name service module, first in nsswitch.conf of a machine on which nothing of Deputy's runs.

MODULE_FIRST='^(passwd|group): *deputy files'

# A pool account and a group of a map that the tests' tool writes, as the launcher's children will.
a_map_is_known_to_the_name_service() {
    printf 'pool1:*:60001:60001:Leased:/nonexistent:/usr/sbin/nologin\n' >/tmp/pool.passwd
    printf 'pool1:*:60001:\nshared:*:60002:alice\n' >/tmp/pool.group
    bin/deputy-nss-map 60000-60999 60000-60999 /tmp/pool.passwd /tmp/pool.group
    equal 60001 "$(id -u pool1)"
    equal 'shared:*:60002:alice' "$(getent group shared)"
    id -Gn alice | grep -w shared
    # Jobs have it, too.
    job id -Gn | grep -w shared
    # It never answers for what the files have.
    printf 'root:*:60003:60003::/:/bin/sh\n' >>/tmp/pool.passwd
    bin/deputy-nss-map 60000-60999 60000-60999 /tmp/pool.passwd /tmp/pool.group || true
    equal 0 "$(id -u root)"
}

installing_the_module_names_it_in_nsswitch_conf() {
    grep -E '^passwd:.* files .*deputy$|^passwd: *files deputy$' /etc/nsswitch.conf
    grep -E '^group:.* files .*deputy$|^group: *files deputy$' /etc/nsswitch.conf
    not grep -E '^(shadow|gshadow|hosts):.*deputy' /etc/nsswitch.conf
}

# For the next boot.
put_the_module_first() {
    cp /etc/nsswitch.conf nsswitch.before
    sed -i -E 's/^((passwd|group): *).*/\1deputy files/' /etc/nsswitch.conf
    systemctl mask deputyd.service deputy-launcher.service deputy-launcher.socket deputy-owner.socket
}

nothing_of_deputys_runs() {
    grep -E "$MODULE_FIRST" /etc/nsswitch.conf
    equal '' "$(pgrep -x 'deputyd|deputy-launcher' || true)"
}

# Bob becomes alice with her password, on a terminal: PAM, the name service, a shell.
alice_logs_in() { runuser -u bob -- python3 /machine-test/login.py alice wonder | grep 'uid=[0-9]*(alice)'; }

the_machine_boots_and_people_log_in() {
    equal '' "$(systemctl --failed --plain --no-legend)"
    equal 60001 "$(id -u pool1)"
    alice_logs_in
}

a_damaged_map_hinders_nobody() {
    head -c 5000 /dev/urandom >/var/lib/deputy/nss/map
    not id pool1
    alice_logs_in
    : >/var/lib/deputy/nss/map
    alice_logs_in
    rm -r /var/lib/deputy/nss
    alice_logs_in
    systemd-run --wait --quiet -p User=alice id
    mkdir -m 0755 /var/lib/deputy/nss
}

removing_the_module_takes_its_name_away() {
    DEBIAN_FRONTEND=noninteractive apt-get purge -y libnss-deputy
    not grep deputy /etc/nsswitch.conf
    alice_logs_in
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /machine-test/debs/libnss-deputy_*.deb
    installing_the_module_names_it_in_nsswitch_conf
    cmp nsswitch.before /etc/nsswitch.conf
}
