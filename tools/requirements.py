"""Prints what pip has to install before pytraceprop can be built and tested in place.

Read from pyproject.toml, so that it is said in one place only: the build's requirements
(there is no build isolation), the package's own, and the `dev` extra.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib


def main() -> None:
    """Print one requirement per line."""
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())
    for requirement in (
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
    ):
        print(requirement)


if __name__ == "__main__":
    main()
