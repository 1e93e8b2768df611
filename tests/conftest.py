"""For all tests: skips must be justified."""

from __future__ import annotations

import pytest

from tests.skips import justified

_unjustified: list[str] = []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Remembers skips whose reason is not true of this machine."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and isinstance(report.longrepr, tuple) and not justified(report.longrepr[2]):
        _unjustified.append(f"{report.nodeid}: {report.longrepr[2]}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names them."""
    for line in _unjustified:
        terminalreporter.write_line(f"UNJUSTIFIED SKIP {line}", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run for them."""
    if _unjustified and session.exitstatus == 0:
        session.exitstatus = 1
