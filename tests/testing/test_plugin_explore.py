"""Explored tests: what pytest runs once is run in one history after the other."""

import pytest

from tests.testing.test_plugin import PAY, SETTINGS, repeats, suite  # noqa: F401  # a fixture, by name

pytest_plugins = ["pytester"]

SHOP = (
    PAY
    + """
class Database:
    def __init__(self):
        self.paid = set()


async def shop(fakes, database, key):
    async with client(fakes) as http:
        if "o1" not in database.paid and await pay(http, 5, **({"idempotency-key": "o1"} if key else {})) == "paid":
            database.paid.add("o1")


SETUP
@pytest.mark.holdfast(seed=7, providers=["stripe"], explore=60)
MARK
async def test_charged_once(fakes, crashes, ARGUMENT="x"):
    database = Database()
    await crashes.run(lambda: shop(fakes, database, KEY))
    fakes.ledger.at_most_once(charge(reference="o1"))
"""
)


def written(*, key: bool = False, mark: str = "", argument: str = "nothing", setup: str = "") -> str:
    text = SHOP.replace("KEY", str(key)).replace("ARGUMENT", argument).replace("SETUP", setup)
    return text.replace("MARK\n", f"{mark}\n" if mark else "")


STRICT = SETTINGS.replace("asyncio_mode = auto", "asyncio_mode = strict")
ON_ASYNCIO = "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"


@pytest.mark.parametrize(
    ("settings", "mark", "setup", "options"),
    [
        (SETTINGS, "", "", ()),
        (STRICT, "@pytest.mark.asyncio", "", ()),
        (STRICT, "@pytest.mark.asyncio(loop_scope='session')", "", ()),
        (STRICT, "@pytest.mark.anyio", ON_ASYNCIO, ("-p", "no:asyncio", "-W", "ignore")),
        (STRICT, "", "", ()),
    ],
    ids=["asyncio-auto", "asyncio-strict", "asyncio-session", "anyio", "no-async-plugin"],
)
def test_the_double_charge_is_found_under_every_async_plugin_and_repeated_by_one_line(
    suite: pytest.Pytester,  # noqa: F811
    settings: str,
    mark: str,
    setup: str,
    options: tuple[str, ...],
) -> None:
    # given
    suite.makeini(settings if "no:asyncio" not in options else settings.replace("asyncio_", "# asyncio_"))
    suite.makepyfile(test_shop=written(mark=mark, setup=setup))

    # when
    found = suite.runpytest(*options)
    again = suite.runpytest(*options, *repeats(found))

    # then
    found.assert_outcomes(failed=1)
    again.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["E *charge of o1 happened 2 times*", "*- holdfast -*", "history * of 60 fails;*"])
    again.stdout.fnmatch_lines(["E *charge of o1 happened 2 times*", "in the history: *"])
    assert repeats(again) == repeats(found)
    assert [line for line in found.outlines if line.startswith("E ")] == [
        line for line in again.outlines if line.startswith("E ")
    ]


def test_a_program_that_keeps_its_key_holds_in_every_history(suite: pytest.Pytester) -> None:  # noqa: F811
    suite.makepyfile(written(key=True))
    result = suite.runpytest()
    result.assert_outcomes(passed=1)
    assert "never came about" not in result.stdout.str()


def test_a_synchronous_test_is_explored_too(suite: pytest.Pytester) -> None:  # noqa: F811
    suite.makepyfile(
        PAY
        + """
@pytest.mark.holdfast(explore=40)
def test_charged_once(fakes):
    with httpx.Client(transport=fakes.httpx_sync(), auth=(fakes.stripe().api_key, "")) as http:
        for _ in range(2):
            try:
                if http.post(URL, data=CARD).status_code == 200:
                    break
            except httpx.TransportError:
                pass
    fakes.ledger.at_most_once(charge(reference="o1"))
"""
    )
    result = suite.runpytest()
    again = suite.runpytest(*repeats(result))
    result.assert_outcomes(failed=1)
    again.assert_outcomes(failed=1)
    assert "stripe.payments.create#0=" in repeats(result)[-1]
    assert repeats(again) == repeats(result)


def test_a_history_that_holds_is_a_passed_test(suite: pytest.Pytester) -> None:  # noqa: F811
    suite.makepyfile(written(key=True))
    suite.runpytest("--holdfast-replay", "crash@1").assert_outcomes(passed=1)


