"""The store kernel: five small protocols, their engines, and `open_store`."""

from holdfast.stores.open import open_store
from holdfast.stores.store import (
    Added,
    Bus,
    Counters,
    Draft,
    Job,
    JobFilter,
    Jobs,
    JobState,
    Json,
    Lease,
    Leases,
    NewJob,
    Record,
    Records,
    Store,
)

__all__ = [
    "Added",
    "Bus",
    "Counters",
    "Draft",
    "Job",
    "JobFilter",
    "JobState",
    "Jobs",
    "Json",
    "Lease",
    "Leases",
    "NewJob",
    "Record",
    "Records",
    "Store",
    "open_store",
]
