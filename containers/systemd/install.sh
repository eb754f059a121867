#!/bin/bash
# Installs an instance of the TMS as a systemd service. See usage below.
set -eu
program=${0##*/}
source=$(cd -- "$(dirname -- "$(realpath -- "$0")")" && pwd)

usage() {
    cat <<END
usage: $program [OPTION…] INSTANCE

Installs an instance of the TMS, such as prod or dev: the systemd units and two scripts, which all instances share, and
the instance's directory with an envfile to be filled in. It starts nothing, never changes an envfile or a link to a
release, and says what to do next. What is there already is left as it is: it can be run again at any time.

  --user          for the user who calls it, under systemd --user; else for the machine (root)
  --owner USER    who the TMS runs as and who owns the jobs (default ewms; made if it does not exist)
  --replace       replace units and scripts that differ: those of an earlier release, or changed by hand
  -h, --help      this text

Exit status: 0 installed, 1 something is in the way (it says what; run it again after that), 2 called in a wrong way

Examples:
  $program prod                       /var/lib/ewms-tms/prod, as the user ewms
  $program --owner icecube dev
  $program --user dev                 in your home, as yourself
END
}
fail() {
    local status=$1
    shift
    echo "$program: $*" >&2
    exit "$status"
}

manager=--system owner='' replace='' instance=''
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage && exit 0 ;;
        --user) manager=--user ;;
        --owner) [ $# -gt 1 ] || fail 2 "--owner needs a user"; owner=$2; shift ;;
        --replace) replace=yes ;;
        -*) fail 2 "no such option: $1 (see --help)" ;;
        *) [ -z "$instance" ] || fail 2 "one instance, please (see --help)"; instance=$1 ;;
    esac
    shift
done
case "$instance" in
    '') fail 2 "which instance? e.g. $program prod (see --help)" ;;
    [!a-z]* | *[!a-z0-9_]*) fail 2 "$instance: use small letters, digits and _, beginning with a letter" ;;
esac
unit=ewms-tms@$instance

if [ "$manager" = --user ]; then
    [ "$(id -u)" != 0 ] || fail 2 "--user is for an ordinary user: HTCondor takes no jobs of root"
    [ -z "$owner" ] || fail 2 "with --user the owner is you"
    units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    scripts=${XDG_DATA_HOME:-$HOME/.local/share}/ewms-tms
    systemctl='systemctl --user' journalctl='journalctl --user'
else
    [ "$(id -u)" = 0 ] || fail 2 "this needs root (or --user, for yourself)"
    units=/etc/systemd/system scripts=/usr/local/libexec/ewms-tms
    systemctl=systemctl journalctl=journalctl
fi
ctl() { systemctl "$manager" --no-pager "$@"; }
ctl show --property=Version > /dev/null || fail 1 "systemd does not answer ($systemctl)"

# --- what all instances share ---

# Nothing is half installed: what is in the way is looked for first.
files=(
    "ewms-tms@.service $units" "ewms-tms@.path $units" "ewms-tms-restart@.service $units"
    "ewms.sh $scripts" "update_tms_image_symlink.sh $scripts" "envfile.skeleton $scripts"
)
if [ "$manager" = --user ]; then
    files+=("10-user.conf $units/ewms-tms-restart@.service.d")
else
    files+=("10-system.conf $units/ewms-tms@.service.d")
fi
differing=()
for row in "${files[@]}"; do
    read -r name place <<< "$row"
    [ ! -e "$place/$name" ] || cmp -s "$source/$name" "$place/$name" || differing+=("$place/$name")
done
if [ "${#differing[@]}" -gt 0 ] && [ -z "$replace" ]; then
    printf '%s is there and differs\n' "${differing[@]}" >&2
    fail 1 "nothing was changed; with --replace they become what $source has (yours belongs into drop-ins: $systemctl edit)"
fi

if [ "$manager" = --system ]; then
    who=${owner:-$(ctl show --property=User --value "$unit.service")}
    who=${who:-ewms}
    if ! id -- "$who" > /dev/null 2>&1; then
        [ "$who" = "${owner:-ewms}" ] || fail 1 "there is no user $who, whom $unit.service names"
        useradd --system --user-group --create-home --home-dir "/var/lib/$who" --shell /usr/sbin/nologin -- "$who"
        echo "user $who made"
    fi
    [ "$(id -u -- "$who")" != 0 ] || fail 2 "HTCondor takes no jobs of root: use another --owner"
    group=$(id -gn -- "$who")
fi

for row in "${files[@]}"; do
    read -r name place <<< "$row"
    mode=644
    [ "${name%.sh}" = "$name" ] || mode=755
    if ! cmp -s "$source/$name" "$place/$name"; then
        install -D -m "$mode" -- "$source/$name" "$place/$name"
        echo "$place/$name written"
    fi
done
# ewms, too: it may have been somebody else before.
if [ -n "$owner" ]; then
    install -d -- "$units/$unit.service.d"
    printf '[Service]\nUser=%s\n' "$owner" > "$units/$unit.service.d/20-owner.conf"
fi
ctl daemon-reload

# --- the instance ---

# Only systemd knows where a user's units keep their state: that changed with its version 254.
directory=$(ctl show --property=WorkingDirectory --value "$unit.service")
if [ "$manager" = --user ]; then
    install -d -m 700 -- "$directory"
else
    install -d -m 755 -- "$(dirname -- "$directory")"
    # The TMS works here, and cannot change anything.
    install -d -m 750 -g "$group" -- "$directory"
fi
for row in "ewms ewms.sh" "update_tms_image_symlink.sh update_tms_image_symlink.sh"; do
    read -r name target <<< "$row"
    [ -e "$directory/$name" ] || [ -L "$directory/$name" ] || ln -s -- "$scripts/$target" "$directory/$name"
done
if [ -e "$directory/envfile" ]; then
    echo "$directory/envfile is there, and is left as it is"
    chmod 600 -- "$directory/envfile"
else
    (umask 077 && cp -- "$source/envfile.skeleton" "$directory/envfile")
    echo "$directory/envfile written: a skeleton"
fi

cat <<END

The instance $instance is in $directory. Next:
  1. fill in $directory/envfile
  2. cd $directory && ./update_tms_image_symlink.sh VERSION
     (for images elsewhere than in IceCube's CVMFS: --image-base PATH; without images: a link
     apptainer_container_symlink to a virtual environment)
  3. $systemctl enable --now $unit.service $unit.path
  4. $systemctl status $unit; $journalctl -u $unit
END
if [ "$manager" = --user ] && [ ! -e "/var/lib/systemd/linger/$(id -un)" ]; then
    echo "  5. loginctl enable-linger    (without it the TMS ends when you log out, and does not start at boot)"
fi
