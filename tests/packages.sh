#!/bin/sh
# Installs what building and testing Deputy needs on Debian 12. Does nothing when all of it is there.
#
#     sudo tests/packages.sh            install what is missing
#     tests/packages.sh --list          only print what is missing, one a line; status 1 if anything is
#
# The Rust compiler is not among them: Debian 12's is too old; see the end.
set -eu

# One package a line, with the reason. Nothing here is needed by an installed Deputy; that is debian/control's.
packages='
gcc                 the linker that Rust uses; the tests compile three small C programs
libc6-dev           and what it links
make                make demo, make test, make bench
git                 the sandbox finds the project by it; .ci/run clones
ca-certificates     Cargo fetches crates by https
libpam0g-dev        the launcher links libpam; the tests compile a PAM client
libpam-modules      pam_unix, pam_limits, pam_group, pam_loginuid, pam_keyinit, pam_env, pam_umask
libpam-runtime      common-account, common-password, common-session-noninteractive
libpam-oath         one-time codes in the login conversation, for the tests
oathtool            makes those codes
pamtester           a program that only logs in, for the PAM module
libpam-wrapper      the PAM module in programs that root does not run
python3-pypamtest   each call of PAM by its number
dbus-daemon         the private system bus
dbus-system-bus-common  the account messagebus, which that bus runs as
dbus-bin            dbus-send (is the service up?), dbus-monitor (no password on the bus)
polkitd             the real polkit
pkexec              pkaction, pkcheck, and deputyctl through pkexec
libglib2.0-bin      gdbus, a foreign client of the API
systemd             busctl, a foreign client; systemd-analyze verifies the units. It need not run
python3-pip         fetches JupyterHub, a real program that logs in through the PAM module
python3-dbus        a Python client of the API, and clients that break rules
python3-gi          its main loop
acl                 setfacl and getfacl, for the laboratories of the demo
passwd              useradd, groupadd, chpasswd inside the sandbox
util-linux          setpriv, runuser, mount
procps              ps and pgrep: nothing may be left behind
e2fsprogs           the power-cut test makes ext4 images
strace              which paths root code and deputyd open (G1, G11)
binutils            nm and readelf: what the NSS module offers and needs
libc-bin            getent and ldconfig
valgrind            the NSS and PAM modules in programs that it watches
sudo                a peer to measure against
libnss-systemd      likewise, for the name service
libnss-extrausers   likewise
debhelper           make deb
dh-nss              and the part of it that edits nsswitch.conf
dpkg-dev            dpkg-buildpackage, for the same
lintian             looks at the packages
mmdebstrap          makes the Debian root of the booted machines
systemd-container   systemd-nspawn, which boots it as a container
qemu-system-x86     and as a virtual machine
slurm-wlm           a real Slurm in the sandbox
slurmdbd            with accounting
munge               who is who between its parts
mariadb-server      where accounting keeps its records
'
names=$(printf '%s\n' "$packages" | sed -n 's/^\([a-z0-9.+-]\{1,\}\) .*/\1/p')

missing() {
    for name in $names; do
        # "install ok installed": a package that was removed but not purged is not there.
        state=$(dpkg-query -W -f '${Status}' "$name" 2>/dev/null) || state=
        [ "$state" = 'install ok installed' ] || printf '%s\n' "$name"
    done
}

if ! command -v dpkg-query >/dev/null; then
    echo "packages.sh: this is no Debian. Install what these Debian packages have:" >&2
    printf '%s\n' "$packages" >&2
    exit 1
fi

wanted=$(missing)

if [ "${1-}" = --list ]; then
    [ -z "$wanted" ] && exit 0
    printf '%s\n' "$wanted"
    exit 1
elif [ $# -gt 0 ]; then
    echo "usage: packages.sh [--list]" >&2
    exit 2
fi

if [ -z "$wanted" ]; then
    echo "packages.sh: all packages are there"
else
    echo "packages.sh: installing" $wanted
    if [ "$(id -u)" != 0 ]; then
        echo "packages.sh: needs root for that: sudo tests/packages.sh" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    # No service is started by the installation: the sandbox starts its own. invoke-rc.d(8) asks this program.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 0755 /usr/sbin/policy-rc.d
    fi
    # The first attempt uses the lists that are there; they are fetched only when that does not do.
    # shellcheck disable=SC2086 # one word a package
    apt-get install -y -qq --no-install-recommends $wanted >/dev/null 2>&1 || {
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends $wanted >/dev/null
    }
    # Nor at the next boot.
    case " $wanted " in
        *[[:space:]]slurm-wlm[[:space:]]*)
            [ ! -d /run/systemd/system ] || systemctl --quiet disable mariadb munge slurmctld slurmd slurmdbd ;;
    esac
    left=$(missing)
    if [ -n "$left" ]; then
        echo "packages.sh: could not install" $left >&2
        exit 1
    fi
fi

# rust-version in Cargo.toml; sort -V puts the smaller one first.
need=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
have=$(cargo --version 2>/dev/null | cut -d' ' -f2) || have=
if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n1)" != "$need" ]; then
    echo "packages.sh: cargo $need or newer is needed (${have:-none} is there). Install it with rustup:" >&2
    echo "    curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal" >&2
    exit 1
fi
