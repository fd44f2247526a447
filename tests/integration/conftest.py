"""Real hosts for the integration tests. Where no engine can be had the tests fail: they are never skipped."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import FrameType

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "testbed"))

# What these find is told as what tests find.
pytest.register_assert_rewrite("fleetbed.upgrade")

from fleetbed.equipped import equipped  # noqa: E402
from fleetbed.host import Host  # noqa: E402
from fleetbed.runner import Ansible  # noqa: E402

_numbers = count(1)
# Files that take minutes, the longest first: begun last, one of them would keep the others' workers waiting. The end of a run tells what each took.
LONGEST = (
    "upgrade",
    "upgrade_faults",
    "hardening",
    "faults",
    "fleet",
    "patch",
    "secrets",
    "firewall",
    "units",
    "variants",
    "site",
    "ssh",
    "own_services",
    "config_set",
    "upgrade_gates",
    "canary_gate",
    "restore",
    "controller",
    "remove",
    "acme",
    "firewall_traffic",
    "tls",
)


class Failures:
    """Tells of each when it is there, for those who watch: the reasons come at the end, which may be half an hour later."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal:
            terminal.write_line(f" {report.when} of {report.nodeid} failed after {report.duration:.0f} s")


def pytest_configure(config: pytest.Config) -> None:
    """Asked to end, remove the hosts first, as on an interrupt from the keyboard."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        config.pluginmanager.register(Failures(config))

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order in which they are begun; tests of a file stay in theirs."""
    place = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    took: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                took[Path(report.fspath).stem.removeprefix("test_")] += round(report.duration)
    terminalreporter.section("seconds of each file")
    terminalreporter.write_line(", ".join(f"{name} {seconds}" for name, seconds in took.most_common()))


def _create(stack: ExitStack, purpose: str, *, has_packages: bool = False, **options: object) -> Host:
    if has_packages:
        options["tag"] = equipped()
    # The process number keeps tests that run side by side apart.
    host = Host.create(f"test-{os.getpid()}-{next(_numbers)}-{purpose}", **options)  # type: ignore[arg-type]
    stack.callback(host.remove)
    return host


@pytest.fixture(scope="module")
def new_host() -> Iterator[Callable[..., Host]]:
    """Makes a further host: new_host(purpose, os="debian-12", publish=["8443:443"]); removed after the module.

    With has_packages=True the role `baseline` has been there: for tests that are about something else than a first run.
    """
    with ExitStack() as stack:
        yield lambda purpose="host", **options: _create(stack, purpose, **options)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A Debian 13 host of this test module."""
    with ExitStack() as stack:
        yield _create(stack, "host")


@pytest.fixture(scope="module")
def debian12_host() -> Iterator[Host]:
    """A Debian 12 host of this test module."""
    with ExitStack() as stack:
        yield _create(stack, "host", os="debian-12")


@pytest.fixture(scope="session")
def client() -> Iterator[Host]:
    """Another host, from where users come: with curl, openssl and Python's websockets."""
    with ExitStack() as stack:
        made = _create(stack, "client")
        made.root(
            "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; "
            "apt-get install -qy --no-install-recommends curl openssl python3-websockets",
            timeout=300,
        )
        yield made


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    """Runs modules and playbooks of the checkout's collection as the user admin, who becomes root."""
    return Ansible(tmp_path)
