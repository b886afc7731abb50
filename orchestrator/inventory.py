"""The source folder → one `Entry` a file, walked without rclone, so that every file is counted."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Directory links met on the way to a file. Without a limit a few folders that link to each other
# fan out into more names than could ever be listed; the kernel itself gives up at 40.
MAX_NESTED_LINKS = 8
NAME_MAX = 255


class Kind(StrEnum):
    FILE = "file"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    DEVICE = "device"
    DIRECTORY = "directory"  # only where a directory could not be walked


class Fate(StrEnum):
    CANDIDATE = "candidate"
    EXCLUDED = "excluded"
    REFUSED = "refused"


class Entry(NamedTuple):
    """A file as Django would name it; of a link, size and times are those of its target."""

    name: str
    kind: Kind
    size: int
    mtime_ns: int
    ctime_ns: int
    fate: Fate
    reason: str = ""


@dataclass(frozen=True)
class Rules:
    """Globs, case-sensitive; `*` and `?` stay inside a folder, `**` crosses folders.

    Without `/` a glob matches the last component at any depth, with one the whole relative path
    (a leading `/` is allowed); ending in `/` it matches everything below that folder.
    `[*]` is a literal star, a backslash is a backslash. An exclude wins over an include.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def walk(root: Path, rules: Rules, *, skip: Path | None = None) -> Iterator[Entry]:
    """Yield every file below `root` with its fate, a folder's files by name, then its folders.

    `skip` is the folder of our own runs: where it lies inside the source its files are excluded.
    """
    return _entries(
        _Source(
            root=_usable(root),
            exclude=tuple((glob, _compiled(glob)) for glob in rules.exclude),
            include=tuple(_compiled(glob) for glob in rules.include),
            skip=None if skip is None else _own_folder(skip, root),
        )
    )


class _Verdict(NamedTuple):
    fate: Fate
    reason: str = ""


_CANDIDATE = _Verdict(Fate.CANDIDATE)
_RUN_FOLDER = _Verdict(Fate.EXCLUDED, "the run folder")
_NOT_INCLUDED = _Verdict(Fate.EXCLUDED, "no --include matches")
_DANGLING = _Verdict(Fate.EXCLUDED, "dangling link: has no content")
_SELF_LINK = _Verdict(Fate.EXCLUDED, "link loop: the link leads back to itself")
_LINK_LOOP = _Verdict(Fate.EXCLUDED, "link loop: leads back to a folder that it lies in")
_OUTSIDE = _Verdict(
    Fate.REFUSED,
    "link leads out of the source: Django serves it, but its target is not in SOURCE",
)
_NESTED = _Verdict(Fate.REFUSED, f"path too long: more than {MAX_NESTED_LINKS} nested folder links")
_TOO_LONG = _Verdict(Fate.REFUSED, "path too long: the system cannot open it by its full name")
_DENIED = _Verdict(Fate.REFUSED, "unreadable: permission denied")

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFDIR: Kind.DIRECTORY,
}


class _Step(NamedTuple):
    """A directory still to be walked; small, because a folder may hold a million of them."""

    parent: _Folder
    name: str
    linked: bool


@dataclass(frozen=True, kw_only=True)
class _Source:
    root: str
    exclude: tuple[tuple[str, re.Pattern[str]], ...]
    include: tuple[re.Pattern[str], ...]
    skip: str | None

    @cached_property
    def path_max(self) -> int:
        return os.pathconf(self.root, "PC_PATH_MAX") - 1

    def ruled_out(self, name: str, *, is_folder: bool) -> _Verdict | None:
        """Return the rule that excludes `name`; what lies in a folder unseen may be included."""
        if not (self.exclude or self.include):
            return None
        names = (name, f"{name}/") if is_folder else (name,)
        for glob, pattern in self.exclude:
            if any(map(pattern.fullmatch, names)):
                return _Verdict(Fate.EXCLUDED, f"--exclude {glob}")
        if self.include and not is_folder and not any(p.fullmatch(name) for p in self.include):
            return _NOT_INCLUDED
        return None


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """A directory being walked: `prefix` as Django names it (`a/b/`), `real` without links."""

    source: _Source
    prefix: str
    real: str
    parent: _Folder | None
    links: int

    @property
    def path(self) -> str:
        return f"{self.source.root}/{self.prefix}".removesuffix("/")

    @cached_property
    def identity(self) -> tuple[int, int]:
        return _identity(Path(self.real).stat())

    @cached_property
    def utf8(self) -> bool:
        return _is_utf8(self.prefix)

    @cached_property
    def skipped(self) -> bool:
        return _inside(self.real, self.source.skip)

    @cached_property
    def room(self) -> int:
        """How many bytes a name in here may have, so that its whole path can be opened."""
        return self.source.path_max - len(os.fsencode(self.path)) - 1

    def lies_in(self, identity: tuple[int, int]) -> bool:
        folder: _Folder | None = self
        while folder and folder.identity != identity:
            folder = folder.parent
        return folder is not None

    def entry(
        self, name: str, kind: Kind, status: os.stat_result | None, verdict: _Verdict
    ) -> Entry:
        """Make an entry; a rule of the user's decides before anything that we found out."""
        is_folder = status is None or stat.S_ISDIR(status.st_mode)
        fate, reason = (
            (_RUN_FOLDER if self.skipped else None)
            or self.source.ruled_out(self.prefix + name, is_folder=is_folder)
            or _named(self, name, verdict)
        )
        return Entry(
            name=self.prefix + name,
            kind=kind,
            size=status.st_size if status and stat.S_ISREG(status.st_mode) else 0,
            mtime_ns=status.st_mtime_ns if status else 0,
            ctime_ns=status.st_ctime_ns if status else 0,
            fate=fate,
            reason=reason,
        )


