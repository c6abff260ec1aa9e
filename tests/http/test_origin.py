"""Credentials travel encrypted, or not beyond this machine."""

import pytest

from holdfast.errors import InsecureSetup, InvalidInput
from holdfast.http.origin import address, is_loopback, origin, require_https


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000", "http://127.0.0.1", "http://127.8.9.1:80/x", "http://[::1]:8000", "HTTP://LOCALHOST."],
)
def test_this_machine_may_be_asked_in_clear(url: str) -> None:
    assert is_loopback(url)
    require_https(url, "shop")


@pytest.mark.parametrize(
    "url",
    [
        "http://api.shop.example",
        "http://127.0.0.1.shop.example",
        "http://localhost.shop.example",
        "http://127.0.0.1@shop.example",
        "http://0.0.0.0",
        "http://10.0.0.1",
        "http://[::1",
        "ftp://localhost",
        "api.shop.example",
        "https://",
        "",
    ],
)
def test_another_machine_must_be_asked_over_https(url: str) -> None:
    with pytest.raises(InsecureSetup, match=r"^shop: .*https://"):
        require_https(url, "shop")


def test_https_may_go_anywhere() -> None:
    require_https("https://api.shop.example", "shop")


@pytest.mark.parametrize(
    ("base", "path", "params", "whole"),
    [
        ("https://shop.example/v1/", "/orders", {}, "https://shop.example/v1/orders"),
        ("https://shop.example", "/orders", {"q": "a b&c", "n": 2}, "https://shop.example/orders?q=a+b%26c&n=2"),
        ("https://shop.example", "https://auth.example/token", {}, "https://auth.example/token"),
        ("https://shop.example", "/orders/a%2Fb", {}, "https://shop.example/orders/a%2Fb"),
        ("https://shop.example", "/v1.0/a..b", {}, "https://shop.example/v1.0/a..b"),
    ],
)
def test_an_address_is_put_together(base: str, path: str, params: dict[str, str | int], whole: str) -> None:
    assert address(base, path, params, "shop") == whole


@pytest.mark.parametrize(
    "path",
    [
        "orders",
        "@evil.example/",
        "/orders/../admin",
        "/orders/..",
        "/orders/%2e%2E/admin",
        "/orders/..%2Fadmin",
        "/orders/a%2f..%5Cadmin",
        "/orders/./x",
        "/orders?admin=1",
        "/orders#x",
        "/orders/a b",
        "/orders/a\r\nx: y",
        "/orders\\admin",
    ],
)
def test_an_id_cannot_lead_elsewhere(path: str) -> None:
    with pytest.raises(InvalidInput):
        address("https://shop.example", path, {}, "shop")


def test_an_absolute_path_must_be_https_too() -> None:
    with pytest.raises(InsecureSetup):
        address("https://shop.example", "http://auth.example/token", {}, "shop")


def test_a_credential_is_bound_to_scheme_host_and_port() -> None:
    assert origin("https://Shop.example/a") == origin("https://shop.example:443/b")
    assert origin("https://shop.example") != origin("https://shop.example:8443")
    assert origin("https://shop.example") != origin("http://shop.example")
