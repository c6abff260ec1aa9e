"""How jobs look to the scripts, and how the scripts show them."""

import json
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Final

from holdfast.stores.documents import decode_strings, encode, utf8
from holdfast.stores.store import Job, JobState, NewJob
from holdfast.stores.store_time import moment

Argument = str | int | bytes

KEYS: Final = (
    *("job", "body", "key", "gone", "due", "held", "order", "head", "rows", "ended", "count", "misc", "out", "outbody"),
)
"""Of every script about jobs, in one partition."""
ARGUMENTS: Final = 3
"""Of each job that is added."""
STATES: Final = {
    b"r": JobState.READY,
    b"l": JobState.LEASED,
    b"d": JobState.DONE,
    b"x": JobState.DEAD,
    b"i": JobState.IGNORED,
}
LETTERS: Final = {state: letter for letter, state in STATES.items()}
SHOWN: Final = Struct(">16scIIIIIIqqHIHIH")
"""Number and state; token, attempts, losses, generation, arrivals and conflicts; when it was created and when it is
due; the lengths of what follows: queue, error, reason, body, and of what of the body is only for the scripts."""
ADDED: Final = Struct(">16s8sq?I")
"""Fingerprint of queue and key, queue, delay, whether it is ignored; the length of the first text that follows."""
LENGTH: Final = Struct(">I")
ENDED: Final = Struct(">16sIcI")
"""Number, token, state; the length of the reason that follows."""
LONGEST_DELAY: Final = 9 * 10**15
"""Microseconds: no time is later, in sixteen digits."""

_text: Final = json.JSONEncoder(separators=(",", ":")).encode
_facts: Final = json.JSONDecoder().raw_decode


def describe(new: NewJob, partition: Callable[[bytes], int]) -> tuple[Argument, ...]:
    """What the scripts that add jobs take.

    Raises:
        InvalidInput: It holds what a store cannot give back.
    """
    queue, queue_id = _queue(new.queue)
    key_id, order_id = _fingerprint(new.queue, new.key), b""
    if new.ordering_key:
        order_id = _fingerprint(new.queue, new.ordering_key)
    digest = _packed(new.digest)
    delay = min(round(new.delay * 1_000_000), LONGEST_DELAY) if new.delay else 0
    facts = ADDED.pack(key_id, queue_id, delay, new.ignored, len(order_id))
    lengths = LENGTH.pack(len(digest)), LENGTH.pack(len(queue))
    return (
        partition(order_id or key_id),
        b"%b%b%b%b%b%b" % (facts, order_id, lengths[0], digest, lengths[1], queue),
        payload(new),
    )


def ending(number: str, token: int, state: bytes, reason: str, error: bytes) -> bytes:
    """What the script that ends jobs takes of each."""
    said = utf8(reason)
    return ENDED.pack(number.encode(), token, state, len(said)) + said + error


def payload(job: NewJob | Job) -> bytes:
    """What never changes of a job, in one piece: how long the facts are, the facts, the body.

    Raises:
        InvalidInput: It holds what a store cannot give back.
    """
    headers = dict(job.headers)
    if {str} < {str, *map(type, headers), *map(type, headers.values())}:
        encode(headers)
    return _in_one_piece(job, headers)


def first_payload(job: NewJob | Job) -> bytes:
    """The same in the first layout, with the headers as text within the text."""
    return _in_one_piece(job, encode(job.headers))


def _in_one_piece(job: NewJob | Job, headers: dict[str, str] | str) -> bytes:
    facts = _text([job.key, job.kind, job.handler, job.ordering_key, headers]).encode()
    return b"%d %b%b" % (len(facts), facts, job.body)


def read_jobs(partition: int, shown: bytes) -> list[Job]:
    """The jobs that a script shows."""
    jobs: list[Job] = []
    at = 0
    while at < len(shown):
        (
            number, state, token, attempts, losses, generation, arrivals, conflicts, created_at, due_at,
            of_queue, of_error, of_reason, of_body, of_head,
        ) = SHOWN.unpack_from(shown, at)  # fmt: skip
        queue = at + SHOWN.size
        error = queue + of_queue
        reason = error + of_error
        head = reason + of_reason
        facts = shown.index(b" ", head + of_head) + 1
        body = facts + int(shown[head + of_head : facts - 1])
        at = head + of_body
        (key, kind, handler, ordering_key, headers), _ = _facts(shown[facts:body].decode())
        jobs.append(
            Job(
                id=job_id(partition, number),
                queue=shown[queue:error].decode(),
                key=key,
                kind=kind,
                handler=handler,
                body=shown[body:at],
                # The first layout keeps them as text within the text.
                headers=decode_strings(headers) if isinstance(headers, str) else headers,
                ordering_key=ordering_key,
                state=STATES[state],
                token=token,
                attempts=attempts,
                losses=losses,
                generation=generation,
                arrivals=arrivals,
                conflicts=conflicts,
                created_at=moment(created_at),
                due_at=moment(due_at),
                error=shown[error:reason].decode(),
                reason=shown[reason:head].decode(),
            )
        )
    return jobs


def job_id(partition: int, number: bytes) -> str:
    """The public name of a job."""
    return f"{number.decode()}-{partition}"


def queue_id(queue: str) -> bytes:
    """What stands for a queue in the members of sorted sets: all of one length."""
    return _queue(queue)[1]


@lru_cache(1024)
def _queue(queue: str) -> tuple[bytes, bytes]:
    name = utf8(queue)
    return name, blake2b(name, digest_size=8).digest()


def _fingerprint(queue: str, key: str) -> bytes:
    return blake2b(utf8(f"{len(queue)}:{queue}{key}"), digest_size=16).digest()


def _packed(digest: str) -> bytes:
    """A SHA-256 as half of its bytes, which tell two bodies apart as well."""
    if len(digest) == 64:
        try:
            packed = bytes.fromhex(digest)
        except ValueError:
            return utf8(digest)
        if packed.hex() == digest:
            return packed[:16]
    return utf8(digest)
