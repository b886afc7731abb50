"""Say in words what becomes of each option of a storage class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.errors import ConfigurationError
from orchestrator.storage import LISTED, supported
from orchestrator.template import (
    Direct,
    Fate,
    Fields,
    Flag,
    Header,
    Ignore,
    Key,
    Option,
    Refuse,
    Root,
    Ruled,
    Tell,
    Upload,
    load_all,
)


def classes() -> Iterator[str]:
    for template in load_all():
        yield f"{template.title} (rclone: {template.rclone_type})"
        yield from (f"  {dotted}" for dotted in template.classes)


def options(dotted: str) -> Iterator[str]:
    """Yield a line an option, then a line an object parameter."""
    known = supported()
    if dotted not in known:
        raise ConfigurationError(f"{dotted} is not supported", tip=LISTED)
    template = known[dotted]
    yield f"{dotted}: {template.title}"
    yield from _lines(template.options)
    if template.django_settings:
        yield f"read in {', '.join(template.django_settings)}, and from the driver made of it:"
        yield from _lines(template.derived)
    if template.parameters:
        yield "what an object may have beside its bytes:"
        yield from _lines(template.parameters)
    if template.differs:
        yield "declared differences to what Django would have stored:"
        yield from (f"  {what}: {why}" for what, why in template.differs.items())


def _lines(found: Mapping[str, Option], indent: str = "  ") -> Iterator[str]:
    width = max(map(len, found))
    for name, option in found.items():
        fates = [fate for fate in option.fates if not isinstance(fate, Fields)]
        words = "; ".join(map(describe, fates)) or "its fields:"
        yield f"{indent}{name:<{width}}  {words}"
        for fate in option.fates:
            if isinstance(fate, Fields):
                yield from _lines(fate.options, indent + "  ")


def describe(fate: Fate) -> str:  # noqa: C901, PLR0911  # one case a fate
    match fate:
        case Key(name):
            return f"translated: {name} of the remote"
        case Flag(name):
            return f"translated: rclone --{name}"
        case Header(name, many=True):
            return f"translated: one header {name}… for each item"
        case Header(name):
            return f"translated: header {name}"
        case Root():
            return "translated: part of the remote's path"
        case Ruled(what):
            return f"translated: {what}"
        case Upload():
            return "translated: the class says for each file what it means"
        case Direct(reason):
            return f"such files are saved through the class: {reason}"
        case Ignore(reason):
            return f"no effect on stored objects: {reason}"
        case Refuse(reason):
            return f"refused, unless left at its default: {reason}"
        case Tell(words):
            return f"told: {words}"
        case Fields():
            return "its fields"
