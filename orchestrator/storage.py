"""The real storage class: loaded, its options in effect, and what save(name) would store."""

from __future__ import annotations

import difflib
import json
import marshal
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from orchestrator.clients import Client, client, entry
from orchestrator.envfile import Settings
from orchestrator.errors import ConfigurationError, Problem, TemplateError
from orchestrator.known import problem, recognise
from orchestrator.redact import Redactor, redactor, texts
from orchestrator.template import (
    Defect,
    Direct,
    Fields,
    Header,
    Key,
    Option,
    Refuse,
    Rule,
    Template,
    load_all,
)

VARIABLE = "MEDIA_STORAGE"
PLAIN = ("x", "y/2.jpg", "Photos/2024/z")  # names that no class has a reason to change
UPLOADS = 1000  # translations that are kept
LISTED = "`media-orchestrator storages` lists the classes that are supported"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Under which rclone headers and remote keys an object is stored as save() would store it.

    `direct` says why rclone cannot do it; such a file is saved through the class.
    """

    headers: tuple[str, ...] = ()
    config: tuple[tuple[str, str], ...] = ()
    content_type: str = ""
    packed: bool = False
    direct: str = ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A storage object of the site's own class, and the template of its family."""

    dotted: str
    given: Mapping[str, Any]
    template: Template
    storage: Any

    @cached_property
    def client(self) -> Client:
        return client(self.template.family, self.storage)

    def fresh(self, given: Mapping[str, Any] | None = None) -> Target:
        """Return the same with a new storage object: none is shared between threads."""
        options = self.given if given is None else given
        storage = type(self.storage)(**options)
        return Target(dotted=self.dotted, given=options, template=self.template, storage=storage)

    @cached_property
    def options(self) -> dict[str, Any]:
        """The values in effect: of `.env`, the environment, a subclass, or the class's default."""
        return {name: self._effective(name, o) for name, o in self._all_options().items()}

    def _all_options(self) -> dict[str, Option]:
        return {**self.template.options, **self.template.derived}

    def _effective(self, name: str, option: Option) -> Any:
        """Return the option as the storage object has it, or as `client.…` finds it out."""
        if not option.ask:
            return getattr(self.storage, name, None)
        return ask(self if option.ask.startswith("client.") else self.storage, option.ask)

    @cached_property
    def rule(self) -> Rule:
        """The first rule of the template that these options match."""
        return next(rule for rule in self.template.rules if rule.matches(self.options))

    @cached_property
    def beyond_rclone(self) -> tuple[re.Pattern[str], ...]:
        """What in a name rclone cannot carry."""
        return tuple(p for p in (self.template.names.direct, self.rule.direct) if p)

    @property
    def defects(self) -> tuple[Defect, ...]:
        return (*self.rule.defects, *self.template.defects)

    @cached_property
    def redact(self) -> Redactor:
        return redactor(secrets(self.template, self.given, self.options))

    @cached_property
    def redact_given(self) -> Redactor:
        """Hides what `.env` gives, while the values in effect cannot be had."""
        return redactor(secrets(self.template, self.given, {}))

    @cached_property
    def prefix(self) -> str:
        """What the class puts before every name; '' where it differs from name to name."""
        found = self.key("x").removesuffix("x")
        return found if all(self.key(name) == found + name for name in PLAIN) else ""

    def key(self, name: str) -> str:
        """Return the key that Django uses for `name`; raise what Django raises."""
        from storages.utils import clean_name

        asked = self.template.asked
        cleaned: str = clean_name(name) if asked.clean else name
        key = getattr(self.storage, asked.key)(cleaned) if asked.key else cleaned
        within = ask(self.storage, asked.within) + "/" if asked.within else ""
        return cast("str", key.removeprefix(within))

    def upload(self, key: str) -> Upload:
        """Ask the class about each key; equal answers are translated once."""
        parameters = self.said(key)
        packed = self._packs(parameters)
        try:
            # Only what is of exactly a built-in type has this form: equal bytes, equal parameters.
            form = marshal.dumps((packed, cast("dict[str, Any]", parameters)), 0)
        except ValueError:
            return _upload(self.template, parameters, packed=packed)
        if form not in self._uploads:
            if len(self._uploads) == UPLOADS:
                self._uploads.clear()
            self._uploads[form] = _upload(self.template, parameters, packed=packed)
        return self._uploads[form]

    @cached_property
    def _uploads(self) -> dict[bytes, Upload]:
        return {}

    def parameters(self, key: str) -> Mapping[str, Any]:
        """Return what save() would say about the object beside its bytes."""
        found = {n: v for n, v in self.said(key).items() if not self.template.dropped(n)}
        compress = self.template.asked.compress
        if compress and self._packs(found):
            found[compress.encoding] = "gzip"
        return found

    def said(self, key: str) -> Mapping[str, Any]:
        asked = self.template.asked.parameters
        if not asked:
            return self.client.parameters(key)
        return cast("Mapping[str, Any]", getattr(self.storage, asked)(key, None))

    def _packs(self, parameters: Mapping[str, Any]) -> bool:
        compress = self.template.asked.compress
        return bool(
            compress
            and self.storage.gzip
            and parameters[compress.type] in self.storage.gzip_content_types
            and compress.encoding not in parameters
        )

    def unpacks(self, key: str) -> bool:
        """Say whether open() unpacks what was packed before it came here."""
        asked = self.template.asked
        if asked.unpacks:
            return self.said(key).get(asked.unpacks) == "gzip"
        return bool(asked.compress and self.storage.gzip)

    @contextmanager
    def packed(self, path: Path) -> Iterator[BinaryIO]:
        """Open what the class makes of a local file that it compresses."""
        from django.core.files.base import File

        assert self.template.asked.compress  # noqa: S101  # else no row is packed
        with path.open("rb") as file:
            yield getattr(self.storage, self.template.asked.compress.ask)(File(file))

    def save(self, name: str, path: Path) -> None:
        """Store one file through the class; unlike save(), never under another name."""
        from django.core.files.base import File

        for attribute, value in self.template.asked.saving.items():
            setattr(self.storage, attribute, value)
        with path.open("rb") as file:
            saved = self.storage._save(name.replace("\\", "/"), File(file, name=name))
        if self.key(saved) != self.key(name):
            self.storage.delete(saved)
            raise FileExistsError(f"the class will not replace {name}; delete it in the store")


