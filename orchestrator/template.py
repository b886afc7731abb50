"""Read rclone_templates/*.yaml: what happens to each option of a family of storage classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal

import yaml

from orchestrator.errors import TemplateError
from orchestrator.transforms import TRANSFORMS, Transform, text

COMMON_ERRORS = "errors.yaml"
# The one in C is ten times as fast, where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LARGEST = 20_000  # values in a template; the ones that ship have fewer than 1,000
WRONG = (LookupError, TypeError, ValueError, AttributeError, RecursionError, re.error)


@dataclass(frozen=True)
class Key:
    """The value becomes a key of the generated remote; `obscure`: as rclone stores passwords."""

    name: str
    transform: Transform
    obscure: bool = False


@dataclass(frozen=True)
class Flag:
    """The value becomes a global rclone flag."""

    name: str
    transform: Transform


@dataclass(frozen=True)
class Header:
    """The write parameter becomes an upload header, or one per item with `many`."""

    name: str
    many: bool = False


@dataclass(frozen=True)
class Root:
    """The option is part of the path under which Django's names start."""

    required: bool


@dataclass(frozen=True)
class Fields:
    """The option is a dictionary, and each of its items is an option of its own."""

    options: Mapping[str, Option]


@dataclass(frozen=True)
class Upload:
    """The option acts on each object through the storage's own write parameters."""


@dataclass(frozen=True)
class Direct:
    """rclone cannot send this write parameter: such files are saved through the class itself."""

    reason: str
    transform: Transform  # returns None for a value that rclone can send after all


@dataclass(frozen=True)
class Ruled:
    """The template's rules and derived options make of it what rclone is told."""

    what: str


@dataclass(frozen=True)
class Ignore:
    """The option cannot change what is stored."""

    reason: str


@dataclass(frozen=True)
class Refuse:
    """Only the values in `allow` can be migrated faithfully; `given`: unless a subclass sets it.

    With `fault` it says itself what is wrong with a value, or None.
    """

    reason: str
    allow: tuple[Any, ...] = (None,)
    given: bool = False
    fault: Transform | None = None

    def refusal(self, value: Any) -> str:
        """Return why the value is refused, or ''."""
        if self.fault:
            found = self.fault(value)
            return f"{self.reason}: {found}" if found else ""
        return "" if self.given or value in self.allow else self.reason


@dataclass(frozen=True)
class Tell:
    """The user reads this, with `{value}` filled in, where the transform returns something."""

    words: str
    transform: Transform


Fate = Key | Flag | Header | Root | Fields | Upload | Direct | Ruled | Ignore | Refuse | Tell


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option's fates; `ask` is where the storage object holds the value in effect."""

    fates: tuple[Fate, ...]
    ask: str | None = None
    secret: bool = False


When = Mapping[str, re.Pattern[str]]


def matches(when: When, options: Mapping[str, Any]) -> bool:
    return all(pattern.search(text(options[name]) or "") for name, pattern in when.items())


@dataclass(frozen=True, kw_only=True)
class Note:
    """What the site will meet at a store, where its options match."""

    says: str
    when: When


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The most bytes that one object can have, and who says so.

    Either `bytes`, or so many `parts` of the size that the option `part` holds.
    """

    source: str
    bytes: int = 0
    parts: int = 0
    part: str = ""

    def of(self, options: Mapping[str, Any]) -> int:
        return self.parts * int(options[self.part]) if self.part else self.bytes


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Settings for the stores whose options match every regex in `when`; the first match wins.

    `config` may name options in braces; an empty value takes a key out. `root` stands in for the
    template's, as do `largest` and `largest_saved`; `direct` adds to the names that rclone cannot
    carry, `defects` to the template's; `refuse` says why this combination cannot be migrated.
    """

    name: str
    when: When
    config: Mapping[str, str]
    site: tuple[Note, ...]
    largest: Limit | None
    largest_saved: Limit | None
    direct: re.Pattern[str] | None
    flags: Mapping[str, str]
    root: str | None
    defects: tuple[Defect, ...]
    refuse: str | None

    def matches(self, options: Mapping[str, Any]) -> bool:
        return matches(self.when, options)

    def render(self, options: Mapping[str, Any]) -> dict[str, str]:
        values = {name: text(value) or "" for name, value in options.items()}
        return {key: value.format_map(values) for key, value in self.config.items()}


