"""The bytes of a file, read when they are asked for.

Not a mapping: who reads a mapped file that somebody cuts short meanwhile is killed by SIGBUS, and from
Linux 6.11 to 6.12 even a running executable could be (commit 2a010c412853).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator

from pytraceprop.errors import MalformedExecutable, NotGo

_CHUNK = 1 << 20  # bytes searched together
_MOST_SEARCHED = 1 << 28  # bytes, by all searches; few executables need to be searched at all
_MOST_FOUND = 1 << 18


def file_identity(status: os.stat_result) -> tuple[int, ...]:
    """Equal for the same unchanged file alone, whatever the file says of itself."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Contents:
    """The bytes of a regular file. Close it; offsets are in bytes and may not be negative.

    Raises NotGo where the file is not a regular one, MalformedExecutable where it has become shorter.
    """

    def __init__(self, path: str | os.PathLike[str], display: str) -> None:
        """Opens the file at `path`, called `display` in messages. Raises OSError as open(2) does."""
        self._path = display
        self._left_to_search, self._left_to_find = _MOST_SEARCHED, _MOST_FOUND
        # Opening a FIFO would wait for its writer.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(self._descriptor)
        self._size = status.st_size
        self.identity = file_identity(status)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise NotGo(display, "not a regular file")

    def close(self) -> None:
        """Closes the file. Idempotent."""
        if not self.closed:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._descriptor < 0

    def __len__(self) -> int:
        """The size that the file had when it was opened."""
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes. Raises MalformedExecutable where the file does not have them all."""
        if self.closed:
            raise ValueError(f"{self._path} was closed")
        if not 0 <= offset <= offset + size <= self._size:
            raise MalformedExecutable(self._path, "it is truncated")
        parts, left = [], size
        while left:  # one read gives 2 GiB at most
            part = os.pread(self._descriptor, left, offset + size - left)
            if not part:
                raise MalformedExecutable(self._path, "it became shorter while it was read")
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        """Integers by a struct format. Raises MalformedExecutable."""
        return struct.unpack(layout, self.read(offset, struct.calcsize(layout)))

    def find_all(self, needle: bytes, start: int, end: int) -> Iterator[int]:
        """Offsets from `start` on at which the needle begins and before `end` ends, in order.

        Raises MalformedExecutable when all searches together have looked at 256 MiB or found 262 144
        places: sparse files cost nothing to make.
        """
        end = min(end, self._size)
        while start + len(needle) <= end:
            chunk = self.read(start, min(_CHUNK + len(needle) - 1, end - start))
            self._left_to_search -= len(chunk)
            at = chunk.find(needle)
            while at >= 0 and self._left_to_find > 0 <= self._left_to_search:
                self._left_to_find -= 1
                yield start + at
                at = chunk.find(needle, at + 1)
            if self._left_to_find <= 0 or self._left_to_search < 0:
                raise MalformedExecutable(self._path, "looking for what it is made of takes too long")
            start += _CHUNK
