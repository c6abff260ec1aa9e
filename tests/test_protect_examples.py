"""The examples of protected SDK clients run, and print what they promise."""

import asyncio
import inspect

import pytest

from examples import protect_requests, protect_slack, protect_stripe

SAID = {
    protect_stripe: ["succeeded after 2 requests with 1 key", "Rejected_CardError Your card was declined."],
    protect_slack: [
        "looked up after 2 requests",
        "not tried again: it may have taken effect, and repeating it could take effect twice",
        "posted 1 time",
    ],
    protect_requests: [
        "GET 200 after 2 requests",
        "POST 201 [('/people', 'ada-1'), ('/people', 'ada-1')]",
        "CircuitOpen_ConnectionError open",
    ],
}


@pytest.mark.parametrize("example", SAID, ids=lambda example: example.__name__)
def test_an_example_prints_what_it_promises(
    example: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    done = example.main()  # type: ignore[attr-defined]  # a module
    if inspect.iscoroutine(done):
        asyncio.run(done)

    assert capsys.readouterr().out.splitlines() == SAID[example]  # type: ignore[index]
