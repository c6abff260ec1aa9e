"""Effect and cause: the words every decision is made of."""

from enum import StrEnum


class Effect(StrEnum):
    """What repeating an exchange with a vendor would do."""

    READ = "read"
    """Nothing: it only looks."""
    IDEMPOTENT = "idempotent"
    """Nothing more than once did: the request itself says so."""
    KEYED = "keyed"
    """Nothing more, while the vendor remembers our key and the bytes are the same."""
    ONCE = "once"
    """A second effect: never repeat unless the first is proven not to have happened."""


class Cause(StrEnum):
    """Why an exchange did not succeed; finer reasons are a field beside it, never another cause."""

    NOT_SENT = "not_sent"
    """Nothing happened, proven: the request never left."""
    THROTTLED = "throttled"
    """Nothing happened: the vendor asked us to slow down."""
    REFUSED = "refused"
    """Nothing happened: the vendor said it did not process this, and may later."""
    CREDENTIAL = "credential"
    """Nothing happened: our credential was not accepted."""
    REJECTED = "rejected"
    """Nothing happened: the vendor understood and said no."""
    UNKNOWN = "unknown"
    """Something may have happened: the answer is missing or means nothing."""
    MISMATCH = "mismatch"
    """Something else happened: the answer contradicts the request."""
