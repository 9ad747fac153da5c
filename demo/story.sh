#!/bin/bash
# The story that `make demo` tells. It runs inside the sandbox, as root, and fails if anything in it is not so.
set -u

results=()
failed=0

say() { printf '\n%s\n' "$*"; }

# show USER COMMAND...: a command as this user, and what it prints.
show() {
    local user=$1
    shift
    printf '    %s$ %s\n' "$user" "$*"
    as "$user" "$@" 2>&1 | sed 's/^/      /'
}

# check DESCRIPTION EXPECTED ACTUAL: one row of the closing table.
check() {
    if [ "$2" = "$3" ]; then
        results+=("yes|$1")
    else
        results+=("NO|$1 (expected: $2; got: $3)")
        failed=1
    fi
}

as() { local user=$1; shift; runuser -u "$user" -- "$@"; }
portal() { as portal deputyctl "$@"; }

# refused CODE DESCRIPTION COMMAND...: it has to fail, with this code and with a remedy.
refused() {
    local code=$1 description=$2 output
    shift 2
    if output=$("$@" 2>&1 </dev/null); then
        check "$description" "$code" "it was allowed"
        return
    fi
    printf '    %s\n%s\n' "$description:" "$(printf '%s\n' "$output" | sed 's/^/      /')"
    local got remedy
    got=$(printf '%s\n' "$output" | sed -n 's/^deputyctl: \([A-Za-z]*\):.*/\1/p' | head -n 1)
    remedy=$(printf '%s\n' "$output" | grep -c '^remedy: .')
    check "$description: refused with $code and a remedy" "$code 1" "$got $remedy"
}

# link ACCOUNT OS_USER PASSWORD: by the owner's own password, which the portal never sees. Here a descriptor has the
# answer; without one, deputyctl asks on the terminal.
link() {
    portal link add portal "$1" "$2" --answers-fd 9 9< <(printf '%s\n' "$3")
}
show_link() {
    printf '    portal$ deputyctl link add portal %s %s\n' "$1" "$2"
    link "$@" 2>&1 | sed 's/^/      /'
}

# run ACCOUNT COMMAND...
run() {
    local account=$1
    shift
    portal run --app portal --account "$account" -- "$@"
}

say '1. Two laboratories share a machine. Each has a folder: one guarded by its group, one by an ACL.'
mkdir -p /data/lab1 /data/lab2
chown root:lab1 /data/lab1 && chmod 2770 /data/lab1
chown root:root /data/lab2 && chmod 0700 /data/lab2
setfacl -m g:lab2:rwx -d -m g:lab2:rwx /data/lab2
show root ls -ld /data/lab1 /data/lab2

say '2. A portal serves both. Its service account has no rights in either folder, and is not root.'
show portal id
for lab in lab1 lab2; do
    error=$(as portal ls "/data/$lab" 2>&1)
    check "the portal's account cannot look into $lab's folder (the kernel's EACCES)" \
        "ls: cannot open directory '/data/$lab': Permission denied" "$error"
done

say "3. Ada and Ben have an account each, at the portal's; nobody is linked to anything yet."
portal account add portal ada@lab1.example --email ada@lab1.example >/dev/null
portal account add portal ben@lab2.example --email ben@lab2.example >/dev/null
portal account add portal mallory >/dev/null
show portal deputyctl account list portal
refused NotLinked 'a job for an account that is not linked' run ada@lab1.example id

say '4. Each links an OS account, by its own password, through real PAM. The portal passes a socket on, and
   never sees the password.'
show_link ada@lab1.example ada lovelace
show_link ben@lab2.example ben franklin
show portal deputyctl link list portal

say '5. Each runs a real program. It runs as the OS account, with the groups of a login, and writes results.'
show portal deputyctl run --app portal --account ada@lab1.example -- id
job_id=$(run ada@lab1.example id)
check 'the job has the uid, gid and groups of a login, and none of the portal' "$(as ada id)" "$job_id"
measure='awk "BEGIN { for (i = 0; i < 200000; i++) s += sin(i); printf \"%.6f\n\", s }" > '
run ada@lab1.example sh -c "$measure /data/lab1/result.txt"
run ben@lab2.example sh -c "$measure /data/lab2/result.txt"
show root ls -l /data/lab1/result.txt /data/lab2/result.txt
check "the result of Ada's job is Ada's, in her laboratory's group" 'ada lab1' "$(stat -c '%U %G' /data/lab1/result.txt)"
check "the result of Ben's job is Ben's" 'ben' "$(stat -c '%U' /data/lab2/result.txt)"
environment=$(run ada@lab1.example env)
check "nothing of the portal's is in the job's environment" '0' "$(printf '%s' "$environment" | grep -ci portal)"

say "6. One laboratory's user cannot read the other's folder: the kernel says so, not the portal."
for pair in 'ada@lab1.example lab2' 'ben@lab2.example lab1'; do
    read -r account lab <<<"$pair"
    error=$(run "$account" cat "/data/$lab/result.txt" 2>&1)
    printf '    %s: %s\n' "$account" "$error"
    check "$account cannot read $lab's result (the kernel's EACCES)" \
        "cat: /data/$lab/result.txt: Permission denied" "$error"
done
error=$(as portal cat /data/lab1/result.txt 2>&1)
check "the portal's account cannot read Ada's result" 'cat: /data/lab1/result.txt: Permission denied' "$error"
error=$(as portal cat /data/lab2/result.txt 2>&1)
check "the portal's account cannot read Ben's result" 'cat: /data/lab2/result.txt: Permission denied' "$error"

say '7. What is refused, each with its code and remedy.'
refused OsAccountReserved 'a link to root' portal link request portal mallory root
refused OsAccountOutOfRange 'a link to a system account' portal link request portal mallory daemon
refused OsAccountNotInGroup 'a link to somebody outside the laboratories' portal link request portal mallory eve
refused NotLinked 'a job for an unlinked account' run mallory id
refused AuthenticationFailed "a link to Ada's OS account with a wrong password" link mallory ada wrong-password
refused NotAuthorized 'consent by root, claimed by the portal' portal consent grant portal mallory ada

say '8. Ada takes her consent back, from her own login. It counts at once.'
show ada deputyctl consent list
as ada deputyctl --yes consent revoke portal ada@lab1.example >/dev/null
refused NoConsent 'a job after the consent was taken back' run ada@lab1.example id

printf '\n%-5s %s\n' 'holds' 'what'
printf '%s\n' '----- ---------------------------------------------------------------------'
for row in "${results[@]}"; do
    printf '%-5s %s\n' "${row%%|*}" "${row#*|}"
done
printf '\n'
if [ "$failed" -eq 0 ]; then
    echo "All ${#results[@]} hold."
else
    echo 'Not all of it holds.' >&2
fi
exit "$failed"
