"""The Lua scripts, as text with its hash."""

import re
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Final

FUNCTION: Final = re.compile(r"(?m)(^local function .*\n(?:^(?!end$).*\n)*^end\n)")
FUNCTION_NAME: Final = re.compile(r"local function (\w+)")
WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """What runs in the server, as one step nobody else sees the middle of."""

    name: str
    source: str
    hash: str


def _load(name: str, *, with_jobs: bool = False) -> Script:
    folder = files("holdfast.stores") / "lua"
    prelude, jobs, text = ((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", "jobs", name))
    if with_jobs:
        # What a script about jobs changes gathers until it has returned.
        text = f"{jobs}\nlocal function script()\n{text}end\n\nlocal answer = script()\ncommit()\nreturn answer\n"
    source = _without_unused(f"{prelude}\n{text}")
    # The name Redis gives a script: nothing is kept safe by it.
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


def _without_unused(text: str) -> str:
    """Leave out the functions a script does not call: the server makes every function anew whenever a script runs."""
    blocks = FUNCTION.split(text)
    kept: list[str] = []
    used: set[str] = set()
    for block in reversed(blocks):  # nothing is called before it is defined
        defined = FUNCTION_NAME.match(block)
        if defined is None or defined[1] in used:
            kept.append(block)
            used |= set(WORD.findall(block))
    return "".join(reversed(kept))


TIME: Final = _load("time")
SCHEMA: Final = _load("schema")
LEASE_ACQUIRE: Final = _load("lease_acquire")
LEASE_EXTEND: Final = _load("lease_extend")
SUM_ADD: Final = _load("sum_add")
SUM_TOTAL: Final = _load("sum_total")
SLOTS_TAKE: Final = _load("slots_take")
SLOTS_GIVE: Final = _load("slots_give")

MIGRATE: Final = _load("migrate", with_jobs=True)
ADD: Final = _load("add", with_jobs=True)
CARRY_OUT: Final = _load("carry_out", with_jobs=True)
CARRY_IN: Final = _load("carry_in", with_jobs=True)
CARRY_OFF: Final = _load("carry_off", with_jobs=True)
CLAIM: Final = _load("claim", with_jobs=True)
HEARTBEAT: Final = _load("heartbeat", with_jobs=True)
FINISH: Final = _load("finish", with_jobs=True)
GIVE_BACK: Final = _load("give_back", with_jobs=True)
RELEASE: Final = _load("release", with_jobs=True)
REPLAY: Final = _load("replay", with_jobs=True)
DROP: Final = _load("drop", with_jobs=True)
JOB_REWRITE: Final = _load("job_rewrite", with_jobs=True)
JOB_GET: Final = _load("job_get", with_jobs=True)
JOB_LIST: Final = _load("job_list", with_jobs=True)
JOB_COUNT: Final = _load("job_count", with_jobs=True)
OLDEST: Final = _load("oldest", with_jobs=True)
PURGE: Final = _load("purge", with_jobs=True)
OUTLOOK: Final = _load("outlook", with_jobs=True)

RECORD_APPLY: Final = _load("record_apply", with_jobs=True)
RECORD_GET: Final = _load("record_get")
RECORD_FIND: Final = _load("record_find")
RECORD_REWRITE: Final = _load("record_rewrite")

BACKUP_JOBS: Final = _load("backup_jobs", with_jobs=True)
BACKUP_RECORDS: Final = _load("backup_records")
RESTORE_JOBS: Final = _load("restore_jobs", with_jobs=True)
RESTORE_HEADS: Final = _load("restore_heads", with_jobs=True)
RESTORE_RECORDS: Final = _load("restore_records")
RESTORE_DONE: Final = _load("restore_done")
EXAMINE_JOBS: Final = _load("examine_jobs", with_jobs=True)
EXAMINE_REST: Final = _load("examine_rest", with_jobs=True)
EXAMINE_COUNTS: Final = _load("examine_counts", with_jobs=True)
EXAMINE_RECORDS: Final = _load("examine_records")
