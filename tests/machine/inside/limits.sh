# Ceilings that the job's cgroup holds, through the installed packages: what the record of the job says.

# small COMMAND...: a job of a kind with low ceilings, and its record when it is over, in the file `record`.
small() {
    local path
    path=$(start --kind small alice "$@")
    eventually is_over "${path##*/}"
    portal --json job show "${path##*/}" | tee record
}

# record_has EXPRESSION: of Python, about `job`.
record_has() { python3 -c 'import json, sys; job = json.load(open("record")); assert eval(sys.argv[1]), job' "$1"; }

a_memory_hog_is_ended_and_told_so() {
    small /usr/bin/python3 -c 'x = bytearray(256 << 20)'
    record_has 'job["signal"] == 9 and job["cause"] == "out-of-memory" and job["limits_by"] == "cgroup"'
    # No more than it was allowed was ever used.
    record_has '(32 << 10) < job["max_rss_kib"] <= (64 << 10)'
}

# It has two processes for two processors, and half of one.
the_ceiling_of_cpu_time_holds_within_a_tenth() {
    small /usr/bin/python3 -c '
import os, time
end = time.monotonic() + 20
os.fork()
while time.monotonic() < end: pass'
    record_has 'job["limits_by"] == "cgroup"'
    record_has '0.45 <= (job["user_us"] + job["system_us"]) / job["wall_us"] <= 0.55'
}

pids_are_bounded() {
    small /usr/bin/python3 -c '
import os, sys
for n in range(100):
    try:
        if os.fork() == 0: os.execvp("sleep", ["sleep", "30"])
    except OSError: sys.exit(n)'
    # Forty with itself.
    record_has 'job["exit_code"] == 39'
}

# As the kernel counted it for all of the job's processes, read by the job itself just before its end.
usage_is_what_the_cgroup_counted() {
    local path
    path=$(start --kind patient alice /usr/bin/python3 -c '
import os, time
name = open("/proc/self/cgroup").read().split("::")[1].strip()
group = "/sys/fs/cgroup" + name
# A process that nobody waits for.
if os.fork() == 0:
    os.setsid()
    x = bytearray(100 << 20)
    while time.process_time() < 2: pass
    with open("/var/tmp/usage", "wb") as file:
        file.write(bytes(8 << 20))
        os.fsync(file.fileno())
    with open("/var/tmp/usage.read", "w") as file:
        for part in ("cpu.stat", "memory.peak", "io.stat"):
            # memory.peak came with Linux 5.19
            file.write(part + " " + open(group + "/" + part).read().replace("\n", " ") + "\n")
    os._exit(0)')
    eventually is_over "${path##*/}"
    portal --json job show "${path##*/}" | tee record
    cat /var/tmp/usage.read
    python3 -c '
import json
job = json.load(open("record"))
told = {line.split()[0]: line.split()[1:] for line in open("/var/tmp/usage.read")}
cpu = dict(zip(told["cpu.stat"][::2], map(int, told["cpu.stat"][1::2])))
used = job["user_us"] + job["system_us"]
assert 2_000_000 < cpu["usage_usec"] <= used < cpu["usage_usec"] + 1_000_000, (cpu, job)
peak = int(told["memory.peak"][0]) >> 10
assert (100 << 10) < peak <= job["max_rss_kib"] < peak + (16 << 10), (peak, job)
written = sum(int(word[7:]) for word in told["io.stat"] if word.startswith("wbytes="))
assert (8 << 20) <= job["written_bytes"] and written <= job["written_bytes"] < (12 << 20), (written, job)'
}

# Two devices that every machine has stand for GPUs.
a_job_opens_only_the_gpus_that_it_was_leased() {
    trap 'rm -f /etc/deputy/deputy.toml' EXIT
    printf '[executor.local.capacity]\ngpus = ["/dev/zero", "/dev/full"]\n' >/etc/deputy/deputy.toml
    leased() { portal run --app demo --account alice "$@" -- sh -c '
        for i in zero full null; do (: </dev/$i) 2>/dev/null && echo $i; done; echo "gpus ${CUDA_VISIBLE_DEVICES-unset}"'; }
    equal "$(printf 'null\ngpus ')" "$(leased)"
    equal "$(printf 'zero\nnull\ngpus 0')" "$(leased --gpus 1)"
    equal "$(printf 'zero\nfull\nnull\ngpus 0,1')" "$(leased --gpus 2)"
}
