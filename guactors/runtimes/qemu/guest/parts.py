"""What is taken from which Debian package, and the first program of a guest.

Owns: the names. Must never: touch a file.
"""

from __future__ import annotations

from typing import Final

KERNEL: Final = "linux-image-cloud-amd64"
"""Names the package of the newest kernel; that is the one that is needed."""
PACKAGES: Final = (
    "busybox-static",
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "zlib1g",
    "libexpat1",
)

MODULES: Final = {
    "order": (
        "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_console", "virtio_rng", "squashfs",
        "overlay",
    ),
    "order-vsock": (
        "virtio_mmio", "virtio_blk", "virtio_rng", "squashfs", "overlay",
        "vmw_vsock_virtio_transport",
    ),
}  # fmt: skip
"""What is loaded, by the file that lists it: of a machine with a serial port for the agent, and of
one with a vsock (``gu_vsock``: the port, among the words for the kernel)."""
FILES: Final = {
    "bin/busybox": "bin/busybox",
    "usr/bin/python3.11": "usr/bin/python3.11",
    "lib64/ld-linux-x86-64.so.2": "lib64/ld-linux-x86-64.so.2",
    "lib/x86_64-linux-gnu/libc.so.6": "lib/libc.so.6",
    "lib/x86_64-linux-gnu/libm.so.6": "lib/libm.so.6",
    "lib/x86_64-linux-gnu/libz.so.1": "lib/libz.so.1",
    "lib/x86_64-linux-gnu/libexpat.so.1": "lib/libexpat.so.1",
    "usr/lib/x86_64-linux-gnu/libexpat.so.1": "lib/libexpat.so.1",
    "usr/lib/python3.11/lib-dynload/mmap.cpython-311-x86_64-linux-gnu.so": (
        "usr/lib/python3.11/lib-dynload/mmap.cpython-311-x86_64-linux-gnu.so"
    ),
}
"""Paths in the packages, and in the guest."""
LIBRARY: Final = (
    "__future__.py",
    "os.py",
    "encodings/__init__.py",
    "encodings/aliases.py",
    "encodings/utf_8.py",
    "struct.py",
)
"""What the agent needs of Python's library besides what is frozen into its program."""
LIBRARY_AT: Final = "usr/lib/python3.11"

APPLETS: Final = ("cat", "cp", "insmod", "ip", "ln", "mkdir", "mount", "sh", "tail", "usleep")
"""Of busybox, for the first program."""

INIT: Final = r"""#!/bin/busybox sh
fault() { export GU_FAULT="$1: $(tail -n 1 /said 2>/dev/null)"; }
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r name; do insmod "/modules/$name.ko" || fault "insmod $name"; done \
  <"/modules/order${gu_vsock:+-vsock}"
disk() {
  if test -n "$gu_vsock"; then
    case $1 in root) one=/dev/vda ;; scratch) one=/dev/vdb ;; *) return ;; esac
    test -b $one && echo $one
    return
  fi
  for one in /sys/block/vd*; do
    test "$(cat "$one/serial")" = "$1" && echo "/dev/${one##*/}" && return
  done
}
line=${gu_vsock:+vsock:$gu_vsock}
tries=0
while test -z "$line" && test ! -e /dev/vport0p1 && test ! -e /dev/vport1p1 \
  && test $tries -lt 250; do
  usleep 10000; tries=$((tries + 1))
done
if test -n "$(disk root)"; then
  mount -t squashfs -o ro "$(disk root)" /lower 2>/said || fault "the root file system"
  if test -n "$(disk scratch)"; then
    mount -t ext4 -o noatime,nodiratime "$(disk scratch)" /upper 2>/said || fault "the scratch disk"
  else
    mount -t tmpfs -o "size=$gu_upper" upper /upper 2>/said || fault "the scratch memory"
  fi
  mkdir -p /upper/up /upper/work
  mount -t overlay -o lowerdir=/lower,upperdir=/upper/up,workdir=/upper/work image /image \
    2>/said || fault "the overlay"
  mkdir -p /image/proc /image/sys /image/dev /image/tmp
  mount -t proc proc /image/proc
  mount -t sysfs -o ro sys /image/sys
  mount -t tmpfs -o mode=755,size=64k dev /image/dev
  cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /image/dev/
  mkdir /image/dev/pts /image/dev/shm
  mount -t devpts -o ptmxmode=666,gid=5,mode=620,newinstance pts /image/dev/pts
  mount -t tmpfs -o mode=1777 shm /image/dev/shm
  ln -s pts/ptmx /image/dev/ptmx
  ln -s /proc/self/fd /image/dev/fd
  ln -s fd/0 /image/dev/stdin
  ln -s fd/1 /image/dev/stdout
  ln -s fd/2 /image/dev/stderr
fi
echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
GU_BOX="$(disk box)"
export GU_BOX LD_LIBRARY_PATH=/lib
exec /usr/bin/python3.11 -I -S -B -X utf8 -c \
  "from guactors.runtimes.qemu.agent.begin import main; main()" ${line:-/dev/vport*p1}
"""
"""Runs the agent, whatever goes wrong: it tells the host (``GU_FAULT``)."""
