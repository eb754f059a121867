#!/bin/bash
# The `ewms` of one instance of the TMS, linked into the instance's directory: it runs what apptainer_container_symlink
# beside it points at, an Apptainer image or a virtual environment.
#
#     /var/lib/ewms-tms/prod/ewms tms                                         what the unit does, with the envfile
#     /var/lib/ewms-tms/prod/ewms log --why UUID /scratch/jobs/2026-11-22.tms.jel
#
# EWMS_TMS_RELEASE runs another release. More of the machine inside an image: APPTAINER_BIND, in the envfile too.
# Secrets come in the environment only. Everything is an exec: signals are for the TMS.
set -eu

instance=$(cd -- "$(dirname -- "$0")" && pwd)
release=${EWMS_TMS_RELEASE:-$instance/apptainer_container_symlink}

# At boot a file system such as CVMFS may come later than systemd. Each start that waits a minute is too slow for the unit's
# rate limit: it is tried again for ever.
patience=0
[ -z "${NOTIFY_SOCKET:-}" ] || patience=60
until [ -e "$release" ]; do
    if [ "$patience" = 0 ]; then
        echo "$release: $(readlink -- "$release" || echo it) is not there: update_tms_image_symlink.sh makes the link" >&2
        exit 1
    fi
    [ "$patience" != 60 ] || echo "waiting up to a minute for $release" >&2
    patience=$((patience - 1))
    sleep 1
done

# The version's own name, for whoever looks at processes.
release=$(realpath -- "$release")

if [ -d "$release" ] && [ ! -d "$release/.singularity.d" ]; then
    exec "$release/bin/ewms" "$@"
fi

# Only through FUSE is an image in one file mounted without privileges.
if [ -f "$release" ] && ! { [ -w /dev/fuse ] && { command -v squashfuse_ll || command -v squashfuse; } > /dev/null; }; then
    echo "$release is one file: that needs /dev/fuse (a drop-in with PrivateDevices=no) and squashfuse; or use a directory" >&2
fi

declare -A shown=()
options=()
# A path that exists, at the same place inside; the second word is empty, or `readonly`.
show() {
    [ -e "$1" ] && [ -z "${shown[$1]:-}" ] || return 0
    shown[$1]=yes
    options+=(--mount "type=bind,\"source=$1\",\"destination=$1\"${2:+,ro}")
}

# Over /tmp the schedd learns who asks (FS authentication).
show /tmp
show /etc/condor readonly
show /usr/share/condor readonly
[ -z "${CONDOR_CONFIG:-}" ] || show "$(dirname -- "$CONDOR_CONFIG")" readonly
# Where the schedd says its address. The directory: each schedd makes the file anew.
if address=$(condor_config_val SCHEDD_ADDRESS_FILE 2>/dev/null); then
    show "$(dirname -- "$address")" readonly
fi
if [ -n "${JOB_EVENT_LOG_DIR:-}" ]; then
    mkdir -p -- "$JOB_EVENT_LOG_DIR" || {
        echo "JOB_EVENT_LOG_DIR: $JOB_EVENT_LOG_DIR: make it, owned by $(id -un), or correct the envfile" >&2
        exit 1
    }
    show "$JOB_EVENT_LOG_DIR"
fi
# The directory: editors make a file anew.
[ -z "${TMS_EXCLUDED_SITES_FILE:-}" ] || show "$(dirname -- "$TMS_EXCLUDED_SITES_FILE")" readonly
# The directory: a systemd that is restarted makes its socket anew. An abstract one needs nothing.
case "${NOTIFY_SOCKET:-}" in /*) show "$(dirname -- "$NOTIFY_SOCKET")" ;; esac
# What is named is seen, such as day logs.
for word; do
    case "$word" in /*) show "$word" readonly ;; esac
done

# --userns: setuid programs have no power here. --no-eval: a $ in a setting is a $.
exec apptainer --silent run --userns --no-eval --no-home "${options[@]}" "$release" "$@"
