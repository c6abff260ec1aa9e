"""The tree of exceptions is the one its module draws; each one survives a pickle, and its text helps."""

import copy
import inspect
import pickle
import re
from collections.abc import Iterator

import pytest

from holdfast import errors
from holdfast.errors import CallFailed, Exhausted, HoldfastError, NotSent, Throttled
from holdfast.outcome import Cause

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HoldfastError)]

EXAMPLES: dict[type[HoldfastError], HoldfastError] = {
    errors.MissingCredential: errors.MissingCredential(variables={"SBP_API_KEY": "the API key"}),
    errors.MissingExtra: errors.MissingExtra("qr"),
    errors.UnknownCurrency: errors.UnknownCurrency("CHX"),
    errors.InvalidReference: errors.InvalidReference("a b"),
    errors.NaiveDatetime: errors.NaiveDatetime("starts_at"),
    errors.Exhausted: errors.Exhausted(
        "create", (NotSent("a: down", provider="a"), Throttled("b: slow", provider="b"))
    ),
    errors.ReferenceConflict: errors.ReferenceConflict("payment", "order-1", "120.00 CHF"),
    errors.NotFound: errors.NotFound("payment", "order-1"),
    errors.AlreadyHandled: errors.AlreadyHandled("PaymentPaid:order-1", "confirm"),
    errors.CallInsideTransaction: errors.CallInsideTransaction("zoom create"),
    errors.RetryLater: errors.RetryLater("the room is taken", after=30),
    errors.SchemaTooNew: errors.SchemaTooNew(3, 2),
    errors.VersionConflict: errors.VersionConflict("payment", "order-1"),
    errors.AlreadyReplayed: errors.AlreadyReplayed("7", 2),
    errors.LeaseLost: errors.LeaseLost("job 7"),
    errors.Unreadable: errors.Unreadable("job 7"),
    errors.UnknownKey: errors.UnknownKey("job 7", "3f9a1c02"),
    errors.Forgotten: errors.Forgotten("job 7", "order-1"),
}


def example(kind: type[HoldfastError]) -> HoldfastError:
    if issubclass(kind, CallFailed):
        return kind(
            "it failed",
            provider="zoom",
            operation="create",
            status=500,
            code="300",
            reason="host_quota",
            retry_after=7.5,
            request_id="abc",
            local=True,
            hard=True,
        )
    return EXAMPLES.get(kind) or kind("it failed")


def drawn() -> Iterator[tuple[str, str | None, str | None]]:
    """Every line of the drawing: the class, the one it hangs on, and the further base in parentheses."""
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"([│ ]*(?:[├└]── )?)(\w+)(?: \((\w+)\))?(?: {2,}.*)?", line)
        if found and found[2] in dir(errors):
            depth = len(found[1]) // 4
            del path[depth:]
            yield found[2], path[-1] if path else None, found[3]
            path.append(found[2])


def test_the_tree_drawn_is_the_tree() -> None:
    tree = {name: (parent, mixin) for name, parent, mixin in drawn()}

    assert set(tree) == {kind.__name__ for kind in CLASSES}
    for kind in CLASSES:
        parent, mixin = tree[kind.__name__]
        bases = [base.__name__ for base in kind.__bases__]
        assert bases[0] == (parent or "Exception")
        assert mixin is None or mixin in bases


def test_every_class_says_in_a_sentence_what_happened() -> None:
    for kind in CLASSES:
        own = kind.__doc__
        assert own
        assert own.strip().endswith("."), kind
        assert not any(own == base.__doc__ for base in kind.__bases__), kind


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_a_pickle_with_all_it_knows(kind: type[HoldfastError], protocol: int) -> None:
    error = copy.copy(example(kind))
    error.add_note("not tried again: no time left")
    error.add_note("second")

    again = pickle.loads(pickle.dumps(error, protocol))

    assert type(again) is kind
    assert again.__notes__ == ["not tried again: no time left", "second"]
    assert (str(again), again.args) == (str(error), error.args)
    assert {name: repr(value) for name, value in vars(again).items()} == {
        name: repr(value) for name, value in vars(error).items()
    }


def test_an_exhausted_groups_failures_survive_a_pickle_with_theirs() -> None:
    inner = Throttled("slow down", provider="zoom", retry_after=3)
    inner.add_note("not tried again")

    again = pickle.loads(pickle.dumps(Exhausted("create", (inner, NotSent("down", provider="jaas")))))

    assert [type(each) for each in again.failures] == [Throttled, NotSent]
    assert again.failures[0].retry_after == 3
    assert again.failures[0].__notes__ == ["not tried again"]


def test_a_copy_does_not_share_its_notes() -> None:
    error = NotSent("down")
    error.add_note("first")

    copy.copy(error).add_note("second")

    assert error.__notes__ == ["first"]


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_its_exception_and_knows_it(cause: Cause) -> None:
    error = CallFailed.of(cause, "it failed", provider="zoom", status=500)

    assert error.cause is cause
    assert type(error) is not CallFailed
    assert (str(error), error.provider, error.status) == ("it failed", "zoom", 500)


def test_an_exhausted_group_may_be_tried_again_when_the_first_of_them_may() -> None:
    failures = (Throttled("a", retry_after=9), Throttled("b", retry_after=4), NotSent("c"))

    assert Exhausted("create", failures).retry_after == 4
    assert Exhausted("create", (NotSent("c"), NotSent("d"))).retry_after is None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (errors.MissingExtra, ['pip install "holdfast[qr]"']),
        (errors.UnknownCurrency, ["'CHX'", "ISO 4217"]),
        (errors.InvalidReference, ["'a b'", "1 to 64"]),
        (errors.NaiveDatetime, ["starts_at", "tzinfo"]),
        (errors.Exhausted, ["create", "a: down", "b: slow"]),
        (errors.ReferenceConflict, ["payment order-1", "120.00 CHF", "use another reference"]),
        (errors.NotFound, ["payment order-1"]),
        (errors.AlreadyHandled, ["confirm", "PaymentPaid:order-1"]),
        (errors.CallInsideTransaction, ["zoom create", "before or after"]),
        (errors.RetryLater, ["the room is taken", "30 s"]),
        (errors.SchemaTooNew, ["3", "2", "upgrade"]),
        (errors.VersionConflict, ["payment order-1", "read it again"]),
        (errors.AlreadyReplayed, ["job 7", "generation 2"]),
        (errors.LeaseLost, ["job 7"]),
        (errors.Unreadable, ["job 7"]),
        (errors.UnknownKey, ["job 7", "3f9a1c02"]),
        (errors.Forgotten, ["job 7", "order-1"]),
    ],
)
def test_a_message_names_the_thing_and_the_way_out(kind: type[HoldfastError], words: list[str]) -> None:
    text = str(example(kind))

    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [(errors.InvalidMoney, ValueError), (errors.MissingExtra, ImportError), (errors.NotFound, LookupError)],
)
def test_some_are_also_what_pythons_own_habits_expect(kind: type[HoldfastError], builtin: type[Exception]) -> None:
    assert issubclass(kind, builtin)
