#!/bin/sh
# Boot systemd inside a pool (see enter.sh), as PID 1 of one more PID namespace that sees the pool's own files.
#
#     unshare --mount -- sh boot.sh CGROUP
#
# It gets a cgroup of its own, CGROUP, in the unified hierarchy: newer systemds know no other one, and the kernel has it
# even where the machine itself uses the old ones. It cannot change the machine: no clock, no modules, no sysctls, no
# devices but the harmless ones. Only what every machine needs is started: nothing of the packages in the root.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin

if [ "$1" != init ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir "/sys/fs/cgroup/$1"
    echo 0 > "/sys/fs/cgroup/$1/cgroup.procs"
    umount /sys/fs/cgroup
    exec unshare --cgroup --mount --uts --ipc --pid --fork --kill-child -- sh "$0" init
fi

mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup

mount -t tmpfs -o mode=0755 tmpfs /mnt
for node in null zero full random urandom tty fuse; do
    [ ! -e "/dev/$node" ] || { : > "/mnt/$node"; mount --bind "/dev/$node" "/mnt/$node"; }
done
mkdir /mnt/pts /mnt/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts /mnt/pts
mount --bind /dev/shm /mnt/shm
ln -s pts/ptmx /mnt/ptmx
ln -s /proc/self/fd /mnt/fd
ln -s fd/0 /mnt/stdin
ln -s fd/1 /mnt/stdout
ln -s fd/2 /mnt/stderr
mount --move /mnt /dev

# Without one it would take this for a machine's first boot, and set that up.
[ -s /etc/machine-id ] || tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
# What an earlier one logged.
rm -rf /run/log/journal /var/log/journal
# It would clear the pool's /tmp and /run.
ln -sf /dev/null /etc/systemd/system/systemd-tmpfiles-setup.service

exec env -i container=ewms PATH="$PATH" \
    setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog,-wake_alarm,-mac_admin,-mac_override \
    /usr/lib/systemd/systemd --unit=sysinit.target
