"""Translate a storage's options in effect into an rclone remote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigurationError, OrchestratorError, Problem
from orchestrator.known import explain
from orchestrator.redact import MASK, Redactor
from orchestrator.storage import Target, Upload, culprits
from orchestrator.template import (
    Fate,
    Fields,
    Flag,
    Ignore,
    Key,
    Option,
    Refuse,
    Root,
    Tell,
    matches,
)
from orchestrator.transforms import text

NAME = "media"


@dataclass(frozen=True, kw_only=True)
class Remote:
    """Everything that rclone must be told to reach what Django reaches."""

    config: Mapping[str, str]
    secret: frozenset[str]
    obscured: frozenset[str]
    redact: Redactor
    path: str
    flags: Mapping[str, str]
    vendor: str
    notes: tuple[str, ...]
    site: tuple[str, ...]

    @property
    def root(self) -> str:
        """Names start right behind it; the final slash makes rclone report errors as they are."""
        return f"{NAME}:{self.path}"

    def masked(self) -> dict[str, str]:
        return {k: MASK if k in self.secret else self.redact(v) for k, v in self.config.items()}

    def environment(self, upload: Upload, obscured: Mapping[str, str]) -> dict[str, str]:
        """Return the variables by which rclone learns the remote: never argv, never a file."""
        config = {**self.config, **obscured, **dict(upload.config)}
        return {
            **{f"RCLONE_CONFIG_{NAME.upper()}_{k.upper()}": v for k, v in config.items()},
            **{f"RCLONE_{k.upper().replace('-', '_')}": v for k, v in self.flags.items()},
        }


def translate(target: Target) -> Remote:
    """Translate the options in effect; raise ConfigurationError with all that cannot be."""
    options = _options(target)
    if unfit := list(_unfit(target, options)):
        raise ConfigurationError(*unfit)
    problems = [*_refused(target, options), *_missing(target, options)]
    problems += _parameters(target)
    if problems:
        raise ConfigurationError(*problems)
    rule = target.rule
    if rule.refuse:
        tip = f"see `media-orchestrator storages {target.dotted}`"
        raise ConfigurationError(f"{rule.name}: {rule.refuse}", tip=tip)
    fates = list(_walk(_all(target), options))
    config = {
        "type": target.template.rclone_type,
        **target.template.config,
        **{f.name: t for _, v, f, _ in fates if isinstance(f, Key) and (t := f.transform(v))},
        **rule.render(options),
    }
    return Remote(
        config={k: v for k, v in config.items() if v},
        secret=frozenset(f.name for _, _, f, o in fates if isinstance(f, Key) and o.secret),
        obscured=frozenset(f.name for _, _, f, _ in fates if isinstance(f, Key) and f.obscure),
        redact=target.redact,
        path=_path(target, options),
        flags={
            **target.template.flags,
            **rule.flags,
            **{f.name: t for _, v, f, _ in fates if isinstance(f, Flag) and (t := f.transform(v))},
        },
        vendor=rule.name,
        notes=tuple(_notes(target, fates)),
        site=tuple(note.says for note in rule.site if matches(note.when, options)),
    )


def _all(target: Target) -> Mapping[str, Option]:
    return {**target.template.options, **target.template.derived}


def _options(target: Target) -> Mapping[str, Any]:
    try:
        return target.options
    except OrchestratorError:
        raise
    except Exception as error:  # whatever the SDK makes of the user's values
        blamed = culprits(
            target.template, target.given, lambda given: target.fresh(given).options, error
        )
        text = target.redact_given(f"{blamed}{type(error).__name__}: {error}")
        raise explain(target.template, text, configuration=True) from error


def _walk(
    options: Mapping[str, Option], values: Mapping[str, Any], where: str = ""
) -> Iterator[tuple[str, Any, Fate, Option]]:
    """Yield each option with each of its fates, going into dictionaries."""
    for name, value in values.items():
        if name not in options:
            continue  # reported when the storage object was made
        for fate in options[name].fates:
            yield f"{where}{name}", value, fate, options[name]
            if isinstance(fate, Fields) and isinstance(value, Mapping):
                yield from _walk(fate.options, value, f"{where}{name}.")


def _unfit(target: Target, options: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the options of whose values nothing can be made."""
    for name, value, fate, _ in _walk(_all(target), options):
        try:
            if isinstance(fate, Key | Flag | Tell):
                fate.transform(value)
            elif isinstance(fate, Fields):
                dict(value or {})
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            what = target.redact(f"{name}: this value cannot be used ({error})")
            tip = f"see `media-orchestrator storages {target.dotted}`"
            yield Problem(what=what, tip=tip)


def _refused(target: Target, options: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value, fate, _ in _walk(_all(target), options):
        if isinstance(fate, Refuse) and (refusal := fate.refusal(value)):
            yield Problem(
                what=f"{name}: {refusal}",
                tip=f"see `media-orchestrator storages {target.dotted}`",
            )


def _missing(target: Target, options: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value, fate, _ in _walk(_all(target), options):
        if isinstance(fate, Root) and fate.required and not (value and isinstance(value, str)):
            yield Problem(
                what=f"{name} is missing in MEDIA_STORAGE_OPTIONS",
                tip=f"give {name} as a text",
            )


def _parameters(target: Target) -> list[Problem]:
    """Say what of the object parameters no upload can have."""
    known = target.template.parameters
    try:
        found = _parameters_of(target)
    except Exception as error:  # noqa: BLE001  # the user's values, in the class's own words
        blamed = culprits(
            target.template, target.given, lambda given: _parameters_of(target.fresh(given)), error
        )
        what = target.redact(f"{blamed}object parameters: {type(error).__name__}: {error}")
        return [Problem(what=what, tip=f"see `media-orchestrator storages {target.dotted}`")]
    return [
        Problem(
            what=f"object_parameters: {name}: {reason}",
            tip=f"take {name} out",
        )
        for name, value in found.items()
        if (reason := _reason(known.get(name), value))
    ]


def _parameters_of(target: Target) -> Mapping[str, Any]:
    return target.parameters(target.key("x"))


def _reason(option: Option | None, value: Any) -> str:
    if option is None:
        return "no upload of this class is known to have it"
    refused = (f.refusal(value) for f in option.fates if isinstance(f, Refuse))
    return next(filter(None, refused), "")


def _path(target: Target, options: Mapping[str, Any]) -> str:
    parts = {name: text(value) or "" for name, value in options.items()}
    root = target.rule.root or target.template.root
    relative = target.prefix.lstrip("/")
    return root.format_map({**parts, "prefix": target.prefix, "relative": relative})


def _notes(target: Target, fates: list[tuple[str, Any, Fate, Option]]) -> Iterator[str]:
    for name, value, fate, _ in fates:
        if isinstance(fate, Ignore) and name in target.given:
            yield f"{name} has no effect on stored objects: {fate.reason}"
        if isinstance(fate, Tell) and (told := fate.transform(value)):
            yield fate.words.format(value=told)
    for name in target.said(target.key("x")):
        if reason := target.template.dropped(name):
            yield f"object_parameters: {name} has no effect: {reason}"
