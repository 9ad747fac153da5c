# Quotas that a file system's kernel code enforces, on a file system of its own for each.

# image TYPE MAKE-OPTIONS MOUNT-OPTIONS: a file system of its own at /mnt/TYPE.
image() {
    truncate -s 400M "/var/tmp/$1.img"
    # shellcheck disable=SC2086 # options are plain words
    "mkfs.$1" -q $2 "/var/tmp/$1.img"
    mkdir -p "/mnt/$1"
    mount -o "loop,$3" "/var/tmp/$1.img" "/mnt/$1"
    install -d -o alice -g alice "/mnt/$1/alice"
}

# A job hits its user's hard limit: dd says so, and its status is the job's.
beyond_the_quota() {
    local status=0
    job dd if=/dev/zero "of=$1/alice/file" bs=1M count=40 conv=fsync >said 2>&1 || status=$?
    cat said
    equal 1 $status
    grep -q 'Disk quota exceeded' said
    # Nothing more goes in, until there is room again.
    job dd if=/dev/zero "of=$1/alice/more" bs=64k count=1 conv=fsync >said 2>&1 && return 1
    job rm "$1/alice/file"
    job dd if=/dev/zero "of=$1/alice/more" bs=64k count=1 conv=fsync
}

a_hard_quota_of_ext4_reaches_the_job() {
    image ext4 '-O quota' usrquota
    quotaon -u /mnt/ext4 2>/dev/null || true
    setquota -u alice 0 20480 0 0 /mnt/ext4
    beyond_the_quota /mnt/ext4
}

a_hard_quota_of_xfs_reaches_the_job() {
    image xfs '' uquota,pquota
    xfs_quota -x -c 'limit -u bhard=20m alice' /mnt/xfs
    beyond_the_quota /mnt/xfs
}

# What the systems' own tools say, in KiB: used, soft, hard.
told_of_ext4() { repquota -u -O csv /mnt/ext4 | awk -F, '$1 == "alice" { print $4, $5, $6 }'; }
told_of_xfs() { xfs_quota -c 'quota -u -b -N alice' /mnt/xfs | awk '{ print $2, $3, $4 }'; }

# check_says TYPE CODE: a check of the link has this finding about the file system, with the numbers of its own tool.
check_says() {
    sync -f "/mnt/$1"
    "told_of_$1" | tee told
    { deputyctl --json link check demo alice alice || true; } | tee check
    python3 - "$@" <<'PYTHON'
import json, sys
place, code = "/mnt/" + sys.argv[1], sys.argv[2]
def human(kib):
    for shift, unit in ((20, "GiB"), (10, "MiB"), (0, "KiB")):
        if kib >> shift:
            tenths = -(-kib * 10 // (1 << shift))
            return f"{tenths // 10}.{tenths % 10} {unit}"
used, soft, hard = (human(int(word)) for word in open("told").read().split())
found = [f for f in json.load(open("check")) if f["code"].startswith("quota-") and place in f["message"]]
assert [f["code"] for f in found] == [code], found
words = found[0]["message"]
assert used in words, (used, words)
if code == "quota-exceeded":
    assert hard in words and found[0]["severity"] == "error", (hard, found)
else:
    assert soft in words and hard in words and found[0]["severity"] == "warning", (soft, hard, found)
PYTHON
}

# limit TYPE SOFT HARD: in MiB.
limit() {
    case $1 in
        ext4) setquota -u alice $(($2 * 1024)) $(($3 * 1024)) 0 0 /mnt/ext4 ;;
        xfs) xfs_quota -x -c "limit -u bsoft=$2m bhard=$3m alice" /mnt/xfs ;;
    esac
}

a_check_of_a_link_has_the_numbers_of() {
    limit "$1" 0 30
    rm -f "/mnt/$1/alice/"*
    as alice dd if=/dev/zero "of=/mnt/$1/alice/some" bs=1000 count=7777 conv=fsync
    # Within: nothing is said.
    deputyctl --json link check demo alice alice >check || true
    not grep "quota-.*/mnt/$1" check
    limit "$1" 5 30
    # What passes the soft limit is what begins its time.
    as alice dd if=/dev/zero "of=/mnt/$1/alice/some" bs=1000 count=8888 conv=fsync
    check_says "$1" quota-above-soft-limit
    as alice dd if=/dev/zero "of=/mnt/$1/alice/rest" bs=4k conv=fsync || true
    limit "$1" 0 20
    check_says "$1" quota-exceeded
    rm -f "/mnt/$1/alice/"*
}
a_check_of_a_link_has_the_numbers_of_repquota_on_ext4() { a_check_of_a_link_has_the_numbers_of ext4; }
a_check_of_a_link_has_the_numbers_of_xfs_quota_on_xfs() { a_check_of_a_link_has_the_numbers_of xfs; }

# The plan to move a tree asks the destination's quota: root's own calls would pass it.
a_plan_to_move_a_tree_is_refused_by_the_quota_of() {
    local place=/mnt/$1 id
    mkdir -p "$place/moved"
    dd if=/dev/zero "of=$place/moved/file" bs=1M count=20 conv=fsync
    chown -R bob:bob "$place/moved"
    limit "$1" 0 10
    sync -f "$place"
    deputyctl rebind plan "$place/moved" --from bob --to alice >said 2>&1 && return 1
    cat said
    grep -q 'RebindBlocked' said
    grep -q 'in the way: quota.*hard limit of 10.0 MiB' said
    limit "$1" 0 100
    id=$(deputyctl --json rebind plan "$place/moved" --from bob --to alice | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
    # Used up since the plan.
    limit "$1" 0 10
    deputyctl --yes rebind apply --while-running "$id" >said 2>&1 && return 1
    grep -q 'RebindBlocked' said
    equal bob "$(stat -c %U "$place/moved/file")"
    limit "$1" 0 100
    deputyctl --yes rebind apply --while-running "$id"
    equal alice "$(stat -c %U "$place/moved/file")"
    deputyctl --yes rebind undo --while-running "$id"
    equal bob "$(stat -c %U "$place/moved/file")"
    deputyctl --yes rebind forget "$id"
    rm -r "$place/moved"
}
a_plan_to_move_a_tree_is_refused_by_the_quota_of_ext4() { a_plan_to_move_a_tree_is_refused_by_the_quota_of ext4; }
a_plan_to_move_a_tree_is_refused_by_the_quota_of_xfs() { a_plan_to_move_a_tree_is_refused_by_the_quota_of xfs; }
