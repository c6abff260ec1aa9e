"""The pytest plugin, as a suite of somebody else's uses it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pydantic  # noqa: F401  # a suite in this process would import it anew, which its core does not survive
import pytest
import respx  # noqa: F401

import holdfast.testing.deliveries
import holdfast.testing.explore
import holdfast.testing.fake_server
import holdfast.testing.respx_router
import holdfast.testing.simulators.stripe
import holdfast.testing.world

pytest_plugins = ["pytester"]

SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
addopts = --strict-markers -p no:cacheprovider -p no:randomly
filterwarnings = error
"""
PAY = """
import httpx
import pytest
from holdfast.testing import charge
from holdfast.testing.faults import Reset, Status

CARD = {
    "amount": "2100", "currency": "chf", "confirm": "true", "payment_method": "pm_card_visa",
    "automatic_payment_methods[enabled]": "true", "automatic_payment_methods[allow_redirects]": "never",
    "metadata[reference]": "o1",
}
URL = "https://api.stripe.com/v1/payment_intents"


def client(fakes):
    return httpx.AsyncClient(transport=fakes.httpx(), auth=(fakes.stripe().api_key, ""))


async def pay(http, attempts=3, **headers):
    for _ in range(attempts):
        try:
            answer = await http.post(URL, data=CARD, headers=headers)
        except httpx.TransportError:
            continue
        if answer.status_code == 200:
            return "paid"
    return "unknown"
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for name in ("CI", "BUILD_NUMBER"):  # there pytest tells every error twice, whole
        monkeypatch.delenv(name, raising=False)
    pytester.makeini(SETTINGS)
    return pytester


def repeats(result: pytest.RunResult) -> list[str]:
    """The lines that failures printed, split as a shell does, without `pytest` itself."""
    lines = [line.partition("repeat with: ")[2] for line in result.outlines if line.startswith("repeat with: ")]
    return shlex.split(lines[0])[1:]


# What a test holds in its hands


def test_five_lines_prove_that_a_lost_answer_charges_nobody_twice(suite: pytest.Pytester) -> None:
    # given
    suite.makepyfile(
        PAY
        + """
async def test_checkout(fakes, faults):
    faults.on("stripe", "payments.create").script(Reset(), None)
    async with client(fakes) as http:
        assert await pay(http, **{"idempotency-key": "o1"}) == "paid"
    fakes.ledger.exactly_once(charge(reference="o1"))
"""
    )

    # then
    suite.runpytest().assert_outcomes(passed=1)


def test_each_test_meets_vendors_that_remember_nothing_of_the_one_before(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        PAY
        + """
@pytest.mark.parametrize("number", range(2))
async def test_pays(fakes, number):
    async with client(fakes) as http:
        await pay(http)
    assert len(fakes.ledger) == 2 and len(fakes.stripe().requests) == 1
"""
    )
    suite.runpytest().assert_outcomes(passed=2)


def test_time_is_real_until_a_test_asks_for_a_virtual_clock(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
from datetime import UTC, datetime
from holdfast.clock import SystemClock

def test_real(fakes, webhooks):
    assert type(fakes.clock) is SystemClock

async def test_virtual(fakes, vclock):
    assert fakes.clock is vclock
    async with vclock.running():
        await vclock.sleep(7 * 86_400)
    assert vclock.now() == datetime(2026, 1, 8, tzinfo=UTC)
"""
    )
    suite.runpytest().assert_outcomes(passed=2)


def test_a_webhook_reaches_the_app_signed(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        PAY
        + """
async def test_webhooks(fakes, webhooks):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["path"], [name for name, _ in scope["headers"] if name == b"stripe-signature"]))
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    fakes.stripe().webhook_url = "https://shop.test/hooks/stripe"
    async with client(fakes) as http:
        await pay(http)
    sent = await webhooks.to(app, "/hooks/stripe").deliver()
    assert sent and len(seen) == len(sent)
    assert seen[0] == ("/hooks/stripe", [b"stripe-signature"])
"""
    )
    suite.runpytest().assert_outcomes(passed=1)


def test_a_program_is_killed_where_the_test_says_and_starts_again(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        PAY
        + """
async def test_crash(fakes, crashes):
    starts = []

    async def shop():
        starts.append(1)
        async with client(fakes) as http:
            return await pay(http, **{"idempotency-key": "o1"})

    crashes.at(1)
    assert await crashes.run(shop) == "paid"
    assert len(starts) == 2
    fakes.ledger.exactly_once(charge(reference="o1"))
"""
    )
    suite.runpytest().assert_outcomes(passed=1)


