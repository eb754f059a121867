#!/bin/sh
# What a pilot image's entrypoint does, on this machine's own interpreter ($1): the envfile, then the pilot.
# The envfile holds queue tokens, and today's TMS writes `set -x` into it: nothing of it may be echoed.
set -eu
envfile="./ewms_htcondor_envfile.sh"
if [ -f "$envfile" ]; then
    { . "$envfile"; set +x; } 2>/dev/null
fi
python="$1"
shift
exec "$python" -m ewms pilot "$@"
