#!/bin/sh
# What a TMS image runs: `ewms` with the arguments that it is given (`check tms`, `log …`), else `ewms tms`.
here=.
case $0 in */*) here=${0%/*} ;; esac
# shellcheck source=containers/say-versions.sh
. "$here/say-versions.sh"

[ $# -gt 0 ] || set -- tms

# exec: a service manager's signals are for the TMS itself.
exec python3 -m ewms "$@"
