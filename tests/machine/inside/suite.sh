# Those programs of the suite that say more where the kernel is another one: cgroups of version 2 with controllers, an
# older Landlock, real file systems. They run in a sandbox on this machine, with the installed programs.

# suite NAME [OPTION...]: one of them; options are the sandbox's.
suite() {
    local name=$1 here=/machine-test/suite
    shift
    set -- "$@" \
        --user service/otherportal: --user service/portal: --user alice:wonder:lab1 --user bob:builder:lab2 \
        --user carol:carroll:lab1 --user dave:dave:sudo \
        --application /machine-test/applications/demo.toml --application /machine-test/applications/other.toml
    DEPUTY_SUITE_PATIENCE=600 DEPUTY_SUITE_DISK=$here RUST_BACKTRACE=0 "$here/bin/deputy-sandbox" --bin-dir "$here/bin" "$@" -- "$here/$name" 2>&1 | tee said
    grep '^test result: ok' said
    # What is skipped elsewhere runs here.
    equal '' "$(grep '^SKIPPED' said || true)"
}

the_suite_on_limits_by_cgroup() { suite launcher_bounds; }
the_suite_on_devices() { suite launcher_gpus; }
the_suite_on_ends_of_jobs() { suite launcher_ending; }
the_suite_on_confinement() { suite launcher_confine; }
the_suite_on_quotas_of_files() { suite files_kernel_quota; }
the_suite_on_captured_output_on_ext4() {
    mkdir -p /machine-test/state
    suite launcher_capture --state-dir /machine-test/state
    rm -rf /machine-test/state
}
the_suite_on_captured_output_on_xfs() {
    truncate -s 1G /var/tmp/state.img
    mkfs.xfs -q /var/tmp/state.img
    mkdir -p /machine-test/state
    mount -o loop /var/tmp/state.img /machine-test/state
    suite launcher_capture --state-dir /machine-test/state
    umount /machine-test/state
    rm /var/tmp/state.img
}
