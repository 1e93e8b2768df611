"""The two scripts that run inside the guest, and the directory through which it answers.

/init comes from the initramfs and makes a root file system out of the host's; `command`
lies in the exchange directory and runs what was asked for. The answers are files there:
`started`, `output`, and at the very end `exit`. A file keeps every byte as it was written,
which a serial line does not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

EXCHANGE = "/run/kernelvm"
"""Where the guest sees the exchange directory."""

ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "LOGNAME": "root",
    "PATH": "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONUNBUFFERED": "1",
    "SHELL": "/bin/sh",
    "TERM": "dumb",
    "USER": "root",
}
"""The command's environment unless told otherwise. None of the caller's own gets in."""

_INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
give_up() { echo "kernelvm: $1"; poweroff -f; }
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do
	[ ! -e "$module" ] || insmod "$module" || give_up "cannot load $module"
done

# The host's files, with all that is written on top of them kept in memory.
mount -t virtiofs -o ro host /host || give_up "cannot mount the host's files"
mount -t tmpfs -o size=75% scratch /scratch
mkdir /scratch/upper /scratch/work
mount -t overlay -o lowerdir=/host,upperdir=/scratch/upper,workdir=/scratch/work overlay /new ||
	give_up "cannot mount the overlay"
for directory in dev proc sys; do mount --move /$directory /new/$directory; done

optional() { mount "$@" || echo "kernelvm: no mount: $*"; }
optional -t cgroup2 cgroup2 /new/sys/fs/cgroup
optional -t bpf bpf /new/sys/fs/bpf
optional -t tracefs tracefs /new/sys/kernel/tracing
optional -t debugfs debugfs /new/sys/kernel/debug
optional -t securityfs securityfs /new/sys/kernel/security
mkdir -p /new/dev/pts /new/dev/shm
optional -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /new/dev/pts
optional -t tmpfs -o mode=1777 shm /new/dev/shm
ln -s /proc/self/fd /new/dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do ln -s /proc/self/fd/${stream%:*} /new/dev/${stream#*:}; done
optional -t tmpfs -o mode=755 run /new/run
@MOUNTS@
mkdir -p /new@EXCHANGE@
mount -t virtiofs exchange /new@EXCHANGE@ || give_up "cannot mount the exchange directory"

ip link set lo up
hostname vm
echo "127.0.0.1 vm" >> /new/etc/hosts
exec switch_root /new /bin/sh @EXCHANGE@/command
"""

# PID 1 from here on is the shell: it collects orphans while it waits for the command.
# The redirection is made in a subshell, else dash would add "Killed" to the output.
# `exit` appears by rename, hence whole; the machine is then switched off without ado.
_COMMAND = r"""ulimit -Hn 524288
ulimit -Sn 1024
cd -- @DIRECTORY@
: > @EXCHANGE@/started
(exec env -i @ENVIRONMENT@ "$(command -v setsid)" @COMMAND@ </dev/null >>@EXCHANGE@/output 2>&1)
echo $? > @EXCHANGE@/exit.part
mv @EXCHANGE@/exit.part @EXCHANGE@/exit
echo o > /proc/sysrq-trigger
while :; do sleep 1; done
"""


def init_script(share: Path | None, visible: Sequence[Path]) -> str:
    """Return the script that becomes /init.

    `share` is a directory of the host that the guest may write to, at the same path.
    /tmp is a fresh one, unless one of the paths `visible` lies in it: then the guest sees
    the host's (as it sees every other directory, and just as writable).
    """
    mounts = []
    if not any(path.is_relative_to("/tmp") for path in visible):
        mounts.append("optional -t tmpfs -o mode=1777 tmp /new/tmp")
    if share is not None:
        target = shlex.quote(f"/new{share}")
        mounts.append(
            f"mkdir -p {target}; mount -t virtiofs share {target} || give_up 'cannot mount the share'"
        )
    return _fill(_INIT, MOUNTS="\n".join(mounts))


def command_script(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> str:
    """Return the script that runs `command` in `directory` and reports its exit status.

    `environment` goes over ENVIRONMENT. Values may hold any character but NUL.
    """
    assignments = [f"{name}={value}" for name, value in {**ENVIRONMENT, **environment}.items()]
    return _fill(
        _COMMAND,
        DIRECTORY=shlex.quote(str(directory)),
        ENVIRONMENT=shlex.join(assignments),
        COMMAND=shlex.join(command),
    )


def _fill(script: str, **texts: str) -> str:
    """Put `texts` in the places of their @NAME@, in one pass: a text may itself hold such a name."""
    texts["EXCHANGE"] = EXCHANGE
    return re.sub("@([A-Z]+)@", lambda place: texts[place[1]], script)