def _upload(template: Template, parameters: Mapping[str, Any], *, packed: bool) -> Upload:
    headers: list[str] = []
    config: list[tuple[str, str]] = []
    direct = "the class compresses it" if packed else ""
    for name, value in sorted(parameters.items()):
        for fate in template.parameters[name].fates:
            match fate:
                case Header(prefix, many=True):
                    headers += [f"{prefix}{k}: {v}" for k, v in sorted((value or {}).items())]
                case Header(header) if value not in (None, ""):
                    headers.append(f"{header}: {value}")
                case Key(key, transform) if (text := transform(value)) is not None:
                    config.append((key, text))
                case Direct(reason, transform) if transform(value) is not None:
                    direct = direct or f"{name}: {reason}"
    if not all(h.isascii() and h.isprintable() for h in headers):
        direct = direct or "a header that is not ASCII"
    content_type = next((h[14:] for h in headers if h.startswith("Content-Type: ")), "")
    return Upload(
        headers=tuple(headers),
        config=tuple(config),
        content_type=content_type,
        packed=packed,
        direct=direct,
    )


def ask(thing: Any, path: str) -> Any:
    """Follow `a.b().c` from a storage object; None ends it early, a mapping is looked up.

    `$NAME` is a variable of the environment, for what an SDK takes from there; a step that ends
    with `?` need not be there.
    `self` is the storage object, for transforms that need more than one of its attributes.
    """
    if path.startswith("$"):
        return os.environ.get(path[1:])
    for step in path.split(".") if path != "self" else ():
        name = step.removesuffix("?").removesuffix("()")
        if thing is None or (step.endswith("?") and not hasattr(thing, name)):
            return None
        if isinstance(thing, Mapping):
            thing = thing.get(name)
            continue
        if not hasattr(type(thing), name) and not hasattr(thing, name):
            raise TemplateError(f"{type(thing).__name__} has no {name} any more (asked for {path})")
        thing = getattr(thing, name)
        thing = thing() if step.endswith("()") else thing
    return thing