@dataclass(frozen=True, kw_only=True)
class Known:
    """An error text of rclone or of an SDK: what it means, and which option to look at."""

    match: re.Pattern[str]
    says: str
    tip: str
    option: str | None
    kind: Literal["access", "configuration", "network", "transfer", "throttled"]


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A failure to read that lies in the storage class: the site meets it too.

    With sizes in bytes it is foreseen: files `above`, or `below`, are listed before the copy.
    """

    match: re.Pattern[str]
    says: str
    above: int | None = None
    below: int | None = None

    @property
    def sizes(self) -> str:
        """The sizes at which it is foreseen, as a condition of the ledger."""
        above = f"size > {self.above}" if self.above is not None else "0"
        below = f"size < {self.below}" if self.below is not None else "0"
        return f"({above} OR {below})"


@dataclass(frozen=True, kw_only=True)
class Compress:
    """The method that packs a body, and the parameters that say whether it does."""

    ask: str
    type: str
    encoding: str


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which methods of the class say what save(name) stores.

    Without `key` the key is the name itself; `within` is a folder that the method puts before it.
    `saving` are attributes with which a file may be saved over another; `unpacks` is the parameter
    that makes open() unpack an object which it calls gzip.
    """

    key: str | None
    within: str | None
    clean: bool
    parameters: str | None
    compress: Compress | None
    saving: Mapping[str, Any]
    unpacks: str | None


@dataclass(frozen=True, kw_only=True)
class Names:
    """Limits of the store, and the names that rclone itself cannot carry."""

    max_bytes: int
    direct: re.Pattern[str]
    forbidden: re.Pattern[str] | None
    fold: Transform


@dataclass(frozen=True, kw_only=True)
class Tuning:
    transfers: int
    most_transfers: int  # where the store is found to take more
    checkers: int
    readers: int
    flags: tuple[str, ...]
    part_from: int  # bytes from which a file is sent in parts; 0: never
    part_memory: int  # bytes that rclone holds of each such file


@dataclass(frozen=True, kw_only=True)
class Template:
    family: str
    title: str
    rclone_type: str
    extra: str | None
    classes: tuple[str, ...]
    refused_classes: Mapping[str, str]
    root: str
    environment: tuple[str, ...]
    django_settings: Mapping[str, str]
    pass_environment: tuple[str, ...]
    config: Mapping[str, str]
    flags: Mapping[str, str]
    rclone_hashes: bool
    rules: tuple[Rule, ...]
    options: Mapping[str, Option]
    derived: Mapping[str, Option]
    asked: Asked
    parameters: Mapping[str, Option]
    names: Names
    tuning: Tuning
    differs: Mapping[str, str]
    defects: tuple[Defect, ...]
    errors: tuple[Known, ...]
    largest: Limit | None  # that the store takes
    largest_saved: Limit | None  # that the class can save
    called: Mapping[str, str]  # what errors.yaml calls an option → the option of this family

    def dropped(self, parameter: str) -> str:
        """Return why no upload sends this parameter, or ''."""
        option = self.parameters.get(parameter)
        reasons = (f.reason for f in option.fates if isinstance(f, Ignore)) if option else iter(())
        return next(reasons, "")