def test_the_command_line_says_how_many_histories_but_not_which_tests(suite: pytest.Pytester) -> None:  # noqa: F811
    # given
    suite.makepyfile(
        """
import httpx
import pytest

@pytest.mark.holdfast(explore=500)
async def test_explored(fakes, crashes):
    print("run;")
    try:
        await crashes.run(lambda: fakes.client("stripe").get("/v1/charges"))
    except httpx.HTTPError:
        pass

def test_ordinary(fakes):
    print("run;")
"""
    )

    # then
    assert suite.runpytest("-s", "--holdfast-explore=5").stdout.str().count("run;") == 5 + 1
    assert suite.runpytest("-s", "--holdfast-explore=0").stdout.str().count("run;") == 1 + 1


def test_a_history_that_is_none_is_refused(suite: pytest.Pytester) -> None:  # noqa: F811
    suite.makepyfile(written())
    result = suite.runpytest("--holdfast-replay", "crush@3")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*--holdfast-replay: 'crush@3' is no step of a history*"])


def test_a_test_that_fails_by_itself_fails_as_ever(suite: pytest.Pytester) -> None:  # noqa: F811
    suite.makepyfile(test_shop="import pytest\n@pytest.mark.holdfast(explore=9)\nasync def test_one(fakes): assert 0")
    result = suite.runpytest()
    result.assert_outcomes(failed=1)
    assert repeats(result) == ["test_shop.py::test_one", "--holdfast-seed=0"]


def test_a_call_that_goes_astray_in_some_history_is_found(suite: pytest.Pytester) -> None:  # noqa: F811
    suite.makepyfile(
        PAY
        + """
@pytest.mark.holdfast(explore=30)
async def test_falls_over(fakes):
    async with client(fakes) as http:
        if await pay(http, attempts=1) != "paid":
            try:
                await http.post("https://api.other.example/pay")
            except Exception:
                pass
"""
    )
    result = suite.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E *NotSimulated: api.other.example is no simulated vendor*", "history * fails; shrunk to: stripe.*"]
    )


# Fixtures


def test_ordinary_fixtures_and_parameters_are_passed(suite: pytest.Pytester) -> None:  # noqa: F811
    suite.makepyfile(
        """
import pytest

@pytest.fixture
def price():
    yield 21

@pytest.mark.parametrize("currency", ["chf", "eur"])
@pytest.mark.holdfast(explore=3)
class TestPrices:
    async def test_price(self, fakes, price, currency, tmp_path):
        assert (price, tmp_path.is_dir()) == (21, True)
        assert currency in ("chf", "eur")
"""
    )
    suite.runpytest().assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("fixture", "told"),
    [
        (
            "@pytest.fixture\nasync def thing():\n    return 1",
            "the async fixture 'thing' belongs to another event loop",
        ),
        ("@pytest.fixture\nasync def thing():\n    yield 1", "the async fixture 'thing' belongs to another event loop"),
        (
            "@pytest.fixture\ndef thing(fakes):\n    return 1",
            "the fixture 'thing' uses 'fakes'*make what 'thing' gives",
        ),
    ],
    ids=["coroutine", "generator", "ours"],
)
def test_a_fixture_that_would_be_of_another_world_is_refused_and_what_to_do_is_told(
    suite: pytest.Pytester,  # noqa: F811
    fixture: str,
    told: str,
) -> None:
    suite.makepyfile(f"import pytest\n{fixture}\n@pytest.mark.holdfast(explore=3)\nasync def test_one(thing): pass")
    result = suite.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"{told}*"])


def test_an_async_fixture_of_the_session_is_passed(suite: pytest.Pytester) -> None:  # noqa: F811
    suite.makepyfile(
        """
import pytest
import pytest_asyncio

@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def settings():
    return {"price": 21}

@pytest.mark.holdfast(explore=3)
async def test_one(settings, fakes):
    assert settings == {"price": 21}
"""
    )
    suite.runpytest().assert_outcomes(passed=1)


# Progress


class OnATerminal:
    """Has pytest believe that somebody looks."""

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        assert reporter is not None
        reporter.isatty = type(reporter.isatty)(True)  # a bool, or what later versions have instead


def test_on_a_terminal_it_says_how_far_it_is(suite: pytest.Pytester) -> None:  # noqa: F811
    suite.makepyfile(written(key=True))
    shown = suite.runpytest_inprocess(plugins=[OnATerminal()]).stdout.str()
    assert "test_charged_once: 1 of 60 histories" in shown


def test_elsewhere_it_is_silent(suite: pytest.Pytester) -> None:  # noqa: F811
    suite.makepyfile(written(key=True))
    assert "of 60 histories" not in suite.runpytest().stdout.str()
