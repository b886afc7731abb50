"""What one account of the fake Dropbox holds, and what each route of the API does with it."""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

Arg = Mapping[str, Any]
BLOCK: Final = 4 << 20
# Dropbox, "Files that do not sync", and what rclone's authors found: no DEL, no space at an end.
DISALLOWED: Final = re.compile(
    r"/(desktop\.ini|thumbs\.db|\.ds_store|icon\r|\.dropbox(\.attr)?)$|\x7f| (/|$)", re.IGNORECASE
)
_MALFORMED: Final = re.compile(r"//|\\|/\.\.?(/|$)")


class ApiError(Exception):
    """An answer that refuses: `tags` go from the outer to the inner one, as in Dropbox's unions."""

    def __init__(self, *tags: str, status: int = 409, **details: Any) -> None:
        super().__init__("/".join(tags))
        self.status = status
        self.error: dict[str, Any] = {".tag": tags[-1], **details}
        for tag in reversed(tags[:-1]):
            self.error = {".tag": tag, tag: self.error}

    @property
    def body(self) -> dict[str, Any]:
        return {"error_summary": f"{self}/..", "error": self.error}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file, or a folder if there is no data; `path` has the case of its first writer."""

    path: str
    data: bytes | None = field(default=None, repr=False)
    modified: str = ""

    @property
    def metadata(self) -> dict[str, Any]:
        name = self.path.rpartition("/")[2]
        common = {"name": name, "path_lower": fold(self.path), "path_display": self.path}
        common["id"] = (
            f"id:{hashlib.sha256(fold(self.path).encode('utf-8', 'replace')).hexdigest()}"
        )
        if self.data is None:
            return {".tag": "folder", **common}
        return {".tag": "file", **common, **self._of_file(self.data)}

    def _of_file(self, data: bytes) -> dict[str, Any]:
        return {
            "rev": hashlib.sha256(data).hexdigest()[:15],
            "size": len(data),
            "content_hash": content_hash(data),
            "client_modified": self.modified,
            "server_modified": _now(),
            "is_downloadable": True,
        }


def content_hash(data: bytes) -> str:
    starts = range(0, len(data), BLOCK)
    blocks = (hashlib.sha256(data[start : start + BLOCK]).digest() for start in starts)
    return hashlib.sha256(b"".join(blocks)).hexdigest()


def fold(path: str) -> str:
    return unicodedata.normalize("NFC", path).lower()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(kw_only=True)
class _Session:
    data: bytearray
    closed: bool


@dataclass(kw_only=True)
class Account:
    """A file tree of its own, with the credentials of one app that may use it."""

    app_key: str
    app_secret: str
    refresh_token: str
    page: int = 2000
    expires: int = 14400
    entries: dict[str, Entry] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    sessions: dict[str, _Session] = field(default_factory=dict, repr=False)
    cursors: dict[str, list[Entry]] = field(default_factory=dict, repr=False)
    links: dict[str, Entry] = field(default_factory=dict, repr=False)

    def find(self, path: str, where: str = "path") -> Entry:
        found = self._of(path) if path.startswith("id:") else self.entries.get(_slot(path))
        if not found:
            raise ApiError(where, "not_found")
        return found

    def _of(self, number: str) -> Entry | None:
        return next((e for e in self.entries.values() if e.metadata["id"] == number), None)

    def file(self, path: str) -> Entry:
        found = self.find(path)
        if found.data is None:
            raise ApiError("path", "not_file")
        return found

    def folder(self, path: str) -> str:
        """Make a folder and those above it; return its path in the case that it has."""
        slot = fold(path)
        if not slot:
            return ""
        if slot not in self.entries:
            above, _, name = path.rpartition("/")
            self.entries[slot] = Entry(path=f"{self.folder(above)}/{name}")
        if self.entries[slot].data is not None:
            raise ApiError("path", "conflict", "file_ancestor")
        return self.entries[slot].path

    def put(self, commit: Arg, data: bytes) -> dict[str, Any]:
        path, slot = commit["path"], _slot(commit["path"])
        if DISALLOWED.search(path):
            raise ApiError("path", "disallowed_name")
        old = self.entries.get(slot)
        if old and old.data is None:
            raise ApiError("path", "conflict", "folder")
        if old and _mode(commit) == "add":
            if old.data != data:
                raise ApiError("path", "conflict", "file")
            return old.metadata  # the same bytes are no conflict
        above, _, name = path.rpartition("/")
        modified = commit.get("client_modified") or _now()
        entry = Entry(path=f"{self.folder(above)}/{name}", data=data, modified=modified)
        self.entries[slot] = entry
        return entry.metadata

    def remove(self, path: str) -> Entry:
        found, slot = self.find(path, "path_lookup"), fold(path)
        for other in [s for s in self.entries if s == slot or s.startswith(f"{slot}/")]:
            del self.entries[other]
        return found

    def take(self, entries: list[Entry]) -> dict[str, Any]:
        """Answer with the first page of the entries, and a cursor for the others."""
        cursor = uuid.uuid4().hex
        self.cursors[cursor] = entries[self.page :]
        return {
            "entries": [entry.metadata for entry in entries[: self.page]],
            "cursor": cursor,
            "has_more": len(entries) > self.page,
        }

    def session(self, cursor: Arg) -> _Session:
        found = self.sessions.get(cursor["session_id"])
        if not found:
            raise ApiError("not_found")
        if len(found.data) != cursor["offset"]:
            raise ApiError("incorrect_offset", correct_offset=len(found.data))
        return found


def _slot(path: str) -> str:
    path = f"/{path[2:]}" if path.startswith("//") else path  # so rclone asks below the root
    if not path.startswith("/") or path.endswith("/") or _MALFORMED.search(path):
        raise ApiError("path", "malformed_path")
    return fold(path)


def _mode(commit: Arg) -> str:
    mode = commit.get("mode", "add")
    return str(mode[".tag"] if isinstance(mode, Mapping) else mode)


def _untagged(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name != ".tag"}


def _list_folder(account: Account, arg: Arg, _: bytes) -> Any:
    path = arg["path"]
    if path and account.find(path).data is not None:
        raise ApiError("path", "not_folder")
    start = f"{_slot(path)}/" if path else "/"
    inside = {slot: e for slot, e in account.entries.items() if slot.startswith(start)}
    if not arg.get("recursive"):
        inside = {slot: e for slot, e in inside.items() if "/" not in slot[len(start) :]}
    return account.take([inside[slot] for slot in sorted(inside)])


def _list_folder_continue(account: Account, arg: Arg, _: bytes) -> Any:
    if arg["cursor"] not in account.cursors:
        raise ApiError("reset")
    return account.take(account.cursors.pop(arg["cursor"]))


def _get_metadata(account: Account, arg: Arg, _: bytes) -> Any:
    return account.find(arg["path"]).metadata


def _get_temporary_link(account: Account, arg: Arg, _: bytes) -> Any:
    entry, token = account.file(arg["path"]), uuid.uuid4().hex
    account.links[token] = entry
    return {
        "metadata": _untagged(entry.metadata),
        "link": f"https://content.dropboxapi.com/tmp/{token}",
    }


def _create_folder(account: Account, arg: Arg, _: bytes) -> Any:
    if fold(arg["path"]) in account.entries:
        raise ApiError("path", "conflict", "folder")
    account.folder(arg["path"])
    return {"metadata": _untagged(account.find(arg["path"]).metadata)}


def _delete(account: Account, arg: Arg, _: bytes) -> Any:
    return account.remove(arg["path"]).metadata


def _upload(account: Account, arg: Arg, body: bytes) -> Any:
    _compare_hash(arg, body)
    try:
        return _untagged(account.put(arg, body))
    except ApiError as error:  # here, and only here, the reason is inside a struct
        reason = error.error["path"]
        error.error = {".tag": "path", "reason": reason, "upload_session_id": "none"}
        raise


def _compare_hash(arg: Arg, body: bytes) -> None:
    if arg.get("content_hash") not in (None, content_hash(body)):
        raise ApiError("content_hash_mismatch")


def _session_start(account: Account, arg: Arg, body: bytes) -> Any:
    _compare_hash(arg, body)
    number = uuid.uuid4().hex
    account.sessions[number] = _Session(data=bytearray(body), closed=bool(arg.get("close")))
    return {"session_id": number}


def _session_append(account: Account, arg: Arg, body: bytes) -> Any:
    _compare_hash(arg, body)
    session = account.session(arg["cursor"])
    if session.closed:
        raise ApiError("closed")
    session.data += body
    session.closed = bool(arg.get("close"))


def _session_finish(account: Account, arg: Arg, body: bytes) -> Any:
    _compare_hash(arg, body)
    session = account.session(arg["cursor"])
    session.data += body
    return _untagged(_commit(account, arg))


def _session_finish_batch(account: Account, arg: Arg, _: bytes) -> Any:
    return {"entries": [_finish(account, entry) for entry in arg["entries"]]}


def _finish(account: Account, entry: Arg) -> dict[str, Any]:
    try:
        account.session(entry["cursor"])
        return {**_commit(account, entry), ".tag": "success"}
    except ApiError as error:
        return {".tag": "failure", "failure": error.error}


def _commit(account: Account, entry: Arg) -> dict[str, Any]:
    session = account.sessions.pop(entry["cursor"]["session_id"])
    return account.put(entry["commit"], bytes(session.data))


def _download(account: Account, arg: Arg, _: bytes) -> Any:
    return account.file(arg["path"])


Route = Callable[[Account, Arg, bytes], Any]
READING: Final[dict[str, Route]] = {
    "files/list_folder": _list_folder,
    "files/list_folder/continue": _list_folder_continue,
    "files/get_metadata": _get_metadata,
    "files/get_temporary_link": _get_temporary_link,
    "files/download": _download,
}
WRITING: Final[dict[str, Route]] = {
    "files/create_folder_v2": _create_folder,
    "files/delete": _delete,
    "files/upload": _upload,
    "files/upload_session/start": _session_start,
    "files/upload_session/append_v2": _session_append,
    "files/upload_session/finish": _session_finish,
    "files/upload_session/finish_batch_v2": _session_finish_batch,
}
ROUTES: Final = {**READING, **WRITING}
