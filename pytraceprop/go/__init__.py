"""What a Go executable says about itself: build, functions, types, probe sites.

Nothing here needs the process, the kernel or a table of releases.
"""

from pytraceprop.go.executable import Executable

__all__ = ["Executable"]
