"""Virtual environments for what must not live in ours: made once from a lock, kept in a cache."""

import fcntl
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PRIVATE_UV: Final = ROOT / ".cache" / "uv" / "bin"  # where `make` keeps its own


def environment(name: str) -> Path:
    """The virtual environment locked in `requirements/{name}.txt`; whichever process asks first makes it."""
    locked = ROOT / "requirements" / f"{name}.txt"
    fingerprint = sha256(f"python {sys.version_info[:2]}\n{locked.read_text()}".encode()).hexdigest()
    directory = ROOT / ".cache" / f"{name}-{fingerprint[:12]}"
    directory.parent.mkdir(exist_ok=True)
    ready = directory / "READY"
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            _make(directory, locked)
            ready.touch()
    return directory


def _make(directory: Path, locked: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    python = directory / "bin" / "python"
    pinned = ("--no-deps", "--require-hashes", "--requirement", locked)  # the lock is complete
    uv = shutil.which("uv") or shutil.which("uv", path=PRIVATE_UV)
    if uv is None:
        _run(sys.executable, "-m", "venv", directory)
        _run(python, "-m", "pip", "install", "--quiet", *pinned)
    else:
        _run(uv, "venv", "--quiet", "--python", sys.executable, directory)
        _run(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *pinned)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
