# shellcheck shell=sh
# Sourced by the entrypoints, with `here` the directory in which all of them lie: one line on stderr that says what this
# image is made of. It is read from names and one small file, without a process, so that it costs no time.
# shellcheck disable=SC2154  # here
said=
for package in ewms_htcondor=ewms htcondor=htcondor aiormq=aiormq nats_py=nats-py pulsar_client=pulsar-client; do
    for found in "$here/site/${package%=*}"-*.dist-info; do
        [ ! -d "$found" ] || { version=${found%.dist-info} && said="$said${package#*=} ${version##*-}, "; }
    done
done
system=
[ ! -r "$here/versions" ] || read -r system < "$here/versions"
echo "versions: $said$system" >&2
