"""What the documents list is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from pytraceprop.native import COUNTER_NAMES

ROOT = Path(__file__).resolve().parents[2]


def test_every_counter_is_explained_and_no_other() -> None:
    rows = (ROOT / "docs" / "counters.md").read_text().splitlines()
    names = {
        name for row in rows if row.startswith("|") for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert names == {*COUNTER_NAMES, "subscription_dropped"}


def test_every_document_that_the_readme_names_is_there() -> None:
    names = re.findall(r"\]\((docs/[\w.]+)\)", (ROOT / "README.md").read_text())
    assert names
    assert all((ROOT / name).is_file() for name in names)
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} == set(names)


def test_every_make_target_that_the_documents_name_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    texts = "\n".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    named = set(re.findall(r"^ {4}make ([\w-]+)", texts, re.MULTILINE))
    assert {"demo", "test", "test-full", "bench"} <= named
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in named)
