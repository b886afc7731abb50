"""Write what becomes of each option into docs/storages/FAMILY.md, between two marks.

python scripts/storage_docs.py           # write
python scripts/storage_docs.py --check   # fail if a page is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.fates import describe
from orchestrator.progress import human
from orchestrator.template import Fields, Option, Rule, Template, load_all

FOLDER = Path(__file__).parent.parent / "docs" / "storages"
START = "<!-- made by scripts/storage_docs.py from rclone_templates; do not edit below -->"


def generated(template: Template) -> str:
    lines = [START, "", "## Every option, and what becomes of it", ""]
    lines += [f"Classes: {', '.join(f'`{name}`' for name in template.classes)}.", ""]
    lines += ["| option | what becomes of it |", "|---|---|", *_rows(template.options)]
    if template.django_settings:
        names = ", ".join(f"`{name}`" for name in template.django_settings)
        lines += ["", f"## Read in {names}, and from the driver made of it", ""]
        lines += ["| key | what becomes of it |", "|---|---|", *_rows(template.derived)]
    if template.parameters:
        lines += ["", "## What an object may have beside its bytes", ""]
        lines += ["| parameter | what becomes of it |", "|---|---|", *_rows(template.parameters)]
    if template.differs:
        lines += ["", "## Declared differences", "", "To what Django itself would have stored:", ""]
        lines += [f"* {what}: {why}" for what, why in template.differs.items()]
    if sizes := list(_sizes(template)):
        lines += ["", "## The largest object", "", *sizes]
    if site := [note.says for rule in template.rules for note in rule.site]:
        lines += ["", "## What the site will meet", "", *(f"* {text}" for text in site)]
    return "\n".join(lines) + "\n"


def _sizes(template: Template) -> Iterator[str]:
    """Yield a line for each limit; rules of one name have one."""
    found: dict[str, Template | Rule] = {"": template}
    found |= {rule.name: rule for rule in template.rules if rule.largest or rule.largest_saved}
    for name, at in found.items():
        of = f"{name}: " if name else ""
        if at.largest:
            yield f"* {of}{human(at.largest.bytes)} ({at.largest.source})"
        if saved := at.largest_saved:
            most = human(saved.bytes) if saved.bytes else f"{saved.parts:,} times `{saved.part}`"
            yield f"* {of}saved by the class: {most} ({saved.source})"


def _rows(options: Mapping[str, Option], prefix: str = "") -> Iterator[str]:
    for name, option in options.items():
        words = "; ".join(describe(f) for f in option.fates if not isinstance(f, Fields))
        yield f"| `{prefix}{name}` | {(words or 'its fields:').replace('|', chr(92) + '|')} |"
        for fate in option.fates:
            if isinstance(fate, Fields):
                yield from _rows(fate.options, f"{prefix}{name}.")


def page(template: Template) -> tuple[Path, str]:
    """Return the page's path and the text that it should have."""
    path = FOLDER / f"{template.family}.md"
    own = path.read_text(encoding="utf-8") if path.exists() else f"# {template.title}\n\n"
    return path, own.partition(START)[0] + generated(template)


def main() -> int:
    stale = []
    for template in load_all():
        path, text = page(template)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    print(f"{'out of date' if '--check' in sys.argv else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