def _fate(name: str, entry: Mapping[str, Any]) -> Fate:  # noqa: C901, PLR0911, PLR0912  # one case a fate
    fields = dict(entry)
    transform = TRANSFORMS.get(fields.pop("as", "text"))
    if transform is None:
        raise TemplateError(f"{name}: unknown transform {entry['as']!r}")
    match fields:
        case {"key": str(key), **rest} if rest.keys() <= {"obscure"}:
            return Key(key, transform, rest.get("obscure", False))
        case {"flag": str(flag), **rest} if not rest:
            return Flag(flag, transform)
        case {"header": str(header), **rest} if not rest:
            return Header(header)
        case {"headers": str(prefix), **rest} if not rest:
            return Header(prefix, many=True)
        case {"root": "required" | "optional" as need, **rest} if not rest:
            return Root(need == "required")
        case {"fields": dict(items), **rest} if not rest:
            return Fields(_options(items))
        case {"upload": True, **rest} if not rest:
            return Upload()
        case {"direct": str(reason), **rest} if not rest:
            return Direct(reason, transform)
        case {"rule": str(what), **rest} if not rest:
            return Ruled(what)
        case {"ignore": str(reason), **rest} if not rest:
            return Ignore(reason)
        case {"tell": str(words), **rest} if not rest:
            return Tell(words, transform)
        case {"refuse": str(reason), **rest} if rest.keys() <= {"allow"}:
            fault = transform if "as" in entry else None
            return Refuse(reason, (None, *rest.get("allow", ())), fault=fault)
        case {"refuse_given": str(reason), **rest} if not rest:
            return Refuse(reason, given=True)
    raise TemplateError(f"{name}: not one of the known fates: {', '.join(fields)}")


def _option(name: str, entry: Mapping[str, Any] | list[Mapping[str, Any]]) -> Option:
    if isinstance(entry, list):
        entry = {"fates": entry}
    fields = dict(entry)
    ask, secret = fields.pop("ask", None), fields.pop("secret", False)
    fates = fields.pop("fates", None) or [fields]
    return Option(fates=tuple(_fate(name, f) for f in fates), ask=ask, secret=secret)


def _options(entries: Mapping[str, Any] | None) -> dict[str, Option]:
    return {name: _option(name, entry) for name, entry in (entries or {}).items()}


def _texts(entries: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: text(value) or "" for key, value in (entries or {}).items()}


def _when(entry: Mapping[str, Any], options: Collection[str]) -> When:
    if unknown := entry.get("when", {}).keys() - options:
        raise LookupError(f"when: {min(unknown)} is no option")
    return {name: re.compile(pattern) for name, pattern in entry.get("when", {}).items()}


def _note(entry: str | Mapping[str, Any], options: Collection[str]) -> Note:
    if isinstance(entry, str):
        return Note(says=entry, when={})
    return Note(says=entry["says"], when=_when(entry, options))


def _limit(entry: Mapping[str, Any], name: str) -> Limit | None:
    return Limit(**entry[name]) if name in entry else None


def _rule(entry: Mapping[str, Any], options: Collection[str]) -> Rule:
    return Rule(
        name=entry["name"],
        when=_when(entry, options),
        config=_texts(entry.get("config")),
        site=tuple(_note(note, options) for note in entry.get("site", ())),
        largest=_limit(entry, "largest"),
        largest_saved=_limit(entry, "largest_saved"),
        direct=re.compile(entry["direct"]) if "direct" in entry else None,
        flags=_texts(entry.get("flags")),
        root=entry.get("root"),
        defects=tuple(_defect(d) for d in entry.get("defects", ())),
        refuse=entry.get("refuse"),
    )


def _known(entry: Mapping[str, Any]) -> Known:
    return Known(
        match=re.compile(entry["match"]),
        says=entry["says"],
        tip=entry["tip"],
        option=entry.get("option"),
        kind=entry["kind"],
    )


def _defect(entry: Mapping[str, Any]) -> Defect:
    return Defect(**{**entry, "match": re.compile(entry["match"])})


