"""Who a traced process is: pid and start time, held by a pidfd so that a reused pid is no mistake."""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

from pytraceprop.errors import PrivilegeError, ProcessGone
from pytraceprop.go.contents import file_identity

_START_TIME_FIELD = 22  # of /proc/PID/stat (proc(5)), in clock ticks since boot
_AT_ENTRY = 9  # of the auxiliary vector (getauxval(3)): where the program begins in memory
_ELF_ENTRY = 24  # offset of e_entry in a 64-bit ELF header: where it begins by the file


class Process:
    """A running process. `start_time` is in clock ticks since boot, `executable` its path.

    The path is the one in the process's own mount namespace, and may have been replaced or deleted:
    read the executable through `exe_link`.
    """

    def __init__(self, pid: int) -> None:
        """Takes hold of the process. Raises ProcessGone or PrivilegeError."""
        self.pid = pid
        try:
            self._pidfd = os.pidfd_open(pid)
        except (ProcessLookupError, OverflowError, ValueError) as error:
            raise ProcessGone(pid) from error
        except OSError as error:  # EINVAL: a thread's id, or no id at all
            raise ProcessGone(pid) from error
        try:
            self.start_time = _start_time(pid)
            self.executable = str(Path(self.exe_link).readlink())
            if self.exited:  # what was read may be another's
                raise ProcessGone(pid)
        except FileNotFoundError as error:
            self.close()
            raise ProcessGone(pid) from error
        except PermissionError as error:
            self.close()
            raise PrivilegeError(
                f"reading the executable of process {pid}", "CAP_SYS_PTRACE, or the same user"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def exe_link(self) -> str:
        """The link in /proc that opens this process's executable, whatever its path."""
        return f"/proc/{self.pid}/exe"

    @property
    def exited(self) -> bool:
        """Whether the process has ended."""
        if self._pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def runs(self, identity: tuple[int, ...]) -> bool:
        """Whether the process runs the file of that identity (Image.identity) now."""
        try:
            return file_identity(Path(self.exe_link).stat()) == identity
        except OSError:  # it has ended, or runs what we may not see
            return False

    def load_bias(self) -> int:
        """What the kernel added to the executable's addresses: 0 unless it is position-independent.

        From the auxiliary vector, which also tells it where the file is deleted, on an overlay, or in
        another mount namespace. Raises ProcessGone.
        """
        try:
            with open(self.exe_link, "rb") as file:  # noqa: PTH123 (the link must not be resolved)
                (entry,) = struct.unpack_from("<Q", file.read(64), _ELF_ENTRY)
            return program_entry(self.pid) - int(entry)
        except (OSError, KeyError, ValueError, struct.error) as error:  # empty once it has ended
            raise ProcessGone(self.pid) from error

    def close(self) -> None:
        """Lets go of the process. Idempotent."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def program_entry(pid: int) -> int:
    """Where the program of a process begins in memory, by its auxiliary vector.

    Raises OSError, KeyError, ValueError or struct.error once it has ended.
    """
    vector = Path(f"/proc/{pid}/auxv").read_bytes()
    words = struct.unpack(f"<{len(vector) // 8}Q", vector)
    return int(dict(zip(words[0::2], words[1::2], strict=True))[_AT_ENTRY])


def _start_time(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    # The command's name is in parentheses, and may hold spaces and parentheses itself.
    return int(stat[stat.rindex(")") + 2 :].split()[_START_TIME_FIELD - 3])


def processes_of(executable: str | os.PathLike[str]) -> Iterator[int]:
    """The ids of the processes that run a file, told by device and inode. Raises FileNotFoundError."""
    wanted = Path(executable).stat()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            running = (entry / "exe").stat()
        except OSError:  # a kernel thread, another user's, or gone
            continue
        if (running.st_dev, running.st_ino) == (wanted.st_dev, wanted.st_ino):
            yield int(entry.name)
