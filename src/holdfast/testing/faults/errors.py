"""What is wrong with a plan, said before anything runs."""

from collections.abc import Iterable

from holdfast.errors import InvalidInput


class InvalidPlan(InvalidInput):
    """A plan, a scenario or a file of one says something that is not in the language."""

    def __init__(
        self, *, found: str, allowed: str, file: str = "", line: int | None = None, path: str = "", more: int = 0
    ) -> None:
        place = ", ".join(part for part in (file, f"line {line}" if line else "", path) if part)
        also = f" (and {more} more)" if more else ""
        super().__init__(f"{place or 'plan'}: found {found}; allowed: {allowed}{also}")
        self.file = file
        self.line = line
        self.path = path
        """Where in it, as `rules[0].plan.kind`."""
        self.found = found
        self.allowed = allowed


class UnknownOperation(InvalidInput, LookupError):
    """A rule is about an operation that the vendor's simulator does not have: it would never strike."""

    def __init__(self, vendor: str, operation: str, known: Iterable[str]) -> None:
        self.vendor = vendor
        self.operation = operation
        self.known = tuple(sorted(known))
        super().__init__(f"{vendor} has no operation {operation!r} to plan faults for; it has {', '.join(self.known)}")


class NotAValue(InvalidInput, TypeError):
    """A plan is a function of your own, which cannot be written down."""

    def __init__(self, vendor: str, operation: str) -> None:
        super().__init__(
            f"the plan for {vendor} {operation} is a function of your own and no value: "
            "say it with script, rate, every, first, always or at, and when=Match(...)"
        )
        self.vendor = vendor
        self.operation = operation
