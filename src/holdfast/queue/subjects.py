"""Whom a row is about: the name under whose key it rests in an encrypted store."""


def of_delivery(provider: str, *, reference: str, attempt_id: str, vendor_id: str) -> str:
    """The reference, where the vendor echoes it; else the attempt of our own URL, else the vendor's object.

    The last two are found again through the record that names them, so a delivery needs no look into the store.
    """
    named = attempt_id or vendor_id
    return reference or (f"{provider}/{named}" if named else "")


def of_key(key: str) -> str:
    """The reference in a key of the form `what:reference`; a key without a colon is one itself."""
    return key.partition(":")[2] or key
