#!/bin/sh
# Become PID 1 of a pool: enter ROOT with pivot_root in a mount and PID namespace of its own.
#
#     unshare --mount --pid --fork --kill-child --uts -- sh enter.sh ROOT MOUNTPOINT [DIR…] < LIFELINE
#
# ROOT stays as it is: what is written goes to memory, laid over it. Each DIR is seen inside at its own path. It prints
# the PID as the host sees it when all is in place. It, and with it everything in the namespaces, ends at the end of
# its input: a pool cannot outlive the process that holds the other end, however that one dies.
#
# pivot_root and not chroot: the kernel forbids user namespaces inside a chroot, and Apptainer needs them.
set -eu
root=$1 top=$2
shift 2

# /proc is still the host's here.
read -r pid _ < /proc/self/stat

mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/root"
new=$top/root
mount -t overlay -o "lowerdir=$root,upperdir=$top/upper,workdir=$top/work" overlay "$new"

mount -t proc proc "$new/proc"
mount --rbind /dev "$new/dev"
mount -t tmpfs -o mode=1777 tmpfs "$new/dev/shm"
# A sysfs of its own, without the host's cgroups: HTCondor must leave none behind.
mount -t sysfs sysfs "$new/sys"
mount -t tmpfs -o mode=0755 tmpfs "$new/run"
mkdir -m 1777 "$new/run/lock"
mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"
for dir in "$@"; do
    mkdir -p "$new$dir"
    mount --bind "$dir" "$new$dir"
done

# Names resolve without any help from outside.
hostname ewms-pool
echo ewms-pool > "$new/etc/hostname"
echo '127.0.0.1 ewms-pool localhost' > "$new/etc/hosts"

mkdir "$new/.host"
cd "$new"
pivot_root . .host
cd /
umount -l /.host
rmdir /.host

echo "$pid"
exec > /dev/null
# Not exec: as PID 1 the shell reaps what daemons leave to it while it waits.
cat
exit 0
