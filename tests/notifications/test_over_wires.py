"""Notifications over the wires their providers name: a real mail server, a simulated bot."""

import asyncio
import sys

import pytest

from holdfast.errors import InsecureSetup, MissingExtra
from holdfast.notifications.client import Notifications
from holdfast.notifications.models import DispatchState, Message, Recipient
from holdfast.providers.smtp import Smtp
from holdfast.providers.telegram import Telegram
from holdfast.runtime import Runtime
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Status
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.telegram import TelegramSimulator
from holdfast.values import Secret
from tests.servers.smtp import SmtpServer

ADA = Recipient(telegram="1", email="ada@example.org")
BOT = Telegram(token=Secret(TelegramSimulator.bot_token), base_url="http://127.0.0.1:1")


def mail(server: SmtpServer) -> Smtp:
    return Smtp(host=server.host, port=server.port, sender="clinic@example.org")


async def test_who_blocked_the_bot_is_told_by_mail(smtp: SmtpServer) -> None:
    simulator = TelegramSimulator()
    simulator.block("1")
    runtime = Runtime("memory://", transport=lambda _vendor: InProcess(simulator))

    async with Notifications([BOT, mail(smtp)], runtime=runtime) as notifications:
        dispatch = await notifications.send(Message("See you", subject="Booking"), to=ADA, key="link:1")

    assert dispatch.route == ("telegram:rejected", "smtp:accepted")
    (received,) = smtp.messages
    assert (received.message["Subject"], received.message.get_content().strip()) == ("Booking", "See you")


async def test_a_short_throttle_is_waited_out_by_the_guard() -> None:
    clock = ManualClock()
    simulator = TelegramSimulator(clock=clock)
    wait = b'{"ok":false,"error_code":429,"description":"Too Many Requests","parameters":{"retry_after":1}}'
    simulator.faults.on("telegram", "messages.send").script(Status(429, body=wait))
    runtime = Runtime("memory://", clock=clock, transport=lambda _vendor: InProcess(simulator))

    async with Notifications([BOT], runtime=runtime) as notifications:
        sending = asyncio.ensure_future(notifications.send("hi", to=ADA, key="k"))
        await clock.advance(3)
        dispatch = await sending

    assert dispatch.route == ("telegram:accepted",)


async def test_greylisted_mail_is_told_in_the_end(smtp: SmtpServer) -> None:
    smtp.greylist.add("ada@example.org")

    async with Notifications([mail(smtp)], store="memory://") as notifications:
        dispatch = await notifications.send("hi", to=ADA, key="k")

    assert dispatch.state is DispatchState.ACCEPTED
    assert len(smtp.messages) == 1


async def test_a_lost_reply_after_data_is_mailed_again_under_the_same_message_id() -> None:
    with SmtpServer(drop_after_data=True) as server:
        async with Notifications([mail(server)], store="memory://", deadline=3) as notifications:
            dispatch = await notifications.send("hi", to=ADA, key="k")

        assert dispatch.state is DispatchState.QUEUED
        assert dispatch.submissions[0].outcome == "unknown"
        assert len({received.message["Message-ID"] for received in server.messages}) == 1


async def test_a_lost_reply_for_what_must_not_be_told_twice_is_not_mailed_again() -> None:
    with SmtpServer(drop_after_data=True) as server:
        async with Notifications([mail(server)], store="memory://") as notifications:
            dispatch = await notifications.send(Message("your code", once=True), to=ADA, key="k")

        assert dispatch.state is DispatchState.UNKNOWN
        assert len(server.messages) == 1


def test_a_live_account_needs_a_store_that_lasts() -> None:
    with pytest.raises(InsecureSetup):
        Notifications([Smtp(host="mail.example.org", sender="a@example.org")], store="memory://")


def test_a_missing_package_is_told_when_the_hub_is_made(smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "holdfast.smtp.session")
    monkeypatch.setitem(sys.modules, "aiosmtplib", None)

    with pytest.raises(MissingExtra, match=r"holdfast\[smtp\]"):
        Notifications([mail(smtp)], store="memory://")
