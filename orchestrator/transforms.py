"""Named pure functions that templates use to turn an option into what rclone expects."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

ALL_MODES: Final = 0o7777
Transform = Callable[[Any], str | None]


def text(value: Any) -> str | None:
    """Return the value as rclone writes it; None leaves the key out."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def is_path_style(value: Any) -> str:
    """Follow botocore: with an endpoint of one's own, everything but `virtual` is path style."""
    return "false" if value == "virtual" else "true"


def is_s3v2(value: Any) -> str | None:
    return "true" if value == "s3" else None


def file_path(value: Any) -> str | None:
    """Return the path of a file that is there; True, False and None are not paths."""
    if not isinstance(value, str) or not value:
        return None
    if not Path(value).is_file():
        raise ValueError(f"there is no file {value}")
    return value


def when_false(value: Any) -> str | None:
    return "true" if value is False else None


def when_true(value: Any) -> str | None:
    return "true" if value is True else None


def byte_count(value: Any) -> str:
    """Return a number of bytes with rclone's unit for bytes."""
    return f"{int(value)}B"


def https_proxy(value: Any) -> str | None:
    """Choose from {"http": …, "https": …} for a store that is asked by https."""
    return (value.get("https") or value.get("http")) if value else None


def endpoint_proxy(storage: Any) -> str | None:
    """Choose from boto's {"http": …, "https": …} by the scheme of the endpoint, as boto does."""
    meta = storage.connection.meta.client.meta
    found: str | None = (meta.config.proxies or {}).get(urlsplit(meta.endpoint_url).scheme)
    return found


def timestamp(value: Any) -> str | None:
    """Return a date as RFC 3339."""
    return value.isoformat() if hasattr(value, "isoformat") else text(value)


def requester(value: Any) -> str | None:
    return "true" if value == "requester" else None


def casefold_nfc(value: str) -> str:
    """Fold a name as a store does that ignores case and Unicode composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", value).casefold())


def file_mode_fault(value: Any) -> str | None:
    """Say why a file's owner could not use it under this mode; JSON has no octal numbers."""
    return _mode_fault(value, 0o600)


def folder_mode_fault(value: Any) -> str | None:
    return _mode_fault(value, 0o700)


def _mode_fault(value: Any, needed: int) -> str | None:
    number = type(value) is int and 0 <= value <= ALL_MODES
    if value is None or (number and value & needed == needed):
        return None
    digits = str(value).removeprefix("0o")
    if not re.fullmatch("[0-7]{3,5}", digits):
        return f"{value!r} is not a number from 0 to {ALL_MODES}"
    meant = f"JSON has no octal numbers, so mode {digits} is written {int(digits, 8)}"
    return f"{value!r} is mode {value:04o}; {meant}" if type(value) is int else meant


def number_fault(value: Any) -> str | None:
    return None if value is None or type(value) is int else f"{value!r} is not a whole number"


def seconds(value: Any) -> str | None:
    """Return a duration as rclone writes it."""
    return f"{value}s" if value else None


def host_key(value: Any) -> str:
    """Return paramiko's key of a server as rclone's host_keys wants it."""
    return f"{value.get_name()} {value.get_base64()}"


def fingerprint(value: Any) -> str:
    """Return the fingerprint of paramiko's key of a server, as OpenSSH shows it."""
    return str(value.fingerprint)


def is_missing(value: Any) -> str:
    return "false" if value else "true"


def capitals(value: Any) -> str | None:
    """Return the names in a dictionary that a header would carry in lower case."""
    return " ".join(name for name in value or {} if name != name.lower()) or None


def words(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def dropbox_token(storage: Any) -> str:
    """Return rclone's token for a DropboxStorage; with a refresh token, as one that has expired.

    rclone renews only what has an access token and an expiry; given both, it does as Dropbox's SDK
    does: it leaves the access token of `.env` alone and asks for a new one before its first call.
    """
    refresh = storage.oauth2_refresh_token
    if not refresh:
        return json.dumps({"access_token": storage.oauth2_access_token, "token_type": "bearer"})
    expired = {"access_token": "expired", "expiry": "2000-01-01T00:00:00Z"}
    return json.dumps({**expired, "token_type": "bearer", "refresh_token": refresh})


def dropbox_root_fault(value: Any) -> str | None:
    """Say why a root_path is not one place; the class completes it with the working directory."""
    if not re.match("/(?!/)", str(value)):
        return "else where the class stores depends on the folder in which the site was started"
    if re.search(r"[\x00-\x1f\x7f\u201b\u2400-\u2421\uff0e\uff0f\uff3c]| (/|$)", value):
        return "rclone or Dropbox does not keep one of its characters in the name of a folder"
    return None


TRANSFORMS: Final[dict[str, Transform]] = {
    function.__name__: function
    for function in (
        text,
        is_path_style,
        is_s3v2,
        file_path,
        when_false,
        when_true,
        byte_count,
        https_proxy,
        endpoint_proxy,
        timestamp,
        requester,
        casefold_nfc,
        dropbox_root_fault,
        dropbox_token,
        file_mode_fault,
        folder_mode_fault,
        number_fault,
        seconds,
        host_key,
        fingerprint,
        is_missing,
        capitals,
        words,
    )
}
