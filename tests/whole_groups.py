"""A parametrised test whose cases are all skipped proves nothing, and fails the run."""

from collections import defaultdict

import pytest


class WholeGroups:
    """Counts, for each parametrised test, how many cases were skipped and how many were not."""

    def __init__(self) -> None:
        self.cases: dict[str, dict[str, bool]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        group, bracket, _ = report.nodeid.partition("[")
        if bracket:
            skipped = report.skipped and not hasattr(report, "wasxfail")
            self.cases[group][report.nodeid] = self.cases[group].get(report.nodeid, False) or skipped

    @property
    def skipped(self) -> list[str]:
        """Groups of at least two cases of which none ran."""
        return sorted(group for group, cases in self.cases.items() if len(cases) > 1 and all(cases.values()))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for group in self.skipped:
            terminalreporter.write_line(f"FAILED {group}: every case was skipped, so nothing was tested", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(WholeGroups(), "whole groups")
