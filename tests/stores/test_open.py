"""URLs and the stores they name."""

from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError
from holdfast.stores import open_store


async def test_a_relative_file_has_three_slashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async with open_store("sqlite:///shop.db"):
        assert (tmp_path / "shop.db").exists()


async def test_an_absolute_file_has_four_slashes(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/shop.db"):
        assert (tmp_path / "shop.db").exists()


def test_nothing_is_opened_by_naming_it(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/shop.db")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "mysql://shop:hunter2@db",
        "sqlite://",
        "sqlite:///",
        "sqlite://shop.db",
        "sqlite:///shop.db?mode=hunter2",
        "memory://shop",
        "shop.db",
        "hunter2",
        "",
    ],
)
def test_another_url_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"memory://.*sqlite:///") as raised:
        open_store(url)

    assert "hunter2" not in str(raised.value)
