# The people and applications of the suite's sandbox: sets the arguments for deputy-sandbox.
# Passwords are for tests alone.
here=${here:-$(cd "$(dirname "$0")" && pwd)}
set -- \
    --user service/otherportal: \
    --user service/portal: \
    --user alice:wonder:lab1 \
    --user bob:builder:lab2 \
    --user carol:carroll:lab1 \
    --user dave:dave:sudo \
    --application "$here/applications/demo.toml" \
    --application "$here/applications/other.toml"
