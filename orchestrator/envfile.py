"""`.env` and the process environment become Settings: the very values that the site would read."""

from __future__ import annotations

import errno
import io
import json
import logging
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import environ as django_environ
from dotenv.parser import parse_stream

from orchestrator.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

STORAGE, OPTIONS = "MEDIA_STORAGE", "MEDIA_STORAGE_OPTIONS"
_ENVIRONMENT = "the environment"
BIGGEST = 1 << 20  # bytes of a .env
WHICH = "Name the file that the site reads, with --env-file."
_FORM = {
    STORAGE: f"{STORAGE}=storages.backends.s3.S3Storage",
    OPTIONS: f"""{OPTIONS}='{{"bucket_name": "photos"}}'""",
}
# Lines of an unquoted private key can look like odd names: they are not to be passed on.
_PLAIN = re.compile(r"\w+", re.ASCII)
# Why the two readers part, in the order in which a reason hides the ones below it.
_REASONS = (
    (r"\ufeff", "the file starts with a byte order mark, which hides its first line from the site"),
    (r"[^\n]*\n", "it stands in a quoted value of several lines; the site reads line by line"),
    (r".*[\v\f\x1c-\x1e\x85\u2028\u2029]", "it holds a character that ends the line for the site"),
    (r"\s", "there is a space before the name"),
    (r"export(?! \w)", "`export` and the name must be parted by one space"),
    (r"[^=]*(\s=|=\s)", "there are spaces around '='"),
    (r"[^=]*['\"].*=", "the name stands in quotes"),
    (r"[^=]*='\".*\"'$", "of double quotes within single quotes the site takes off both"),
    (r"[^=]*='.*\\[\\'].*'$", r"the site keeps \\ and \' as they are; write \u005c and \u0027"),
    (r"[^=]*=\".*\\.*\"$", "in double quotes the site reads backslashes in its own way"),
    (r"[^=]*=.*\s#", "the site has no comments behind a value: they become a part of it"),
    (r".*\s$", "the site keeps the spaces at the end of the line"),
    (r"", "a quote is not closed, or more follows the closing quote"),
)


_TIPS = {
    FileNotFoundError: "Check the path of the file.",
    IsADirectoryError: "Docker makes a folder when the file to mount is missing: remove it.",
}
# django-environ logs the lines that it cannot read, and they may hold secrets.
logging.getLogger("environ.environ").addFilter(lambda _: False)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the site would use; `disputed` gives the line of names that the readers part on."""

    storage_class: str
    options: Mapping[str, Any] = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)
    disputed: Mapping[str, int] = field(repr=False)
    source: Path | None


class _Entry(NamedTuple):
    line: int
    name: str
    value: str
    raw: str


class _Value(NamedTuple):
    text: str
    where: str


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    lines: Sequence[str] = ()
    ours: Sequence[_Entry] = ()
    site: Sequence[_Entry] = ()

    def disputed(self) -> dict[str, int]:
        """Return each name whose value depends on the reader, with the last line they part on."""
        ours, site = _last(self.ours), _last(self.site)
        parted = {entry[:3] for entry in self.ours} ^ {entry[:3] for entry in self.site}
        return {name: line for line, name, _ in sorted(parted) if ours.get(name) != site.get(name)}


def read(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return what django-environ gives the site, or raise ConfigurationError with all problems.

    Without a path it reads the `.env` of the working folder, which may be missing.
    """
    problems: list[Problem] = []
    file = _file(path, problems)
    storage = _value(STORAGE, file, environ, problems)
    options = _options(_value(OPTIONS, file, environ, problems), problems)
    if problems or file is None or storage is None:
        raise ConfigurationError(*problems)
    ours, site = _last(file.ours), _last(file.site)
    disputed = {n: line for n, line in file.disputed().items() if n not in environ}
    values = {n: environ.get(n, v) for n, v in (ours | site).items() if n not in disputed}
    return Settings(
        storage_class=storage.text,
        options=MappingProxyType(options),
        variables=MappingProxyType({n: v for n, v in values.items() if n not in _FORM}),
        disputed=MappingProxyType({n: v for n, v in disputed.items() if _PLAIN.fullmatch(n)}),
        source=file.path if file.lines else None,
    )


def _file(path: Path | None, problems: list[Problem]) -> _File | None:
    """Return the file as both readers see it; without lines if only the default is missing."""
    where = path or Path(".env")
    if path is None and not where.exists():
        return _File(path=where)
    try:
        data = _read(where)
        text = io.StringIO(data.decode(), newline=None).read()
    except OSError as error:
        tip = _TIPS.get(type(error), "Check its owner and permissions.")
        tip = WHICH if error.errno == errno.EFBIG else tip
        problems.append(Problem(what=f"{where} cannot be read: {error.strerror}", tip=tip))
        return None
    except UnicodeDecodeError as error:
        bad = error.start
    else:
        bad = data.find(b"\0")  # The site stops at one: os.environ takes none.
    if bad < 0:
        lines = text.split("\n")
        return _File(path=where, lines=lines, ours=_by_dotenv(text), site=_by_site(lines))
    line = data.count(b"\n", 0, bad) + 1
    what = f"{where} line {line} is not UTF-8 text"
    problems.append(Problem(what=what, tip="Save the file as UTF-8."))
    return None


