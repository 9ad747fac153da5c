# Everything that is not the tests' or apt's own.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /run/systemd -o -path /machine-test \
        -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /var/lib/systemd -o -path /home \
        -o -path /var/lib/apt -o -path /root -o -path /var/tmp \) -prune -o -print | sort
}
