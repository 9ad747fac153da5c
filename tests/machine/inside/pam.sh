# The PAM module's package: what it changes, and that it changes it back.

DESK='pumpkin ledger north violin'

# Of all files of PAM's that were there before any package of Deputy's.
pam_is_as_it_was() {
    equal '' "$(grep ' /etc/pam.d/' configuration.before | md5sum --quiet -c - 2>&1)"
    equal '' "$(ls /etc/pam.d | grep -v '^deputy-' | comm -13 <(sed -n 's|.* /etc/pam.d/||p' configuration.before | sort) -)"
}

the_pam_profile_is_off_when_it_is_installed() {
    test -f /usr/share/pam-configs/deputy
    pam_is_as_it_was
    not grep -r pam_deputy /etc/pam.d
}

# As docs/pam.md says.
a_login_through_the_pam_profile_works_and_is_refused() {
    local application=/etc/deputy/applications.d/desk.toml
    useradd --system --user-group --shell /usr/sbin/nologin desk
    printf 'service_user = "desk"\nauthentication = ["password"]\n[pam]\nlogins = ["su-l"]\n' >$application
    eventually deputyctl account list desk
    deputyctl account add desk alice
    deputyctl account password desk alice --answers-fd 9 9< <(printf '%s\n' "$DESK")
    deputyctl consent grant desk alice alice
    deputyctl link request desk alice alice
    sed 's/portal/desk/' /usr/share/pam-configs/deputy >/usr/share/pam-configs/deputy-desk
    pam-auth-update --enable deputy-desk
    grep pam_deputy /etc/pam.d/common-auth
    grep pam_deputy /etc/pam.d/common-account
    desk_login "$DESK" | grep 'uid=[0-9]*(alice)'
    not desk_login 'saddle comet biscuit'
    # An update leaves on what an administrator has switched on.
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /machine-test/newer/libpam-deputy_*.deb
    grep pam_deputy /etc/pam.d/common-auth
    desk_login "$DESK" | grep 'uid=[0-9]*(alice)'
    # Her own password still does, and is asked for first.
    runuser -u bob -- python3 /machine-test/login.py alice wonder | grep 'uid=[0-9]*(alice)'
    # A service that the file does not list.
    sed -i 's/su-l/sudo/' $application
    eventually not desk_login "$DESK"
    sed -i 's/"sudo"/"su-l"/' $application
    desk_login "$DESK" | grep 'uid=[0-9]*(alice)'
    # Without consent.
    deputyctl --yes consent revoke desk alice
    not desk_login "$DESK"
    pam-auth-update --disable deputy-desk
    not grep -r pam_deputy /etc/pam.d
}
desk_login() { runuser -u bob -- python3 /machine-test/login.py alice wrong "$1"; }

# login goes on as PAM_USER, which becomes the OS account: the account's name is none of this machine's.
an_account_is_mapped_to_its_os_account_at_a_login() {
    deputyctl account add desk ada@lab.example
    deputyctl account password desk ada@lab.example --answers-fd 9 9< <(printf '%s\n' "$DESK")
    deputyctl consent grant desk ada@lab.example bob
    deputyctl link request desk ada@lab.example bob
    sed -i 's/"su-l"/"login"/' /etc/deputy/applications.d/desk.toml
    sed 's/portal$/desk map_user/' /usr/share/pam-configs/deputy >/usr/share/pam-configs/deputy-desk
    pam-auth-update --enable deputy-desk
    grep 'pam_deputy.so application=desk map_user' /etc/pam.d/common-auth
    eventually at_the_console "$DESK"
    at_the_console "$DESK" | grep 'uid=[0-9]*(bob)'
    not at_the_console 'saddle comet biscuit'
    deputyctl --yes consent revoke desk ada@lab.example
    not at_the_console "$DESK"
}
at_the_console() { python3 /machine-test/login.py --login ada@lab.example wrong "$1"; }

# With profiles switched on, ours and one of the administrator's.
removing_the_pam_module_puts_pam_back() {
    pam-auth-update --enable deputy
    grep 'application=portal' /etc/pam.d/common-auth
    DEBIAN_FRONTEND=noninteractive apt-get remove -y libpam-deputy
    pam_is_as_it_was
    not grep -r pam_deputy /etc/pam.d
    equal '' "$(find / -xdev -name pam_deputy.so)"
    runuser -u bob -- python3 /machine-test/login.py alice wonder | grep 'uid=[0-9]*(alice)'
    rm -f /usr/share/pam-configs/deputy-desk /etc/deputy/applications.d/desk.toml
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /machine-test/debs/libpam-deputy_*.deb
    pam_is_as_it_was
}
