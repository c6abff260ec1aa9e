"""The Lightning leg on a real LNbits: its invoices, its payments, its webhooks, and its own books as the ledger."""

import shutil
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

SATS_PER_FRANC = 20
"""Made up, and low, so that the payer's wallet lasts."""


class RealLNbits:
    """A server of its own on loopback, with a wallet for the shop and one for the customers."""

    def __init__(self, directory: Path) -> None:
        from tests.servers.lnbits import LnbitsServer  # brings a server from PyPI, which only this option needs

        home = directory / "lnbits"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self._server = LnbitsServer(home)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.stop()

    @property
    def settings(self) -> dict[str, str]:
        """For the shop's environment; the server has no source of rates, so the shop brings one."""
        return {
            "LNBITS_URL": self._server.url,
            "LNBITS_INVOICE_KEY": self._server.merchant.inkey,
            "CHF_BTC": str(Decimal(SATS_PER_FRANC).scaleb(-8)),
        }

    async def pay(self, bolt11: str) -> bool:
        """Pay from the customers' wallet; whether it is known to have worked: the ledger tells in the end."""
        try:
            await self._server.pay(bolt11)
        except httpx.HTTPError:
            return False
        return True

    async def entries(self, client: httpx.AsyncClient) -> Sequence[Mapping[str, Any]]:
        """The shop's wallet as entries of the ledger."""
        found = await client.get(
            f"{self._server.url}/api/v1/payments",
            params={"limit": 1000},
            headers={"X-Api-Key": self._server.merchant.inkey},
        )
        entries: list[Mapping[str, Any]] = []
        for payment in found.raise_for_status().json():
            entry = {
                "vendor": "lnbits",
                "id": payment["payment_hash"],
                "key": payment["extra"].get("reference", ""),
                "amount": str(Decimal(payment["amount"]).scaleb(-11)),
                "currency": "BTC",
                "facts": {"attempt": payment["external_id"] or ""},
            }
            entries.append(entry | {"kind": "offer"})
            if payment["status"] == "success":
                entries.append(entry | {"kind": "capture"})
        return entries
