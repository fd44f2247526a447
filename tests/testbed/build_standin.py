"""Build the stand-in for Fluxbase: one executable file that needs nothing but Debian's python3.

    build_standin.py --version 2026.3.6 [--variant never-healthy] --output dist/fluxbase-2026.3.6

The same version, variant and requirements give the same bytes, on every machine.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "standin"
CACHE = HERE.parents[1] / ".cache" / "standin"
INTERPRETER = b"#!/usr/bin/python3\n"
EPOCH = (2026, 1, 1, 0, 0, 0)  # the time of every file in the archive
START = "import sys\n\nfrom standin.cli import main\n\nsys.exit(main(sys.argv[1:]))\n"


def variants() -> dict[str, str]:
    """Read the variants and what they do from the source."""
    sys.path.insert(0, str(HERE))
    known: dict[str, str] = importlib.import_module("standin.built_in").VARIANTS
    return known


def dependencies() -> Path:
    """Install what is vendored into the cache, once for each state of requirements.txt."""
    requirements = SOURCE / "requirements.txt"
    target = CACHE / hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        folder = Path(scratch) / "lib"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--no-deps",
            "--only-binary=:all:",
        ]
        command += ["--root-user-action=ignore", "--disable-pip-version-check"]
        subprocess.run([*command, "--target", str(folder), "--requirement", str(requirements)], check=True)
        try:
            folder.rename(target)
        except OSError:  # another build was faster
            if not target.is_dir():
                raise
    return target


def python_files(folder: Path, pattern: str = "*.py") -> dict[str, bytes]:
    """Collect a folder's files by their path in the archive. Compiled parts stay out: it must run on any Python."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern)}


def contents(version: str, variant: str, seconds: float) -> dict[str, bytes]:
    """Everything that goes into the archive."""
    built_in = {"version": version, "variant": variant, "seconds": seconds}
    vendored = dependencies()
    # scramp reads its own version from its metadata.
    files = {**python_files(vendored), **python_files(vendored, "*.dist-info/METADATA")}
    own = {**python_files(SOURCE), **python_files(SOURCE, "page/*")}
    files.update({f"standin/{name}": data for name, data in own.items()})
    files["standin/built_in.json"] = json.dumps(built_in).encode()
    files["__main__.py"] = START.encode()
    return files


def build(version: str, output: Path, variant: str = "none", seconds: float = 20.0) -> str:
    """Write the executable; returns its SHA-256."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}.", delete=False) as file:
        file.write(INTERPRETER)
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in sorted(contents(version, variant, seconds).items()):
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                # Stored, not deflated: other versions of zlib would give other bytes, and it starts sooner.
                archive.writestr(entry, data, zipfile.ZIP_STORED)
    written = Path(file.name)
    written.chmod(0o755)
    shutil.move(written, output)
    return hashlib.sha256(output.read_bytes()).hexdigest()


def main() -> None:
    """Read the command line, build, and print the checksum as sha256sum does."""
    known = variants()
    parser = argparse.ArgumentParser(
        description="Build the stand-in for Fluxbase.",
        epilog="variants: " + "; ".join(f"{name}: {what}" for name, what in known.items()),
    )
    parser.add_argument("--version", required=True, help="2026.3.6; below 2026 it keeps the contract of 2025")
    parser.add_argument("--variant", choices=known, default="none")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the variants slow-start and ...-in-use")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    digest = build(options.version, options.output, options.variant, options.seconds)
    print(f"{digest}  {options.output.name}")


if __name__ == "__main__":
    main()