def _read(path: Path) -> bytes:
    """Return what a file holds; it may be a pipe, and one like /dev/zero has no end."""
    with path.open("rb") as file:
        data = file.read(BIGGEST + 1)
    if len(data) > BIGGEST:
        raise OSError(errno.EFBIG, "it is bigger than any .env")
    return data


def _by_dotenv(text: str) -> list[_Entry]:
    """Return the values as python-dotenv reads them with interpolate=False."""
    found = []
    for name, value, original, _ in parse_stream(io.StringIO(text)):
        raw = original.string.lstrip()
        line = original.line + original.string.removesuffix(raw).count("\n")
        if name is not None and value is not None:
            found.append(_Entry(line, name, value, raw.removesuffix("\n")))
    return found


def _by_site(lines: Sequence[str]) -> list[_Entry]:
    """Return the values as django-environ reads them, line by line to know where they stand."""
    found = []
    for number, line in enumerate(lines, 1):
        site = _site({})
        site.read_env(io.StringIO(line))
        found += [_Entry(number, name, value, line) for name, value in site.ENVIRON.items()]
    return found


def _site(variables: Mapping[str, str]) -> Any:
    """Return django-environ's Env over these variables, away from os.environ."""
    return type("Site", (django_environ.Env,), {"ENVIRON": dict(variables)})()


def _last(entries: Iterable[_Entry]) -> dict[str, str]:
    return {entry.name: entry.value for entry in entries}


def _value(
    name: str, file: _File | None, environ: Mapping[str, str], problems: list[Problem]
) -> _Value | None:
    """Return the value that both readers agree on and where it stands; None if there is none."""
    if name in environ:
        value = _Value(environ[name], _ENVIRONMENT)
    elif file is None:
        return None
    elif line := file.disputed().get(name):
        problems.append(_dispute(name, file, line))
        return None
    elif name in _last(file.site):
        entry = [entry for entry in file.site if entry.name == name][-1]
        value = _Value(entry.value, f"{file.path} line {entry.line}")
    else:
        problems.extend(_missing(name, file))
        return None
    if fault := _fault(name, value.text):
        problems.append(_problem(value.where, name, fault))
    return None if fault else value


def _problem(where: str, name: str, fault: str) -> Problem:
    tip = f"Put it on a line of its own, in this form: {_FORM[name]}"
    if where == _ENVIRONMENT:
        tip = "Mend it or unset it there (it wins over the file), and mount `.env` as a file."
    return Problem(what=f"{where}: {name} {fault}", tip=tip)


def _dispute(name: str, file: _File, line: int) -> Problem:
    spans = (e.raw for e in file.ours if e.line <= line <= e.line + e.raw.count("\n"))
    raw = next((span for span in spans if "\n" in span), file.lines[line - 1])
    why = next(why for pattern, why in _REASONS if re.match(pattern, raw))
    others = sorted({e.line for e in [*file.ours, *file.site] if e.name == name} - {line})
    also = f" (also set on line {', '.join(map(str, others))}; the last counts)" if others else ""
    return _problem(f"{file.path} line {line}", name, f"cannot be read safely: {why}{also}")


def _missing(name: str, file: _File) -> Iterator[Problem]:
    """Yield a problem if the name is needed, or stands there in a form that no reader takes."""
    mention = re.compile(rf"[^#\w]*(?:export\W+)?{name}(?!\w)", re.IGNORECASE)
    line = next((n for n, text in enumerate(file.lines, 1) if mention.match(text)), None)
    if line:
        yield _problem(f"{file.path} line {line}", name, "stands there, but not as NAME=value")
    elif name == STORAGE:
        where = str(file.path) if file.lines else "There is no .env in this folder"
        yield _problem(where, name, "is set neither there nor in the environment")


def _fault(name: str, value: str) -> str:
    """Return what makes a value unusable that both readers agree on, or an empty string."""
    if not value.strip():
        return "is empty"
    if value.startswith("$") or _site({name: value}).str(name) != value:
        return "starts with $: the site would use another variable in its place"
    if value[0] in "'\"" and value[0] == value[-1]:
        return "has its quotes in the value: `docker run --env-file` keeps them, so mount the file"
    return ""


def _options(value: _Value | None, problems: list[Problem]) -> dict[str, Any]:
    """Return the JSON object; each key once and each number finite, unlike json.loads."""
    if value is None:
        return {}
    faults: list[str] = []
    parsed = _json(value.text, faults)
    if not faults and not isinstance(parsed, dict):
        faults.append(f"is JSON, but not an object: {type(parsed).__name__}")
    problems.extend(_problem(value.where, OPTIONS, fault) for fault in faults)
    return parsed if isinstance(parsed, dict) else {}


def _json(text: str, faults: list[str]) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        count = Counter(key for key, _ in pairs)
        faults.extend(f"has the key {json.dumps(k)} {n} times" for k, n in count.items() if n > 1)
        return dict(pairs)

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            faults.append("holds a number that is not finite (NaN, Infinity or too large)")
        return float(number)

    try:
        return json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except json.JSONDecodeError as error:
        faults.append(f"is broken JSON at {_place(text, error.pos)}: {error.msg}")
    except (ValueError, RecursionError):
        faults.append("holds a number that is too long, or is nested too deeply")
    return None


def _place(text: str, position: int) -> str:
    """Return a place in the JSON by its structure only: values are secrets."""
    keys = re.findall(r'"(\w+)"\s*:', text[:position])
    after = f', after the key "{keys[-1]}"' if keys else ""
    return f"character {position + 1} of the value{after}"
