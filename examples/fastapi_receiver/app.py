"""The shop's web app: take a booking, offer a way to pay, and receive what the vendors have to say."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from examples.fastapi_receiver import shop
from examples.fastapi_receiver.integrations import hub
from holdfast import HoldfastError, Money, Payment
from holdfast.errors import InvalidInput, NotFound, ReferenceConflict


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Open the shop's database and the hub; close them in order."""
    await shop.create_tables()
    async with hub.lifespan(app):
        yield
    await shop.engine.dispose()


app = FastAPI(title="Consultations", lifespan=lifespan)
app.mount("/webhooks", hub.receiver)


class NewBooking(BaseModel):
    """What the browser sends."""

    reference: str
    email: str
    telegram: str | None = None
    amount: str
    starts_at: datetime


class Offered(BaseModel):
    """What the browser shows."""

    status: str
    provider: str
    checkout_url: str | None
    bolt11: str | None
    qr_svg: str
    route: list[str]

    @classmethod
    def of(cls, payment: Payment) -> "Offered":
        """The payment's current offer, with its QR code; without one when it is over."""
        offer = payment.offer
        return cls(
            status=payment.status,
            provider=payment.provider,
            checkout_url=offer.checkout_url if offer else None,
            bolt11=offer.bolt11 if offer else None,
            qr_svg=offer.qr_svg() if offer else "",
            route=list(payment.route),
        )


@app.post("/bookings")
async def book(new: NewBooking) -> Offered:
    """Book a consultation and offer a way to pay it; asking again shows the same offer."""
    await shop.book(shop.Booking(**new.model_dump()))
    return Offered.of(await hub.payments.create(new.reference, Money(new.amount, "CHF"), description="Consultation"))


@app.get("/bookings/{reference}")
async def show(reference: str) -> Offered:
    """How a booking's payment stands."""
    return Offered.of(await hub.payments.get(reference))


STATUSES: dict[type[HoldfastError], int] = {InvalidInput: 422, NotFound: 404, ReferenceConflict: 409}


@app.exception_handler(HoldfastError)
async def _in_words(_request: object, error: HoldfastError) -> JSONResponse:
    status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 502)
    return JSONResponse({"error": type(error).__name__, "message": str(error)}, status_code=status)


@app.get("/livez")
async def alive() -> dict[str, str]:
    """The process answers."""
    return {"status": "pass"}