def _entries(source: _Source) -> Iterator[Entry]:
    top = _Folder(source=source, prefix="", real=source.root, parent=None, links=0)
    pending = [_Step(top, "", linked=False)]
    while pending:
        found: list[_Step] = []
        for item in _visit(pending.pop()):
            if isinstance(item, Entry):
                yield item
            else:
                found.append(item)
        pending += reversed(found)


def _visit(step: _Step) -> Iterator[Entry | _Step]:
    """Yield the files of one directory, and the directories in it as steps."""
    try:
        folder = _entered(step)
        fd = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        yield from _unwalked(step, error)
        return
    try:
        yield from _listed(folder, fd)
    except OSError as error:
        yield from _unwalked(step, error)
    finally:
        os.close(fd)


def _listed(folder: _Folder, fd: int) -> Iterator[Entry | _Step]:
    os.stat(".", dir_fd=fd)  # fails where names can be listed but not opened
    for name in sorted(os.listdir(fd)):
        item = _seen(folder, fd, name)
        if item:
            yield item


def _entered(step: _Step) -> _Folder:
    parent, name, linked = step
    if not name:
        return parent
    real = f"{parent.real}/{name}"
    return _Folder(
        source=parent.source,
        prefix=f"{parent.prefix}{name}/",
        real=os.path.realpath(real, strict=True) if linked else real,
        parent=parent,
        links=parent.links + linked,
    )


def _unwalked(step: _Step, error: OSError) -> Iterator[Entry]:
    """Yield the one entry that stands for a directory which cannot be walked."""
    parent, name, linked = step
    if not name:
        raise error
    status = _status(f"{parent.path}/{name}")
    if status or not isinstance(error, FileNotFoundError):
        kind = Kind.SYMLINK if linked else Kind.DIRECTORY
        yield parent.entry(name, kind, status, _unreadable(error))