def secrets(
    template: Template, given: Mapping[str, Any], options: Mapping[str, Any]
) -> Iterator[str]:
    """Yield every text that may not leave the process."""
    marked = {**template.options, **template.derived}
    both = (level for values in (given, options) for level in _levels(marked, values))
    for _, known, values in both:
        for name, value in values.items():
            if name in known and known[name].secret:
                yield from texts(value)
            if isinstance(value, Mapping):
                yield from (
                    t for n, v in value.items() if _is_secret(template, n) for t in texts(v)
                )


def _levels(
    known: Mapping[str, Option], options: Mapping[str, Any], where: str = ""
) -> Iterator[tuple[str, Mapping[str, Option], Mapping[str, Any]]]:
    """Yield the options, then those inside of each that is a dictionary."""
    yield where, known, options
    for name, value in options.items():
        for fate in known[name].fates if name in known else ():
            if isinstance(fate, Fields) and isinstance(value, Mapping):
                yield from _levels(fate.options, value, f"{where}{name}.")


def _is_secret(template: Template, name: str) -> bool:
    return name in template.parameters and template.parameters[name].secret


def load(settings: Settings) -> Target:
    """Make the storage object of `.env`; raise ConfigurationError with all that is wrong."""
    _configure_django(settings)
    cls = _import(settings.storage_class)
    template = _template(cls, settings.storage_class)
    found = entry(template.family, settings.options)
    _refuse_before(template, {**settings.options, **found})
    problems = [*_unknown(template, settings.options), *_given(template, settings.options)]
    problems += [*_disputed(template, settings), *_unread(template, found)]
    known = {k: v for k, v in settings.options.items() if k in template.options}
    try:
        storage = cls(**known)
    except Exception as error:  # noqa: BLE001  # whatever the class makes of the user's values
        blamed = culprits(template, known, lambda options: cls(**options), error)
        problems.append(_unusable(template, settings, found, error, blamed))
    if problems:
        raise ConfigurationError(*problems)
    return Target(
        dotted=settings.storage_class, given=settings.options, template=template, storage=storage
    )


def supported() -> dict[str, Template]:
    return {dotted: template for template in load_all() for dotted in template.classes}


def _configure_django(settings: Settings) -> None:
    """Give Django the settings that a class reads, where `.env` holds them in their own shape."""
    from django.conf import settings as django_settings

    values = {**os.environ, **settings.variables}
    found = {
        name: _setting(name, kind, values[name])
        for template in load_all()
        for name, kind in template.django_settings.items()
        if name in values
    }
    if not django_settings.configured:
        django_settings.configure(USE_TZ=True, **found)


def _setting(name: str, kind: str, value: str) -> Any:
    if kind != "json":
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", "it holds a number that is too long, or is nested too deeply")
        what = f"{name} is not JSON: {why}"
        raise ConfigurationError(
            what, tip="write it as one line of JSON in single quotes"
        ) from error


def _import(dotted: str) -> Any:
    from django.utils.module_loading import import_string

    try:
        return import_string(dotted)
    except (Exception, SystemExit) as error:  # a module may be a script
        raise ConfigurationError(_not_imported(dotted, error)) from error


def _not_imported(dotted: str, error: BaseException) -> Problem:
    known = supported()
    if dotted in known:
        extra = known[dotted].extra
        return Problem(
            what=f"{VARIABLE}={dotted}: its Python package is not installed ({error})",
            tip=f"pip install 'media-orchestrator[{extra}]'",
        )
    close = difflib.get_close_matches(dotted, known, n=1, cutoff=0.8)
    return Problem(
        what=f"{VARIABLE}={dotted}: there is no such class ({error})",
        tip=f"did you mean {close[0]}?" if close else LISTED,
    )


