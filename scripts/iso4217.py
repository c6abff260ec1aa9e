"""Write src/holdfast/iso4217.py from a published ISO 4217 list one: python scripts/iso4217.py list-one.xml."""

import sys
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

TARGET: Final = Path(__file__).parents[1] / "src" / "holdfast" / "iso4217.py"
WIDTH: Final = 120
NO_MINOR_UNIT: Final = "N.A."  # gold, bond units, drawing rights, testing: nobody can be charged in them

TEMPLATE: Final = '''"""ISO 4217: how many decimals each active currency has; written by scripts/iso4217.py."""

from typing import Final

PUBLISHED: Final = "{published}"

# fmt: off
EXPONENTS: Final[dict[str, int]] = {{
{cells}
}}
# fmt: on
'''


def read(xml: str | bytes) -> tuple[str, dict[str, int]]:
    """The date of the list, and the minor unit of every currency somebody can be charged in."""
    root = ElementTree.fromstring(xml)
    exponents: dict[str, int] = {}
    for entry in root.iterfind("CcyTbl/CcyNtry"):
        code, minor_unit = entry.findtext("Ccy"), entry.findtext("CcyMnrUnts")
        if code is None or minor_unit is None or minor_unit == NO_MINOR_UNIT:  # Antarctica has no currency at all
            continue
        if exponents.setdefault(code, int(minor_unit)) != int(minor_unit):
            raise ValueError(f"the list gives {code} two minor units: {exponents[code]} and {minor_unit}")
    return root.attrib["Pblshd"], dict(sorted(exponents.items()))


def write(published: str, exponents: dict[str, int]) -> str:
    """The text of the module, cells packed into as few lines as fit."""
    lines = [""]
    for cell in (f'"{code}": {digits},' for code, digits in exponents.items()):
        line = f"{lines[-1]} {cell}" if lines[-1] else f"    {cell}"
        if len(line) <= WIDTH:
            lines[-1] = line
        else:
            lines.append(f"    {cell}")
    return TEMPLATE.format(published=published, cells="\n".join(lines))


def generate(xml: str | bytes) -> str:
    """The module that belongs to this list."""
    return write(*read(xml))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    TARGET.write_text(generate(Path(sys.argv[1]).read_bytes()), encoding="utf-8")
