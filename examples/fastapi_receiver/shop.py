"""The shop's own database: bookings, and one row for every time a booking was confirmed."""

import os
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateTable

from holdfast import handled_ddl

engine = create_async_engine(os.environ.get("SHOP_DATABASE", "sqlite+aiosqlite:///shop.db"))
Session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The shop's tables."""


class Booking(Base):
    """A consultation somebody wants."""

    __tablename__ = "bookings"

    reference: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str]
    telegram: Mapped[str | None]
    amount: Mapped[str]
    starts_at: Mapped[datetime]
    meeting_url: Mapped[str | None]


class Confirmation(Base):
    """A booking was confirmed; two rows of one booking would be two confirmations."""

    __tablename__ = "confirmations"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    reference: Mapped[str]
    at: Mapped[datetime]


@event.listens_for(engine.sync_engine, "connect")
def _wait_for_each_other(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()


async def create_tables() -> None:
    """Make the tables, holdfast's one among them."""
    async with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            await connection.execute(CreateTable(table, if_not_exists=True))
        await connection.execute(text(handled_ddl("sqlite")))


async def book(booking: Booking) -> None:
    """Keep a booking; the same reference again is the same booking."""
    values = {column.name: getattr(booking, column.name) for column in Booking.__table__.columns}
    async with Session.begin() as session:
        await session.execute(insert(Booking).values(values).on_conflict_do_nothing())


async def find(reference: str) -> Booking:
    """The booking of that reference."""
    async with Session() as session:
        return await session.get_one(Booking, reference)


async def confirm(session: AsyncSession, reference: str, meeting_url: str) -> None:
    """Confirm a booking, in the caller's transaction."""
    session.add(Confirmation(reference=reference, at=datetime.now(UTC)))
    booking = await session.get_one(Booking, reference)
    booking.meeting_url = meeting_url
