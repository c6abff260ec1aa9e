"""Accounts at vendors: those of tenants, those that are retired, and those that must not be missing."""

import re
from collections.abc import Collection
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final, TypeVar, cast

from holdfast.errors import ConfigurationError, VersionConflict
from holdfast.payments.provider import PaymentProvider
from holdfast.payments.record import KIND as PAYMENT
from holdfast.payments.refunds import KIND as REFUNDS
from holdfast.stores.store import Draft, Records
from holdfast.values import Secret, Secrets

KIND: Final = "payment_providers"
KEY: Final = "all"
COUNTED: Final = 1000
"""So many open payments are counted; of more it is said that there are more."""

_TENANT: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)

P = TypeVar("P", bound=PaymentProvider)


@dataclass(frozen=True, slots=True)
class Retired:
    """An account that takes nothing new; what it holds is still looked after, captured and refunded.

    `payments=[Stripe.from_env(), Retired(PayPal.from_env())]`
    """

    provider: PaymentProvider


def not_retired(given: object) -> object:
    """The providers themselves, also of accounts that are retired; what is no list of any is given back as it is."""
    if isinstance(given, str | bytes) or not isinstance(given, Collection):
        return given
    return [one.provider if isinstance(one, Retired) else one for one in cast("Collection[object]", given)]


def for_tenant(provider: P, tenant: str, **fields_of_theirs: Secret | Secrets | str) -> P:
    """The same provider for somebody else's account: `for_tenant(stripe, "acme", api_key=Secret(…), …)`.

    It is named `stripe.acme`, which is its identity in records, limits and webhook addresses, so keep it. What
    `create(tenant="acme")` asks for is asked of these providers, and nothing else is.

    Raises:
        ConfigurationError: The tenant's name has other characters than `A-Z a-z 0-9 _ -`, or more than 32; a field is
            none of the provider's; or one of its credentials is not among them and would be shared.
    """
    if not _TENANT.fullmatch(tenant) or "." in provider.name:
        raise ConfigurationError(
            f"{provider.name} cannot be for tenant {tenant!r}: a tenant is 1 to 32 characters of A-Z a-z 0-9 _ -, "
            "and its provider is made of one that has no tenant"
        )
    if not is_dataclass(provider):
        raise ConfigurationError(f"{provider.name} is no dataclass: make its tenants' accounts by hand, with name=")
    have = {field.name for field in fields(provider) if field.init}
    if strange := sorted(set(fields_of_theirs) - have):
        raise ConfigurationError(f"{provider.name} has no field {', '.join(strange)}")
    held = {name for name in have if isinstance(getattr(provider, name), Secret | Secrets)}
    if shared := sorted(held - set(fields_of_theirs)):
        raise ConfigurationError(f"{provider.name}.{tenant} would share {', '.join(shared)}: give the tenant's own")
    return cast(P, replace(cast(Any, provider), name=f"{provider.name}.{tenant}", **fields_of_theirs))


def tenant_of(name: str) -> str:
    """Whose account a provider's name says that it is; empty: your own."""
    return name.partition(".")[2]


async def check(records: Records, names: Collection[str]) -> None:
    """Keep in mind who the providers are; one that was and is no more must hold nothing that is open.

    It costs one look at the store, and one more for each provider that is gone.

    Raises:
        ConfigurationError: Payments or refunds are open at a provider that is missing.
    """
    while True:
        record = await records.get(KIND, KEY)
        known = {str(name) for name in record.value} if record else set[str]()
        for name in sorted(known - set(names)):
            await _check_gone(records, name)
        if known >= set(names):
            return
        draft = Draft(value=dict.fromkeys(sorted(known | set(names)), True))
        try:
            await records.apply(KIND, KEY, record.version if record else 0, draft)
        except VersionConflict:
            continue
        return


async def _check_gone(records: Records, name: str) -> None:
    left: list[str] = []
    for kind, what in ((PAYMENT, "payments"), (REFUNDS, "payments' refunds")):
        count = len(await records.find(kind, "open_at", name, limit=COUNTED))
        if count:
            left.append(f"{count}{' or more' if count == COUNTED else ''} {what}")
    if left:
        raise ConfigurationError(
            f"{' and '.join(left)} are open at {name}, which is not among the payment providers: "
            f"give it as Retired(...), so that they are looked after and nothing new is asked of it"
        )