def _template(cls: Any, dotted: str) -> Template:
    for base in getattr(cls, "__mro__", ()):
        path = f"{base.__module__}.{base.__qualname__}"
        for template in load_all():
            if path in template.refused_classes:
                what = f"{VARIABLE}={dotted}: {template.refused_classes[path]}"
                raise ConfigurationError(what, tip=LISTED)
            if path in template.classes:
                return template
    what = f"{VARIABLE}={dotted}: this class and its bases are not supported"
    raise ConfigurationError(what, tip=LISTED)


def _unknown(template: Template, options: Mapping[str, Any]) -> Iterator[Problem]:
    for where, known, values in _levels(template.options, options):
        for name in values.keys() - known.keys():
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            yield Problem(
                what=f"{VARIABLE}_OPTIONS: the class has no option {where + name!r}",
                tip=f"did you mean {close[0]!r}?" if close else "see `media-orchestrator storages`",
            )


def _unread(template: Template, found: Mapping[str, Any]) -> Iterator[Problem]:
    for name in found.keys() - template.derived.keys():
        what = f"{', '.join(template.django_settings)}: the class does not read {name!r}"
        yield Problem(what=what, tip=f"take {name} out: the site does not use it either")


def _refuse_before(template: Template, values: Mapping[str, Any]) -> None:
    """Refuse what needs no storage object to be seen: making one can wait for a person forever."""
    seen = [rule for rule in template.rules if rule.when.keys() <= values.keys()]
    known = (rule for rule in seen if rule.when or len(seen) == len(template.rules))
    rule = next((rule for rule in known if rule.matches(values)), None)
    if rule and rule.refuse:
        raise ConfigurationError(f"{rule.name}: {rule.refuse}", tip=LISTED)


def _given(template: Template, options: Mapping[str, Any]) -> Iterator[Problem]:
    for where, known, values in _levels(template.options, options):
        for name in values.keys() & known.keys():
            for fate in known[name].fates:
                if isinstance(fate, Refuse) and fate.given and values[name] is not None:
                    what = f"{VARIABLE}_OPTIONS: {where}{name}: {fate.reason}"
                    yield Problem(what=what, tip=f"take {name} out")


def _disputed(template: Template, settings: Settings) -> Iterator[Problem]:
    from fnmatch import fnmatchcase

    for name, line in settings.disputed.items():
        if any(fnmatchcase(name, pattern) for pattern in template.environment):
            yield Problem(
                what=f"{settings.source}, line {line}: {name} can be read in two ways",
                tip="put the value on one line, in single quotes, without blanks around =",
            )


def culprits(
    template: Template,
    given: Mapping[str, Any],
    attempt: Callable[[Mapping[str, Any]], object],
    error: Exception,
) -> str:
    """Name the options without any one of which the error would not be the same."""
    if isinstance(error, OSError) or recognise(template, f"{type(error).__name__}: {error}"):
        return ""  # the network's, or one that has words of its own

    def matters(name: str) -> bool:
        try:
            attempt({k: v for k, v in given.items() if k != name})
        except Exception as other:  # noqa: BLE001  # as many as there are SDKs
            return str(other) != str(error)
        return True

    found = ", ".join(filter(matters, given))
    return f"{found}: " if found else ""


def _unusable(
    template: Template,
    settings: Settings,
    found: Mapping[str, Any],
    error: Exception,
    blamed: str,
) -> Problem:
    redact = redactor(secrets(template, settings.options, found))
    detail = redact(f"{blamed}{type(error).__name__}: {error}")
    if recognise(template, detail):
        return problem(template, detail)
    return Problem(
        what=f"{VARIABLE}_OPTIONS: {settings.storage_class} refuses them ({detail})",
        tip=f"see `media-orchestrator storages {settings.storage_class}` for each option",
    )
