"""Rows as they rest in an encrypted store: what is sealed, what it is bound to, and under whose key."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Final

from holdfast.errors import Unreadable
from holdfast.frozen import frozen
from holdfast.stores import subject_keys
from holdfast.stores.documents import decode, decode_strings, encode, utf8
from holdfast.stores.key_ring import RING, SUBJECT, Cipher, Envelope, KeyRing, place
from holdfast.stores.store import Job, Json, NewJob, Record
from holdfast.stores.subject_keys import Openers

MARK: Final = "sealed"
"""The one header of a sealed job, and the one field of a sealed record. With the envelope's own beginning these are two
signs: a row of which one was altered does not pass for one that was never sealed."""
MARKED: Final = {MARK: "1"}
LONGEST_SUBJECT: Final = 200

Keys = Mapping[str, tuple[int, Cipher]]
"""What seals, by subject."""


@frozen
class SealedJob(Job):
    """A job that cannot be opened, as it rests; `problem` says why."""

    problem: Unreadable


def named(subject: str) -> str:
    """The subject, or what stands for it where it is too long to be the key of a record."""
    return subject if len(subject) <= LONGEST_SUBJECT else f"sha256:{sha256(utf8(subject)).hexdigest()}"


def envelope_of(row: Job | Record) -> Envelope | None:
    """What the row rests in; None: it is not sealed."""
    if isinstance(row, Job):
        return Envelope.unpack(row.body)
    text = next(iter(row.value.values()), None) if len(row.value) == 1 else None
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        return None
    # Base64 has several texts for some bytes, of which only one was written.
    return Envelope.unpack(data) if base64.b64encode(data).decode() == text else None


def subject_of(row: Job | Record) -> str:
    """Under whose key a row rests; empty: under the key ring's, or under none."""
    envelope = envelope_of(row)
    return envelope.name if envelope is not None and envelope.kind == SUBJECT else ""


def key_id_of(row: Job | Record) -> str | None:
    """The id of the ring's key a row rests under; empty: under a subject's; None: it is not sealed."""
    envelope = envelope_of(row)
    if envelope is None:
        return None
    return envelope.name if envelope.kind == RING else ""


def seal_job(job: NewJob | Job, subject: str, keys: Keys, ring: KeyRing) -> bytes:
    """The body of the job as it is to rest, with its headers."""
    headers = encode(job.headers).encode()
    plain = len(headers).to_bytes(4, "big") + headers + job.body
    return _seal(plain, _job_place(job), subject, keys, ring)


def open_job(job: Job, envelope: Envelope | None, keys: Openers, ring: KeyRing) -> Job:
    """The job with what it carries; one that cannot be opened as a `SealedJob`."""
    try:
        plain = _open(envelope, job.headers == MARKED, _job_place(job), f"job {job.id}", keys, ring)
    except Unreadable as error:
        columns = {name: getattr(job, name) for name in Job.__dataclass_fields__}
        return SealedJob(**columns, problem=error)
    if plain is None:
        return job
    end = 4 + int.from_bytes(plain[:4], "big")
    return replace(job, headers=decode_strings(plain[4:end].decode()), body=plain[end:])


def emptied_job(subject: str) -> bytes:
    """The body of a job that carries nothing, as if it had rested under a key of the subject that was destroyed."""
    return Envelope(SUBJECT, subject, 0, bytes(28)).pack()


def seal_record(kind: str, key: str, text: str, subject: str, keys: Keys, ring: KeyRing) -> dict[str, Json]:
    """The value of the record as it is to rest; `text` is its JSON."""
    sealed = _seal(text.encode(), place("record", kind, key), subject, keys, ring)
    return {MARK: base64.b64encode(sealed).decode()}


def open_record(record: Record, envelope: Envelope | None, keys: Openers, ring: KeyRing) -> Record:
    """The record with its value. Raises UnknownKey, Forgotten, Unreadable."""
    where, what = place("record", record.kind, record.key), f"{record.kind} {record.key}"
    plain = _open(envelope, list(record.value) == [MARK], where, what, keys, ring)
    return record if plain is None else replace(record, value=decode(plain.decode()))


def _seal(plain: bytes, bound_to: bytes, subject: str, keys: Keys, ring: KeyRing) -> bytes:
    if subject:
        return subject_keys.seal(subject, keys[subject], plain, bound_to)
    return ring.seal(plain, bound_to)


def _open(
    envelope: Envelope | None, marked: bool, bound_to: bytes, what: str, keys: Openers, ring: KeyRing
) -> bytes | None:
    """What is in the envelope; None: the row was never sealed. Raises UnknownKey, Forgotten, Unreadable."""
    if envelope is None and not marked:
        if ring.require:
            raise Unreadable(what, "it is not sealed, and everything has to be")
        return None
    if envelope is None or not marked:
        raise Unreadable(what)
    opener = ring if envelope.kind == RING else keys
    return opener.open(envelope, bound_to, what)


def _job_place(job: NewJob | Job) -> bytes:
    return place("job", job.queue, job.key, job.kind, job.handler, job.ordering_key)
