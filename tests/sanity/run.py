"""`ansible-test sanity` on a copy of the checkout, without containers, and what of it could not run: `make sanity` calls it.

A copy, since ansible-test wants a collection at .../ansible_collections/selfhost/fleet, and links to folders are refused there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from ansible_test._internal.python_requirements import get_venv_packages

from tests.interpreters import further

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "sanity"
# ansible-test keeps the environments of its tests below the home folder.
HOME = CACHE / "home"
TOOLS = CACHE / "tools"

RUNNING = re.compile(r'Running sanity test "(?P<test>[^"]+)"')
NO_PROGRAM = re.compile(r'WARNING: Required program "(?P<program>[^"]+)" not found')
SKIPPED = re.compile(r'Skipping sanity test "(?P<test>[^"]+)" (?P<reason>.+)')
NO_TOOL = "the program"
NEEDLESS = {"pwsh"}  # the collection has no file of PowerShell


def not_run(output: str) -> list[str]:
    """A line for each test that ansible-test passed over, with the reason; without those that have nothing to look at here."""
    lines: dict[str, None] = {}
    test = ""
    for line in output.splitlines():
        if "Reviewing previous" in line:  # it repeats its warnings at the end
            break
        if found := RUNNING.search(line):
            test = found["test"]
        elif found := NO_PROGRAM.search(line):
            if (program := found["program"]) not in NEEDLESS:
                lines[f"{test}: {NO_TOOL} {program} is not there"] = None
        elif found := SKIPPED.search(line):
            lines[f"{found['test']}: {found['reason']}"] = None
    return list(lines)


def copy(target: Path) -> None:
    """The files that are, or would be, in git, as a collection that is in git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():  # git lists what was just removed, too
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)
    subprocess.run(["git", "add", "--all"], cwd=target, check=True)


def bootstrap() -> None:
    """ansible-test downloads a script that brings pip into its environments, unless it lies here. Python's own way needs no network."""
    version = get_venv_packages(SimpleNamespace(version=f"{sys.version_info.major}.{sys.version_info.minor}"))[
        "pip"
    ].replace(".", "_")
    script = HOME / ".ansible" / "test" / "cache" / f"get_pip_{version}.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text("import ensurepip\n\nensurepip.bootstrap()\n")


def shellcheck() -> None:
    """Debian's shellcheck, unpacked: that needs no root. Elsewhere the test is named as one that did not run."""
    if shutil.which("shellcheck") or (TOOLS / "usr/bin/shellcheck").exists() or not shutil.which("apt-get"):
        return
    TOOLS.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["apt-get", "download", "--quiet=2", "shellcheck"], cwd=TOOLS, check=False).returncode == 0:
        for package in TOOLS.glob("shellcheck_*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, TOOLS], check=True)


def sanity(collection: Path, arguments: Sequence[str]) -> int:
    """Its exit status, or 1 where it lacked a tool; what it says is passed on as it comes.

    A Python that the machine does not have is named, here and at the end of `make test`, and no failure.
    """
    path = os.environ.get("PATH", os.defpath)
    # pyenv's shims have the names of interpreters that they then refuse to run, so the interpreters themselves go before them.
    interpreters = further(f"{sys.version_info.major}.{sys.version_info.minor}", path).values()
    folders = [str(TOOLS / "usr/bin"), *(str(Path(interpreter).parent) for interpreter in interpreters)]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("ansible-test"), "sanity", "--local", "--truncate", "0", *arguments],
        cwd=collection,
        env={**os.environ, "HOME": str(HOME), "PATH": os.pathsep.join([*folders, path])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        output += line
    passed_over = not_run(output)
    for line in passed_over:
        print(f"NOT RUN: {line}")
    return process.wait() or int(any(NO_TOOL in line for line in passed_over))


def main() -> int:
    bootstrap()
    shellcheck()
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        collection = Path(folder) / "ansible_collections" / "selfhost" / "fleet"
        copy(collection)
        return sanity(collection, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