def _asked(entry: Mapping[str, Any]) -> Asked:
    return Asked(
        key=entry.get("key"),
        within=entry.get("within"),
        clean=entry.get("clean", False),
        parameters=entry.get("parameters"),
        compress=Compress(**entry["compress"]) if "compress" in entry else None,
        saving=entry.get("saving", {}),
        unpacks=entry.get("unpacks"),
    )


def _names(entry: Mapping[str, Any]) -> Names:
    forbidden = entry.get("forbidden")
    return Names(
        max_bytes=entry["max_bytes"],
        direct=re.compile(entry["direct"]),
        forbidden=re.compile(forbidden) if forbidden else None,
        fold=TRANSFORMS[entry.get("fold", "text")],
    )


def _tuning(entry: Mapping[str, Any]) -> Tuning:
    return Tuning(
        transfers=entry["transfers"],
        most_transfers=entry.get("most_transfers", entry["transfers"]),
        checkers=entry["checkers"],
        readers=entry["readers"],
        flags=tuple(entry.get("flags", ())),
        part_from=entry.get("part_from", 0),
        part_memory=entry.get("part_memory", 1),
    )


def parse(raw: Mapping[str, Any], common: tuple[Known, ...] = ()) -> Template:
    """Turn one YAML document into a Template; raise TemplateError where it is not one."""
    try:
        options = {*raw["options"], *raw.get("derived", ())}
        return Template(
            family=raw["family"],
            title=raw["title"],
            rclone_type=raw["rclone"],
            extra=raw.get("extra"),
            classes=tuple(raw["classes"]),
            refused_classes=raw.get("refused_classes", {}),
            root=raw["root"],
            environment=tuple(raw.get("environment", ())),
            django_settings=raw.get("django_settings", {}),
            pass_environment=tuple(raw.get("pass_environment", ())),
            config=_texts(raw.get("config")),
            flags=_texts(raw.get("flags")),
            rclone_hashes=raw.get("rclone_hashes", False),
            rules=tuple(_rule(r, options) for r in raw.get("rules", ())),
            options=_options(raw["options"]),
            derived=_options(raw.get("derived")),
            asked=_asked(raw["asked"]),
            parameters=_options(raw.get("parameters")),
            names=_names(raw["names"]),
            tuning=_tuning(raw["tuning"]),
            differs=raw.get("differs", {}),
            largest=_limit(raw, "largest"),
            largest_saved=_limit(raw, "largest_saved"),
            called=raw.get("called", {}),
            defects=tuple(_defect(d) for d in raw.get("defects", ())),
            errors=(*(_known(e) for e in raw.get("errors", ())), *common),
        )
    except WRONG as error:
        family = raw.get("family", "?") if isinstance(raw, Mapping) else "?"
        raise TemplateError(f"template {family}: {type(error).__name__}: {error}") from error


def _read(path: Traversable) -> Any:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _LOADER)  # noqa: S506  # both are safe
        if _size(document) > LARGEST:
            raise TemplateError(f"{path.name}: more than {LARGEST} values: an alias of aliases?")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise TemplateError(f"{path.name}: {type(error).__name__}: {error}") from error
    return document


def _size(document: Any) -> int:
    """Count the values of a document, each as often as it is met; stop beyond the largest."""
    found, pending = 0, [document]
    while pending and found <= LARGEST:
        found, item = found + 1, pending.pop()
        if isinstance(item, Mapping):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return found


def _files() -> Iterator[Traversable]:
    folder = files("rclone_templates")
    yield from (p for p in sorted(folder.iterdir(), key=str) if p.name.endswith(".yaml"))


@cache
def load_all() -> tuple[Template, ...]:
    """Return the template of every family that ships with this program."""
    documents = {path.name: _read(path) for path in _files()}
    try:
        common = tuple(_known(entry) for entry in documents.pop(COMMON_ERRORS))
    except WRONG as error:
        raise TemplateError(f"{COMMON_ERRORS}: {type(error).__name__}: {error}") from error
    return tuple(parse(raw, common) for raw in documents.values())
