# A file server that trusts this machine's root with nothing: version 4 of NFS, on this machine, with root_squash. What an
# application does there is done by its people.

NFS=/mnt/nfs

# The kernel's own server, without the units of Debian's package, which nothing else here needs.
a_file_server_is_mounted() {
    install -d -o alice -g alice -m 0700 /srv/nfs/alice
    echo hers | as alice tee /srv/nfs/alice/file
    mkdir -p "$NFS" /run/rpc_pipefs
    modprobe nfsd
    mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
    # Debian's default is the server's own list of groups, which it remembers for half an hour.
    sed -i '/^manage-gids/d' /etc/nfs.conf
    exportfs -o rw,root_squash,fsid=0,insecure,no_subtree_check 127.0.0.1:/srv/nfs
    rpc.mountd --no-nfs-version 3
    rpc.nfsd --no-nfs-version 3 2
    # Nobody has anything to reclaim.
    echo Y >/proc/fs/nfsd/v4_end_grace
    mount -t nfs4 127.0.0.1:/ "$NFS"
    # The test's own ground: it is hers there, and root can do nothing.
    equal hers "$(as alice cat $NFS/alice/file)"
    not cat "$NFS/alice/file"
}

a_person_s_files_on_it_are_served() {
    # Somebody else, whatever happened to his link before.
    deputyctl consent grant demo bob bob
    portal link request demo bob bob
    equal hers "$(portal file cat --app demo --account alice $NFS/alice/file)"
    echo sent | portal file put --app demo --account alice - "$NFS/alice/sent"
    equal 'sent alice 644' "$(cat /srv/nfs/alice/sent) $(stat -c '%U %a' /srv/nfs/alice/sent)"
    portal file mkdir --app demo --account alice "$NFS/alice/folder"
    portal file mv --app demo --account alice "$NFS/alice/sent" "$NFS/alice/folder/moved"
    portal file ls --app demo --account alice "$NFS/alice/folder" | tee listed
    grep -q moved listed
    refused FileError portal file cat --app demo --account bob "$NFS/alice/file"
}

a_person_s_jobs_work_on_it() {
    equal "$NFS/alice" "$(portal run --app demo --account alice --cwd $NFS/alice -- pwd)"
    portal run --app demo --account alice --cwd "$NFS/alice" --stdout out.txt -- id -un
    equal alice "$(cat /srv/nfs/alice/out.txt)"
    equal hers "$(portal run --app demo --account alice --kind confined -- cat $NFS/alice/file)"
    not portal run --app demo --account bob -- cat "$NFS/alice/file"
}

# checked CODE: a check of alice's link has this finding about the file server.
checked() {
    { deputyctl --json link check demo alice alice || true; } >check
    python3 - "$1" <<'PYTHON'
import json, sys
found = [f for f in json.load(open("check")) if f["message"].startswith("/mnt/nfs: ")]
print(found)
sys.exit(0 if sys.argv[1] in [f["code"] for f in found] else 1)
PYTHON
}

a_check_tells_what_is_peculiar_to_it() {
    checked root-may-be-squashed
    checked file-system-without-acls
    not checked groups-not-counted
}

# AUTH_SYS carries sixteen groups; those beyond do not count there, although they are here.
groups_beyond_sixteen_are_told() {
    local n
    for n in $(seq 20); do
        groupadd "many$n"
        usermod -aG "many$n" alice
        install -d -g "many$n" -m 0770 "/srv/nfs/many$n"
    done
    checked groups-not-counted
    job id -Gn | grep -w many20
    # The last ones of the list, which is in the order of numbers.
    not job ls "$NFS/many20"
    job ls "$NFS/many1"
    for n in $(seq 20); do groupdel "many$n"; done
    not checked groups-not-counted
}