def test_an_async_test_without_a_plugin_for_it_is_told_so_by_pytest(suite: pytest.Pytester) -> None:
    suite.makeini("[pytest]")
    suite.makepyfile("async def test_waits(fakes): pass")
    result = suite.runpytest("-p", "no:asyncio", "-p", "no:anyio", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*async def functions are not natively supported*"])


@pytest.mark.parametrize("mark", ["@pytest.mark.asyncio(loop_scope='session')", "@pytest.mark.anyio"])
def test_every_async_plugin_will_do(suite: pytest.Pytester, mark: str) -> None:
    suite.makeini(SETTINGS.replace("asyncio_mode = auto", "asyncio_mode = strict"))
    suite.makepyfile(
        PAY
        + f"""
@pytest.fixture
def anyio_backend():
    return "asyncio"

{mark}
async def test_pays(fakes, faults, vclock):
    faults.on("stripe").script(Reset(), None)
    async with vclock.running(), client(fakes) as http:
        assert await pay(http) == "paid"
"""
    )
    suite.runpytest().assert_outcomes(passed=1)


# Seeds


SEEDS = """
def test_one(fakes):
    print("seed", fakes.seed)

class TestTwo:
    def test_one(self, fakes):
        print("seed", fakes.seed)
"""


def seeds(result: pytest.RunResult) -> list[str]:
    return re.findall(r"seed (\d+)\b(?! \()", result.stdout.str())


def test_the_header_names_the_seed(suite: pytest.Pytester) -> None:
    suite.makepyfile("def test_nothing(): pass")
    suite.runpytest("--holdfast-seed=7").stdout.fnmatch_lines(["holdfast: seed 7 (repeat with --holdfast-seed=7)"])
    suite.runpytest().stdout.fnmatch_lines(["holdfast: seed 0 (repeat with --holdfast-seed=0)"])


def test_a_tests_seed_depends_on_its_name_and_the_runs_seed_alone(suite: pytest.Pytester) -> None:
    # given
    path = suite.makepyfile(test_shop=SEEDS)
    found = seeds(suite.runpytest("-s", "-q"))

    # when
    path.write_text("def test_new(fakes): pass\n" + SEEDS)
    with_another_test = seeds(suite.runpytest("-s", "-q"))
    elsewhere = suite.mkdir("sub") / "test_shop.py"
    elsewhere.write_text(SEEDS)
    in_another_directory = seeds(suite.runpytest("-s", "-q", str(elsewhere)))
    with_another_seed = seeds(suite.runpytest("-s", "-q", "--holdfast-seed=1", str(path)))

    # then
    assert len(set(found)) == len(set(with_another_seed)) == 2
    assert found == with_another_test == in_another_directory
    assert not set(found) & set(with_another_seed)


def test_the_closest_marker_says_the_seed(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
import pytest
pytestmark = pytest.mark.holdfast(seed=1, providers=["stripe"])

def test_module(fakes):
    assert (fakes.seed, fakes.providers) == (1, {"stripe"})

@pytest.mark.holdfast(seed=2)
def test_function(fakes):
    assert (fakes.seed, fakes.providers) == (2, {"stripe"})
"""
    )
    suite.runpytest("--holdfast-seed=9").assert_outcomes(passed=2)


@pytest.mark.parametrize("mark", ["holdfast(7)", "holdfast(sed=7)"])
def test_a_marker_that_says_something_else_is_refused(suite: pytest.Pytester, mark: str) -> None:
    suite.makepyfile(f"import pytest\n@pytest.mark.{mark}\ndef test_one(fakes): pass")
    result = suite.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*@pytest.mark.holdfast*it is holdfast(seed=None, providers=None*"])


# Failures


FLAKY = (
    PAY
    + """
async def test_flaky(fakes, faults):
    faults.on("stripe").rate(0.5, Reset(), Status(503))
    async with client(fakes) as http:
        for _ in range(20):
            await pay(http, attempts=1)
    pytest.fail(f"fired {dict(faults.fired)}, made {[call.fault is None for call in fakes.calls()]}")
"""
)


def test_a_failure_says_how_to_repeat_it_and_what_happened(suite: pytest.Pytester) -> None:
    # given
    suite.makepyfile(test_shop=FLAKY)

    # when
    result = suite.runpytest("--holdfast-seed=5")

    # then
    result.assert_outcomes(failed=1)
    assert repeats(result) == ["test_shop.py::test_flaky", "--holdfast-seed=5"]
    result.stdout.fnmatch_lines(["*- holdfast -*", "repeat with: *", "", "*stripe*payments.create*reset*"])
    below = result.outlines[result.outlines.index(f"repeat with: pytest {shlex.join(repeats(result))}") :]
    assert len(below) < 70


def test_the_line_under_a_failure_brings_the_same_failure(suite: pytest.Pytester) -> None:
    # given
    suite.makepyfile(test_shop=FLAKY)
    suite.makepyfile(test_other=FLAKY)
    first = suite.runpytest("--holdfast-seed=5", "-k", "shop")

    # when
    again = suite.runpytest(*repeats(first))

    # then
    told = [line for line in first.outlines if line.startswith("E ")]
    assert "fired" in told[0]
    assert told == [line for line in again.outlines if line.startswith("E ")]
    assert told != [line for line in suite.runpytest("test_shop.py").outlines if line.startswith("E ")]


def test_the_line_is_for_the_directory_one_is_in(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    path = suite.makepyfile(test_shop=FLAKY)
    monkeypatch.chdir(suite.mkdir("sub"))
    assert repeats(suite.runpytest(str(path))) == ["../test_shop.py::test_flaky", "--holdfast-seed=0"]


def test_what_the_error_tells_is_not_told_again(suite: pytest.Pytester) -> None:
    # given
    suite.makepyfile(
        PAY
        + """
async def test_pays(fakes):
    async with client(fakes) as http:
        await pay(http)
    fakes.ledger.exactly_once(charge(reference="o2"))
"""
    )

    # when
    result = suite.runpytest()

    # then
    assert sum("capture of o1" in line for line in result.outlines) == 1
    assert len(repeats(result)) == 2


def test_a_test_that_used_no_fixture_of_ours_fails_as_ever(suite: pytest.Pytester) -> None:
    suite.makepyfile("def test_one(): assert 0")
    result = suite.runpytest()
    result.assert_outcomes(failed=1)
    assert not repeats_or_none(result)


def repeats_or_none(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "repeat with: pytest" in line]


def test_a_passed_test_says_nothing(suite: pytest.Pytester) -> None:
    suite.makepyfile("def test_one(fakes): fakes.stripe()")
    assert not repeats_or_none(suite.runpytest("-rA"))


def test_workers_of_xdist_tell_the_same(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_shop=FLAKY.replace("async def test", "@pytest.mark.xdist_group('g')\nasync def test"))
    result = suite.runpytest_subprocess("-n", "1", "--dist", "loadgroup", "--holdfast-seed=5")
    assert repeats(result) == ["test_shop.py::test_flaky", "--holdfast-seed=5"]


# What was planned


IDLE = (
    PAY
    + """
async def test_pays(fakes, faults):
    faults.on("stripe", "payments.refund").always(Status(503))
    faults.on("stripe", "payments.create").script(Reset(), None)
    async with client(fakes) as http:
        await pay(http)
    assert HOLDS
"""
)


def test_a_planned_fault_that_never_came_about_is_told(suite: pytest.Pytester) -> None:
    # given
    suite.makepyfile(test_held=IDLE.replace("HOLDS", "True"), test_failed=IDLE.replace("HOLDS", "False"))

    # when
    result = suite.runpytest()

    # then
    result.assert_outcomes(passed=1, failed=1)
    told = "planned, and never came about"
    below = [line for line in result.outlines if told in line or "payments.refund always" in line]
    assert [line.strip("= ") for line in below] == [
        f"{told}: stripe payments.refund always",
        f"holdfast: {told}",
        "test_held.py::test_pays: stripe payments.refund always",
    ]


def test_workers_of_xdist_tell_what_never_came_about(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_held=IDLE.replace("HOLDS", "True"))
    result = suite.runpytest_subprocess("-n", "1")
    result.stdout.fnmatch_lines(["test_held.py::test_pays: stripe payments.refund always"])


# Strictness


ELSEWHERE = """
import httpx
import pytest

{mark}
async def test_calls(fakes):
    async with httpx.AsyncClient(transport=fakes.httpx()) as http:
        try:
            await http.get("{url}")
        except Exception:
            pass
"""


@pytest.mark.parametrize(
    ("mark", "url", "told"),
    [
        ("", "https://api.example.org/", "api.example.org is no simulated vendor; there are: *stripe (api.stripe.com*"),
        (
            "@pytest.mark.holdfast(providers=['zoom'])",
            "https://api.stripe.com/v1/charges",
            "stripe is not among this test's providers: zoom",
        ),
    ],
)
def test_a_call_that_went_astray_fails_the_test_though_the_program_swallowed_the_error(
    suite: pytest.Pytester, mark: str, url: str, told: str
) -> None:
    suite.makepyfile(ELSEWHERE.format(mark=mark, url=url))
    result = suite.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E *NotSimulated: {told}"])


@pytest.mark.parametrize("url", ["https://api.example.org/", "https://api.stripe.com/v1/charges"])
def test_without_strictness_it_is_the_programs_affair(suite: pytest.Pytester, url: str) -> None:
    mark = "@pytest.mark.holdfast(providers=['zoom'], strict=False)"
    suite.makepyfile(ELSEWHERE.format(mark=mark, url=url))
    suite.runpytest().assert_outcomes(passed=1)


# The server


def test_the_server_shows_each_test_its_own_vendors_at_one_address(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
import httpx
import pytest
from holdfast.testing.faults import Status


@pytest.fixture(scope="session")
def sdk(fake_server):
    key = fake_server.credentials("stripe")["api_key"]
    with httpx.Client(base_url=fake_server.url("stripe"), auth=(key, ""), timeout=30, trust_env=False) as http:
        yield http


def test_one(sdk, fakes):
    assert sdk.get("/v1/charges").status_code == 200
    assert len(fakes.stripe().requests) == 1


@pytest.mark.asyncio(loop_scope="session")
async def test_two(sdk, fake_server, fakes, faults):
    faults.on("stripe").script(Status(503))
    assert sdk.get("/v1/charges").status_code == 503
    assert sdk.get("/v1/charges").status_code == 200
    assert fake_server.fakes is fakes
    assert fake_server.url("stripe") == str(sdk.base_url).rstrip("/") == fakes.stripe().base_url
    assert fake_server.url("zoom") != fake_server.url("stripe")


@pytest.mark.holdfast(providers=["zoom"])
def test_three(fake_server):
    with pytest.raises(AssertionError, match="not among"):
        fake_server.url("stripe")
    fake_server.fakes.strangers.clear()
"""
    )
    suite.runpytest().assert_outcomes(passed=3)


def test_the_server_and_virtual_time_do_not_go_together(suite: pytest.Pytester) -> None:
    suite.makepyfile("def test_one(vclock, fake_server): pass")
    result = suite.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fake_server keep real time*fakes.httpx()*"])


# Vendors of others


def test_a_simulator_that_any_package_brings_is_a_vendor_like_ours(suite: pytest.Pytester) -> None:
    # given
    site = suite.mkdir("site")
    (site / "acme_fake.py").write_text(
        "from holdfast.testing.simulators.simulator import Response, Simulator, route\n"
        "class AcmeSimulator(Simulator):\n"
        "    vendor = 'acme'\n"
        "    hosts = ('api.acme.example',)\n"
        "    @route('GET', '/things', 'things.list')\n"
        "    def things(self, request):\n"
        "        return Response.json({'things': []})\n"
    )
    metadata = site / "acme_fake-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-fake\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[holdfast.simulators]\nacme = acme_fake:AcmeSimulator\n")
    suite.syspathinsert(site)
    suite.makepyfile(
        """
import httpx
from holdfast.testing.faults import Status

async def test_acme(fakes, faults):
    faults.on("acme", "things.list").script(Status(503), None)
    async with httpx.AsyncClient(transport=fakes.httpx()) as http:
        answers = [await http.get("https://api.acme.example/things") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 200]
    assert len(fakes.vendor("acme").requests) == 1
    assert len(fakes.calls("acme", "things.list")) == 2
"""
    )

    # then
    suite.runpytest().assert_outcomes(passed=1)


# What it costs


def test_the_plugin_imports_nothing_of_the_kit() -> None:
    program = (
        "import pytest, sys, _pytest.config; before = set(sys.modules); import holdfast.testing.plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    found = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert [name for name in found if name.startswith("holdfast")] == [
        "holdfast",
        "holdfast.testing",
        "holdfast.testing.plugin",
    ]
    assert not {"asyncio", "httpx", "pydantic", "respx"} & {name.partition(".")[0] for name in found}


def test_nothing_else_imports_pytest() -> None:
    root = Path(holdfast.testing.__file__).parents[1]
    imports = re.compile(r"^\s*(?:import|from) _?pytest\b", re.MULTILINE)
    for_types_alone = re.compile(r"^if TYPE_CHECKING:\n(?:    .*\n|\n)+", re.MULTILINE)
    files = {str(path.relative_to(root)): for_types_alone.sub("", path.read_text()) for path in root.rglob("*.py")}
    assert {name for name, text in files.items() if imports.search(text)} == {"testing/plugin.py"}