def _status(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except OSError:
        return None


def _seen(folder: _Folder, fd: int, name: str) -> Entry | _Step | None:
    """Return what one name in a directory is; None where it vanished meanwhile."""
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        return folder.entry(name, Kind.FILE, None, _unreadable(error))
    kind = _kind(status)
    if folder.room < NAME_MAX and folder.room < len(os.fsencode(name)):
        return folder.entry(name, kind, status, _TOO_LONG)
    if kind is Kind.SYMLINK:
        return _link(folder, fd, name, status)
    if kind is Kind.DIRECTORY:
        return _Step(folder, name, linked=False)
    return folder.entry(name, kind, status, _content(fd, name, status))


def _link(folder: _Folder, fd: int, name: str, status: os.stat_result) -> Entry | _Step:
    try:
        target = os.stat(name, dir_fd=fd)
        real = os.path.realpath(f"{folder.real}/{name}", strict=True)
    except OSError as error:
        return folder.entry(name, Kind.SYMLINK, status, _unfollowed(error))
    if not _inside(real, folder.source.root):
        verdict = _OUTSIDE
    elif stat.S_ISDIR(target.st_mode):
        verdict = _crossing(folder, target)
    elif _inside(real, folder.source.skip):
        verdict = _RUN_FOLDER
    else:
        verdict = _content(fd, name, target)
    if verdict is _CANDIDATE and stat.S_ISDIR(target.st_mode):
        return _Step(folder, name, linked=True)
    return folder.entry(name, Kind.SYMLINK, target, verdict)


def _crossing(folder: _Folder, target: os.stat_result) -> _Verdict:
    """Judge whether a link from `folder` to a directory is followed."""
    if folder.lies_in(_identity(target)):
        return _LINK_LOOP
    return _NESTED if folder.links == MAX_NESTED_LINKS else _CANDIDATE


def _content(fd: int, name: str, status: os.stat_result) -> _Verdict:
    """Judge what would be read: only a regular file has content to move."""
    if not stat.S_ISREG(status.st_mode):
        return _Verdict(Fate.EXCLUDED, f"{_kind(status)}: has no content")
    return _CANDIDATE if os.access(name, os.R_OK, dir_fd=fd, effective_ids=True) else _DENIED


def _kind(status: os.stat_result) -> Kind:
    return _KINDS.get(stat.S_IFMT(status.st_mode), Kind.DEVICE)


def _named(folder: _Folder, name: str, verdict: _Verdict) -> _Verdict:
    """Refuse a name that Django cannot hold, unless there is nothing to move under it anyway."""
    if verdict.fate is Fate.EXCLUDED or (folder.utf8 and _is_utf8(name)):
        return verdict
    shown = os.fsencode(folder.prefix + name).decode("utf-8", "backslashreplace")
    return _Verdict(Fate.REFUSED, f"name is not UTF-8: {shown}; Django cannot address it")


def _unfollowed(error: OSError) -> _Verdict:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return _DANGLING
    return _SELF_LINK if error.errno == errno.ELOOP else _unreadable(error)


def _unreadable(error: OSError) -> _Verdict:
    if isinstance(error, PermissionError):
        return _DENIED
    return _Verdict(Fate.REFUSED, f"unreadable: {os.strerror(error.errno or 0).lower()}")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _inside(path: str, folder: str | None) -> bool:
    return folder is not None and (path == folder or path.startswith(f"{folder}/"))


def _is_utf8(name: str) -> bool:
    # os.fsdecode turns each byte that is not UTF-8 into a lone surrogate, which does not encode.
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def usable(root: Path, runs: Path, rules: Rules) -> None:
    """Raise ConfigurationError with all that keeps a walk from beginning.

    `root` must be readable, the runs must be written outside of it, and the globs must be such.
    """
    problems: list[Problem] = []
    looks: list[Callable[[], object]] = [partial(_apart, root, runs)]
    looks += [partial(_compiled, glob) for glob in (*rules.include, *rules.exclude)]
    for look in looks:
        try:
            look()
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(*problems)


def _apart(root: Path, runs: Path) -> None:
    source, tip = _usable(root), "Name a folder outside of it with --run-dir."
    if _inside(os.path.realpath(runs), source):
        what = f"The run folder {runs} lies in the source {root}, where nothing may be written."
        raise ConfigurationError(what, tip=tip)


def _usable(root: Path) -> str:
    """Resolve the source folder, or say why it cannot be one."""
    tip = "Name the folder that Django's MEDIA_ROOT names, with --source."
    try:
        real = os.path.realpath(root, strict=True)
        os.scandir(f"{real}/.").close()  # "/." asks for the right to open what is listed
    except PermissionError:
        denied = "Run as the user that the site runs as, or let this user read the folder."
        raise ConfigurationError(f"The source {root} cannot be read.", tip=denied) from None
    except NotADirectoryError:
        raise ConfigurationError(f"The source {root} is not a folder.", tip=tip) from None
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise ConfigurationError(f"The source {root} cannot be used: {why}.", tip=tip) from None
    if real == os.path.sep:
        raise ConfigurationError(f"The source {root} is the whole file system.", tip=tip)
    return real


def _own_folder(skip: Path, root: Path) -> str | None:
    """Resolve the folder of the runs; None where it lies outside the source."""
    real, source = os.path.realpath(skip), os.path.realpath(root)
    if real == source:
        what = f"The run folder {skip} is the source itself."
        raise ConfigurationError(what, tip="Name another folder for the runs, with --run-dir.")
    return real if _inside(real, source) else None


_GLOB = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^]/]*\]|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _compiled(glob: str) -> re.Pattern[str]:
    """Translate a glob into an expression for the whole relative path."""
    if not glob:
        raise ConfigurationError("A pattern is empty.", tip="Leave it out, or write * for all.")
    glob = re.sub(r"\*{3,}", "**", glob)  # the same, and each ** more takes longer than all before
    pattern = f"{glob}**" if glob.endswith("/") else glob
    anchored = pattern.removeprefix("/") if "/" in pattern else f"**/{pattern}"
    try:
        return re.compile("".join(_expressions(_GLOB.findall(anchored))), re.DOTALL)
    except re.error as error:
        tip = "Write a literal [ as [[]."
        raise ConfigurationError(f"The pattern {glob} is not a glob: {error}.", tip=tip) from None


def _expressions(tokens: list[str]) -> Iterator[str]:
    """Translate tokens; between two stars the first place that fits is as good as any later one.

    Without that many stars in one pattern would be tried in all combinations of places.
    """
    stars = [place for place, item in enumerate(tokens) if item in _WILD and item != "?"]
    ends = [*stars[1:], len(tokens)]
    yield from map(_translated, tokens[: stars[0]] if stars else tokens)
    for place, end in zip(stars, ends, strict=False):
        fixed = "".join(map(_translated, tokens[place + 1 : end]))
        settled = tokens[place] == "*" and end < len(tokens) and tokens[end] == "*"
        yield f"(?>[^/]*?{fixed})" if settled else _WILD[tokens[place]] + fixed


def _translated(token: str) -> str:
    if len(token) > 1 and token[0] == "[":
        negated = token[1] == "!"
        members = re.sub(r"([\\\[\]&~|^])", r"\\\1", token[2 if negated else 1 : -1])
        return f"(?!/)[{'^' if negated else ''}{members}]"
    return _WILD.get(token) or re.escape(token)
