#!/bin/bash
# Rolls a version of the TMS out to one instance, and back by itself when it does not become healthy. See usage below.
set -u
program=${0##*/}
link=apptainer_container_symlink
images=/cvmfs/icecube.opensciencegrid.org/containers/ewms/observation-management-service/ewms-task-management-service

usage() {
    cat <<END
usage: ./$program [OPTION…] VERSION        in an instance's directory, whose name is the instance's
       ./$program --check [OPTION…] [VERSION]

Rolls a version (a tag, such as v1.3.0) of the TMS out to this instance:
  1. waits until its image is there,
  2. runs \`ewms check tms\` in it with the instance's envfile, as the instance's user,
  3. lets the link $link point at it,
  4. restarts the instance and watches it: it must become ready, stay up, and say on /healthz, where
     TMS_METRICS_PORT is set, that it is healthy.
If 4 fails, the link points at the earlier version again, which is restarted and watched as well. An instance that
is stopped gets the link only. To roll back by hand, give the earlier version. Clusters are never touched.

  --check              only 1 and 2; without a version for the one that the link points at
  --image-base PATH    the image without its version, which follows after a colon (after a slash when PATH ends with
                       one); default: as in the link, or else $images
  --wait SECONDS       for the image to appear (default 1800)
  --start SECONDS      for the TMS to become ready (default 300; an earlier version gets at least 60)
  --watch SECONDS      for which it must stay healthy (default 60)
  -h, --help           this text

Exit status:
  0  the version runs and is healthy (an instance that is stopped: it would run)
  1  the link cannot be changed
  2  called in a wrong way, or not in an instance's directory; nothing was changed
  3  the image did not appear; nothing was changed
  4  the check failed; nothing was changed
  5  it did not become healthy; the earlier version runs again and is healthy
  6  it did not become healthy, and there is no earlier version, or that one is not healthy either
  7  another update of this instance is under way; nothing was changed
  130, 143, 129  interrupted: the link points where it pointed before, and that version is started

Example: cd /var/lib/ewms-tms/prod && ./$program v1.3.0
END
}

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
fail() {
    local status=$1
    shift
    say "$*" >&2
    exit "$status"
}

# --- what is asked for, and where ---

only_check='' version='' image_base='' wait_limit=1800 start_limit=300 watch_time=60

read_arguments() {
    while [ $# -gt 0 ]; do
        case "$1" in
            -h | --help) usage && exit 0 ;;
            --check) only_check=yes ;;
            --image-base) image_base=$(argument "$@") || exit 2; shift ;;
            --wait) wait_limit=$(seconds "$@") || exit 2; shift ;;
            --start) start_limit=$(seconds "$@") || exit 2; shift ;;
            --watch) watch_time=$(seconds "$@") || exit 2; shift ;;
            -*) fail 2 "no such option: $1 (see --help)" ;;
            *) [ -z "$version" ] || fail 2 "one version, please (see --help)"; version=$1 ;;
        esac
        shift
    done
    case "$version" in
        '') [ -n "$only_check" ] || fail 2 "which version? e.g. ./$program v1.3.0 (see --help)" ;;
        *[!A-Za-z0-9._+-]*) fail 2 "$version: is no version, which is a tag such as v1.3.0" ;;
    esac
}
argument() {
    [ $# -gt 1 ] || fail 2 "$1 needs a value (see --help)"
    printf '%s\n' "$2"
}
seconds() {
    case "${2:-}" in
        '' | *[!0-9]*) fail 2 "$1 needs a number of seconds (see --help)" ;;
    esac
    printf '%s\n' "$2"
}

directory=$(pwd -P)
instance=${directory##*/}
unit=ewms-tms@$instance.service
manager=''

# Which systemd has an instance in this directory: the machine's, or this user's.
find_instance() {
    case "$instance" in '' | *[!A-Za-z0-9_.-]*) fail 2 "$directory: is not the directory of an instance" ;; esac
    for manager in --system --user; do
        [ "$(realpath -- "$(property WorkingDirectory)" 2>/dev/null)" != "$directory" ] || break
        manager=''
    done
    [ -n "$manager" ] || fail 2 "$directory: is not the directory of an instance (install.sh makes one)"
    [ "$manager" = --user ] || [ "$(id -u)" = 0 ] || fail 2 "$unit is the machine's: this needs root"
}
ctl() { systemctl "$manager" --no-pager "$@"; }
property() { ctl show --property="$1" --value "$unit" 2>/dev/null; }
cure() { # a command for the operator, with this systemd
    [ "$manager" = --system ] && printf '%s' "$*" || printf '%s' "${1} --user ${*:2}"
}

lock() {
    exec 9>.update.lock
    flock --nonblock 9 || fail 7 "another update of $instance is under way"
}

old='' new=''
choose() {
    old=$(readlink -- "$link")
    local like
    case "$image_base" in '') like=${old:-$images:} ;; */) like=$image_base ;; *) like=$image_base: ;; esac
    # Up to the last colon or slash it is kept.
    [[ $like =~ ^(.*[:/])?[^:/]*$ ]]
    new=${version:+${BASH_REMATCH[1]}$version}
    new=${new:-$old}
    [ -n "$new" ] || fail 2 "there is no $link yet: give a version"
}

# --- the image ---

is_release() { [ -f "$1" ] || [ -d "$1/.singularity.d" ] || [ -x "$1/bin/ewms" ]; }

await_release() {
    local since=$SECONDS told=-1 waited
    until is_release "$new"; do
        waited=$((SECONDS - since))
        [ "$waited" -lt "$wait_limit" ] || fail 3 "$new did not appear within $wait_limit s; nothing was changed"
        if [ "$((waited / 30))" != "$told" ]; then
            told=$((waited / 30))
            say "waiting for $new ($waited of $wait_limit s)"
        fi
        sleep 2
    done
}

check_unit=ewms-tms-check-$instance.service checking=''

# What the unit takes away from its service, it takes from the check, too.
hardening='^(NoNewPrivileges|CapabilityBoundingSet|LockPersonality|Private|Protect|ReadOnlyPaths|Restrict(Addr|Name|Real|SUID)|SystemCall)'

# systemd reads the envfile, as it does for the unit: what it means to a shell is something else.
check() {
    local said=$directory/.check settings=() line
    (umask 077 && : > "$said")
    while read -r line; do
        settings+=(--property="$line")
    done < <(ctl cat "$unit" | grep -E "${hardening}[A-Za-z]*=")
    while read -r line; do
        [ -z "$line" ] || settings+=(--property=EnvironmentFile="${line% (ignore_errors=*}")
    done < <(property EnvironmentFiles)
    for line in User Group Environment; do
        [ -z "$(property "$line")" ] || settings+=(--property="$line=$(property "$line")")
    done
    say "ewms check tms, in $new:"
    checking=yes
    systemd-run "$manager" --quiet --service-type=oneshot --unit="$check_unit" "${settings[@]}" \
        --property=WorkingDirectory="$directory" --property=TimeoutStartSec=5min \
        --property=StandardOutput=append:"$said" --property=StandardError=append:"$said" \
        --setenv=EWMS_TMS_RELEASE="$(realpath -s -- "$new")" "$directory/ewms" check tms 2>>"$said" 9>&- &
    local run=$! shown outcome
    # What it finds is said as it is found: an issuer that does not answer takes a while.
    tail --lines=+1 --follow --sleep-interval=0.2 --pid="$run" "$said" 9>&- | sed --unbuffered 's/^/    /' 9>&- &
    shown=$!
    wait "$run"
    outcome=$?
    wait "$shown"
    ctl reset-failed "$check_unit" 2>/dev/null
    checking=''
    rm -f -- "$said"
    return "$outcome"
}

# --- the instance ---

switched=''

point_at() {
    if ! { ln -sfn -- "$1" "$link.next" && mv -T -- "$link.next" "$link"; }; then
        fail 1 "$link cannot be changed in $directory"
    fi
}

before=''
restart() {
    before=$(property InvocationID)
    # So many updates as one likes: the rate limit is for what ends by itself.
    ctl reset-failed "$unit" 2>/dev/null
    ctl restart --no-block "$unit"
}

id='' state='' sub='' job='' restarts='' said_status='' result='' exit_status=''
look() {
    local name value
    id='' job=''
    while IFS='=' read -r name value; do
        case "$name" in
            InvocationID) id=$value ;; ActiveState) state=$value ;; SubState) sub=$value ;; Job) job=${value#0} ;;
            NRestarts) restarts=$value ;; StatusText) said_status=$value ;; Result) result=$value ;;
            ExecMainStatus) exit_status=$value ;;
        esac
    done < <(ctl show -p InvocationID -p ActiveState -p SubState -p Job -p NRestarts -p StatusText -p Result \
        -p ExecMainStatus "$unit")
}

# What /healthz says against it; nothing when all is well, or there is no page to ask.
complaint() {
    local port answer
    port=$(sed -n "s/^[[:blank:]]*TMS_METRICS_PORT=[\"']\{0,1\}\([0-9]\{1,5\}\).*/\1/p" envfile | tail -n 1)
    [ -n "$port" ] || return 0
    # shellcheck disable=SC2016  # for the inner shell: a timeout needs a program
    answer=$(timeout 5 bash -c 'exec 3<> "/dev/tcp/127.0.0.1/$0" &&
        printf "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" >&3 && cat <&3' "$port" 2>/dev/null)
    case "$answer" in
        'HTTP/1.1 200'*) ;;
        HTTP/*) printf '/healthz says: %s' "${answer##*$'\n'}" ;;
        *) printf 'nobody answers at http://127.0.0.1:%s/healthz' "$port" ;;
    esac
}

reason=''
# Restarts it; fails with a `reason` when it is not ready in time, or not healthy from then on.
run_and_watch() {
    local limit=$((SECONDS + start_limit)) well_since='' told=''
    restart
    while :; do
        look
        if [ "$id" = "$before" ] && [ -n "$job" ]; then
            limit=$((SECONDS + start_limit)) # The old one ends; systemd sees to it that this does not take for ever.
            tell "$state"
        elif [ "$id" = "$before" ] && [ "$state" = active ]; then
            reason="systemd did not restart it"
            return 1
        elif [[ $sub == *auto-restart* || $restarts -gt 0 ]]; then
            reason="it ended by itself"
            [ "$result" = success ] || reason+=" ($result, exit status $exit_status)"
            return 1
        elif [ "$state" = active ] && reason=$(complaint) && [ -z "$reason" ]; then
            well_since=${well_since:-$SECONDS}
            tell "healthy, watching it for $watch_time s"
            [ $((SECONDS - well_since)) -lt "$watch_time" ] || return 0
        elif [ "$state" = active ]; then
            well_since=''
            tell "$reason"
        elif [ "$state" = failed ] || { [ "$state" = inactive ] && [ -z "$job" ]; }; then
            reason="it is $state ($result, exit status $exit_status)"
            return 1
        else
            reason="it is not ready within $start_limit s; it says: ${said_status:-nothing}"
            tell "$state: ${said_status:-it says nothing}"
        fi
        [ -n "$well_since" ] || [ "$SECONDS" -lt "$limit" ] || return 1
        sleep 1
    done
}
tell() { # each change
    [ "$told" = "$1" ] || say "    $1"
    told=$1
}

show_log() {
    local who=--unit
    [ "$manager" = --system ] || who=--user-unit
    journalctl --no-pager --quiet --output=cat --lines=15 "$who=$unit" 2>/dev/null | sed 's/^/    | /'
}

roll_out() {
    say "the link points at $new now; restarting $unit"
    switched=yes
    point_at "$new"
    if run_and_watch; then
        switched=''
        say "done: $new runs and is healthy"
        return
    fi
    local why=$reason
    say "$new: $why; its log ends:"
    show_log
    if [ -z "$old" ] || [ "$old" = "$new" ] || ! is_release "$old"; then
        switched=''
        fail 6 "NOT HEALTHY: $new: $why. There is no earlier version to go back to${old:+ ($old)}"
    fi
    say "back to $old"
    point_at "$old"
    [ "$start_limit" -ge 60 ] || start_limit=60 # It was healthy once: impatience is for new ones.
    if run_and_watch; then
        switched=''
        fail 5 "ROLLED BACK to $old, which is healthy. $new: $why"
    fi
    switched=''
    say "$old: $reason; its log ends:"
    show_log
    fail 6 "ROLLED BACK to $old, which is NOT HEALTHY either: $reason. $new: $why"
}

interrupted() {
    trap '' INT TERM HUP
    [ -z "$checking" ] || ctl stop "$check_unit" 2>/dev/null
    rm -f -- .check "$link.next"
    if [ -n "$switched" ]; then
        if [ -n "$old" ]; then point_at "$old"; else rm -f -- "$link"; fi
        restart
        fail "$1" "interrupted: the link points at ${old:-nothing} again, and $unit is restarted; nobody watched that"
    fi
    fail "$1" "interrupted; nothing was changed"
}

main() {
    read_arguments "$@"
    find_instance
    lock
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM
    trap 'interrupted 129' HUP
    choose
    await_release
    check || fail 4 "the check of $new failed; nothing was changed"
    [ -z "$only_check" ] || exit 0
    look
    if [ "$state" = inactive ]; then
        point_at "$new"
        say "the link points at $new now; $unit is stopped, and stays so: $(cure systemctl start "$unit")"
        return
    fi
    roll_out
}

main "$@"
