"""A machine of its own for a test: systemd as the first process of namespaces, with the service installed.

Its programs are those of this machine, read only; everything that is written lies in memory and is gone with
it. It has no network but loopback, and starts nothing that a package of this machine would start: `/etc` is
new. Needs root, systemd and util-linux; nothing of it reaches the machine that the test runs on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
SYSTEMD = Path("/lib/systemd/systemd")
PREFIX = "/opt/microtorrd"
UNSHARE = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--uts", "--ipc", "--net")

#: What of /etc a program needs that is started without any of it.
NEEDED = (
    "passwd",
    "group",
    "nsswitch.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "ssl",
)

#: What a boot, or a start of the service, may take on a busy machine.
PATIENCE_S = 60.0

#: Run with the root to be as $1. /dev has the few devices that do no harm. The old root is not merely hidden,
#: as by chroot: it is not there, so that nothing tried in a sandbox can reach the real machine. Whether
#: control groups may be made is tried before, by the name $7: systemd would say nothing that can be heard.
BOOT = r"""
set -eu
root=$1
bind() { mkdir -p "$root$2"; mount --rbind "$1" "$root$2"; mount -o remount,bind,ro "$root$2"; }
mount -t tmpfs -o mode=755 none "$root"
for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$name" ]; then cp -P "/$name" "$root/"; elif [ -d "/$name" ]; then bind "/$name" "/$name"; fi
done
bind /usr /usr
bind "$2" "$3/python"
bind "$4" "$3/site"
bind "$5" "$3/source"
mkdir -p "$root"/{etc,proc,sys,dev,run,tmp,var/log/journal,var/lib,root,home,srv,mnt}
for name in $6; do if [ -e "/etc/$name" ]; then cp -a "/etc/$name" "$root/etc/"; fi; done
echo 00000000000000000000000000000001 >"$root/etc/machine-id"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 none "$root/dev"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs none "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 none "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
touch "$root/dev/console"
mount --bind "$root/dev/null" "$root/dev/console"
mount -t tmpfs -o mode=755 none "$root/run"
mount -t tmpfs none "$root/tmp"
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 none "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
    mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
fi
groups=$root/sys/fs/cgroup
if [ -d "$groups/unified" ]; then groups=$groups/unified; fi
groups=$groups$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "$groups/$7"
rmdir "$groups/$7"
ip link set lo up
cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i container=microtorrd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=no
"""


#: What is said where something is not allowed, in lower case.
REFUSALS = ("not permitted", "permission denied", "read-only file system")

PROGRAMS = ("setpriv", "unshare", "nsenter", "ip", "systemctl")


class CannotBoot(Exception):
    """Not here. Its text is why; `forbidden`: this user or this kernel does not allow what it needs."""

    def __init__(self, why: str, *, forbidden: bool = False) -> None:
        super().__init__(why)
        self.forbidden = forbidden


def require() -> None:
    """Raises CannotBoot where this user, or what is installed, is not enough."""
    if os.geteuid() != 0:
        raise CannotBoot("that needs root", forbidden=True)
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not SYSTEMD.exists():
        missing.append(str(SYSTEMD))
    if missing:
        raise CannotBoot(f"{', '.join(missing)}: not installed")


class Machine:
    """Use it in a `with`: booted, with the service installed but not started. Raises CannotBoot."""

    def __init__(self) -> None:
        require()
        self._root = Path(tempfile.mkdtemp(prefix="machine-"))
        self._unshare: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> Machine:
        site = next(path for path in sys.path if path.endswith("-packages"))
        words = [str(self._root), sys.base_prefix, PREFIX, site, str(ROOT), " ".join(NEEDED)]
        words.append(self._root.name)
        self._unshare = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *UNSHARE, "--kill-child", "bash", "-c", BOOT, "boot", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_until_booted()
            self._install()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """It is gone, and all its processes with it."""
        assert self._unshare is not None and self._unshare.stdout is not None
        self._unshare.kill()
        self._unshare.wait()
        self._unshare.stdout.close()
        self._root.rmdir()

    def run(self, *command: str | Path, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root."""
        entering = ("nsenter", "--target", str(self._init), "--all", "--root", "--wd")
        return subprocess.run(
            [*entering, "env", "-i", f"PATH={PREFIX}/bin:/usr/sbin:/usr/bin:/sbin:/bin", *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def must(self, *command: str | Path) -> str:
        """The output of a command that has to go well."""
        done = self.run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def property(self, name: str, unit: str = "microtorrd.service") -> str:
        """What `systemctl show` says."""
        return self.must("systemctl", "show", "--property", name, "--value", unit).strip()

    def journal(self) -> str:
        """What the service has logged."""
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit=microtorrd").stdout

    def drop_in(self, text: str) -> None:
        """Change the unit, as an administrator would."""
        self.write("/etc/systemd/system/microtorrd.service.d/test.conf", text)
        self.must("systemctl", "daemon-reload")

    def write(self, path: str, text: str) -> None:
        """Put a file there."""
        self.must("sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"', "sh", path, text)

    def _wait_until_booted(self) -> None:
        assert self._unshare is not None
        end = time.monotonic() + PATIENCE_S
        has_begun = False  # systemd took over: whatever goes wrong now, it was allowed
        while time.monotonic() < end and self._unshare.poll() is None:
            for child in psutil.Process(self._unshare.pid).children():
                self._init = child.pid
                has_begun = has_begun or child.name() == "systemd"
                if has_begun and self._is_booted():
                    return
            with suppress(subprocess.TimeoutExpired):  # nobody tells from outside when it has begun to listen
                self._unshare.wait(0.1)
        self._unshare.kill()
        raw, _ = self._unshare.communicate()
        said = raw.decode(errors="replace").strip()
        if has_begun:
            raise CannotBoot(f"basic.target was not reached in {PATIENCE_S:.0f} s. {said}")
        raise CannotBoot(said, forbidden=any(word in said.lower() for word in REFUSALS))

    def _is_booted(self) -> bool:
        return self.run("systemctl", "is-active", "basic.target").stdout == "active\n"

    def _install(self) -> None:
        """The programs as this checkout has them; around them what the installer puts there."""
        python = f"{PREFIX}/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        environ = f"PYTHONPATH={PREFIX}/source:{PREFIX}/site LD_LIBRARY_PATH={PREFIX}/python/lib"
        for program in ("microtorrd", "mtorrctl"):
            path = f"{PREFIX}/bin/{program}"
            self.write(path, f'#!/bin/sh\n{environ} exec {python} -P -B -m {program} "$@"\n')
            self.must("chmod", "755", path)
        self.must(f"{PREFIX}/source/packaging/install.sh", "--without-programs")
