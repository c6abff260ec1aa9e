"""What happened, as one page for a browser: no script, nothing from elsewhere, no secrets."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from holdfast.testing.timeline import Timeline

if TYPE_CHECKING:
    from holdfast.testing.simulators.server import Server

_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { max-width: 80rem; margin: 1.5rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin-bottom: 2rem }
caption { text-align: left; font-weight: 600; font-size: 1.15rem; padding: .4rem 0 }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #8884 }
td { overflow-wrap: anywhere }
td.right { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
"""


def page(server: "Server", *, last: int) -> str:
    """The vendors, the last of the timeline and of the ledger, and which faults fired."""
    redact = server.journal.redact
    vendors = [(name, served.url) for name, served in server.vendors.items()]
    timeline = Timeline(server.journal).lines()
    happened = [
        (f"{seconds:+.3f} s", line.kind, line.vendor, redact(line.what), redact(line.outcome))
        for seconds, line in timeline[-last:]
    ]
    entries = list(server.ledger)
    booked = [
        (f"{entry.number}", entry.kind, entry.vendor, redact(entry.key), str(entry.money or ""), redact(entry.id))
        for entry in entries[-last:]
    ]
    fired = [(name, f"{times}") for name, times in sorted(server.faults.fired.items())]
    forgotten = server.journal.forgotten + len(timeline) - len(happened)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Simulated vendors</title><style>{_STYLE}</style></head><body>",
        f"<h1>Simulated vendors</h1><p>Seed {server.seed}. <a href='/__fake/'>All doors</a></p>",
        _table("Vendors", ("Vendor", "Address"), vendors),
        _table(_some("Timeline", len(happened), forgotten), ("Time", "Kind", "Vendor", "What", "Outcome"), happened),
        _table(
            _some("Ledger", len(booked), len(entries) - len(booked)),
            ("Number", "Kind", "Vendor", "Key", "Money", "Id"),
            booked,
        ),
        _table("Faults that fired", ("Fault", "Times"), fired),
        "</body></html>",
    ]
    return "\n".join(parts)


def _some(what: str, shown: int, left_out: int) -> str:
    return f"{what}, the last {shown} ({left_out} earlier left out)" if left_out else what


def _table(caption: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(_cell(name, text) for name, text in zip(names, row, strict=True))}</tr>" for row in rows
    )
    nothing = f"<tr><td colspan='{len(names)}'>nothing yet</td></tr>"
    caption = f"<caption>{escape(caption)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body or nothing}</tbody></table>"


def _cell(name: str, text: str) -> str:
    right = " class='right'" if name in ("Time", "Number", "Times", "Money") else ""
    return f"<td{right}>{escape(text)}</td>"
