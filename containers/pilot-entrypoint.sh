#!/bin/sh
# What a pilot image runs: `ewms pilot`, with the environment that the TMS transferred.
#
# The environment file holds queue tokens: nothing here echoes it, whatever options the shell was started with, and
# whatever options the file itself sets (the one that earlier access points write says `set -x`).
set +xv

here=.
case $0 in */*) here=${0%/*} ;; esac
# shellcheck source=containers/say-versions.sh
. "$here/say-versions.sh"

envfile=./ewms_htcondor_envfile.sh
if [ -r "$envfile" ]; then
    exec 3>&2 2>/dev/null
    trap 'echo "the environment file $envfile cannot be read: it is not what a TMS writes" >&3' EXIT
    # shellcheck disable=SC1090  # what a TMS wrote
    . "$envfile" || exit 1
    set +xv
    trap - EXIT
    exec 2>&3 3>&-
fi

# The image brings its container runtimes along; which of them work is seen on the machine.
export _EWMS_PILOT_CONTAINER_PLATFORM="${_EWMS_PILOT_CONTAINER_PLATFORM:-auto}"

# exec: HTCondor sends SIGTERM to this process only.
exec python3 -m ewms pilot "$@"
