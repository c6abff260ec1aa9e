"""Append-only files of JSON lines, which outlive the processes that write them."""

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """Each line is one write at the end of the file: a killed process leaves whole lines, and many may share it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._unsynced = False

    def write(self, what: str, **facts: object) -> None:
        """One line."""
        os.write(self._file, json.dumps({"what": what, **facts}).encode() + b"\n")
        self._unsynced = True

    def sync(self) -> None:
        """What was written so far is on the disk."""
        if self._unsynced:
            self._unsynced = False
            os.fsync(self._file)

    def close(self) -> None:
        """No more is written."""
        os.close(self._file)


def read(path: Path) -> list[dict[str, Any]]:
    """All lines; none where nobody wrote any."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
