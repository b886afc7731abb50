"""Write the licences of all that requirements.lock installs into docs/licences.md.

python scripts/licences.py           # write
python scripts/licences.py --check   # fail if the page is out of date
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK, PAGE = ROOT / "requirements.lock", ROOT / "docs" / "licences.md"
START = "<!-- made by scripts/licences.py from installed packages; do not edit below -->"
ELSEWHERE = {"tzdata": "Apache-2.0"}  # installed on Windows only
VAGUE = ("UNKNOWN", "Dual License", "BSD", "")
LONGEST = 30  # characters of the name of a licence; some packages give its whole text
COPYLEFT = re.compile(r"GPL|MPL|Mozilla|EUPL|CDDL|EPL|OSL")


def locked() -> dict[str, str]:
    """Return the version of each package in the lock."""
    text = LOCK.read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))


def licence(name: str) -> str:
    """Return the licence of a package in its own words."""
    try:
        return _stated(distribution(name))
    except PackageNotFoundError:
        return ELSEWHERE[name]


def _stated(package: Distribution) -> str:
    fields = package.metadata
    if "License-Expression" in fields:
        return fields["License-Expression"]
    said = "".join(fields.get_all("License") or [])
    if said not in VAGUE and len(said) < LONGEST:
        return said
    classifiers = fields.get_all("Classifier") or []
    found = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License")]
    return " or ".join(found)


def generated() -> str:
    rows = (f"| {name} | {licence(name)}{_mark(licence(name))} |" for name in sorted(locked()))
    return "\n".join([START, "", "| package | licence |", "|---|---|", *rows, ""])


def _mark(stated: str) -> str:
    return " **(copyleft)**" if COPYLEFT.search(stated) else ""


def copyleft() -> Iterator[str]:
    """Yield the packages whose licence asks for something in return."""
    yield from (name for name in sorted(locked()) if COPYLEFT.search(licence(name)))


def main() -> int:
    own = PAGE.read_text(encoding="utf-8").partition(START)[0]
    text = own + generated()
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
