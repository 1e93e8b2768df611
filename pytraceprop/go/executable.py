"""One Go executable, opened for reading: everything that a probe module asks of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from types import TracebackType

from pytraceprop.go.arm64 import Arm64Code
from pytraceprop.go.buildinfo import BuildInfo, read_build_info
from pytraceprop.go.functions import Function, find_functions
from pytraceprop.go.image import Image
from pytraceprop.go.moduledata import ModuleData, find_module_data
from pytraceprop.go.sites import Code, SiteMissing
from pytraceprop.go.types import Types
from pytraceprop.go.x86_64 import X86Code

#: What reads a function, by the machine that it was compiled for.
_CODES: dict[str, type[Code]] = {"x86_64": X86Code, "arm64": Arm64Code}


class Executable:
    """A Go executable. Close it, or use it as a context manager; nothing of it outlives closing.

    Raises NotGo, UnsupportedExecutable or MalformedExecutable, here or when more is read.
    """

    def __init__(self, path: str | os.PathLike[str], display: str | None = None) -> None:
        """Opens the file at `path`, called `display` in messages."""
        self.image = Image(path, display)
        self._functions: dict[str, Function | None] = {}
        self._codes: dict[str, Code] = {}

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self.image.close()

    def __enter__(self) -> Executable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def build(self) -> BuildInfo:
        """What the linker wrote about the build."""
        return read_build_info(self.image)

    @cached_property
    def module(self) -> ModuleData:
        """runtime.moduledata."""
        return find_module_data(self.image)

    @cached_property
    def types(self) -> Types:
        """The type descriptors."""
        return Types(self.image, self.module)

    def load_functions(self, names: Iterable[str]) -> None:
        """Looks many functions up in one walk of the table; `function` then answers at once."""
        missing = [name for name in names if name not in self._functions]
        if missing:
            found = find_functions(self.image, self.module, missing)
            self._functions.update({name: found.get(name) for name in missing})

    def function(self, name: str) -> Function:
        """A function by its full name. Raises SiteMissing where the linker left it out."""
        self.load_functions([name])
        found = self._functions[name]
        if found is None:
            raise SiteMissing(self.image.path, f"it has no function {name}")
        return found

    def has_function(self, name: str) -> bool:
        """Whether the function is in the executable."""
        self.load_functions([name])
        return self._functions[name] is not None

    def code(self, name: str) -> Code:
        """A function, disassembled. Raises SiteMissing."""
        if name not in self._codes:
            self._codes[name] = _CODES[self.image.machine](self.image, self.function(name))
        return self._codes[name]
