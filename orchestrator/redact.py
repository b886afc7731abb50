"""Take secrets out of every text that leaves the process."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
PARTS = re.compile(r"(?:^|[?&;=])(?:sig|AccountKey)=([^&;\s]+)")  # of Azure's URLs and strings
PASSWORD = re.compile("://[^/?#:@]*:([^/?#@]+)@")  # of a URL, whether it is a valid one or not
SHORTEST = 4  # a shorter one would make every text unreadable, and protects nothing


@dataclass(frozen=True)
class Redactor:
    """Replaces each secret by ***, also where it is quoted, escaped or encoded."""

    pattern: re.Pattern[str] | None

    def __call__(self, text: str) -> str:
        return self.pattern.sub(MASK, text) if self.pattern else text


def redactor(secrets: Iterable[str]) -> Redactor:
    forms = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST}
    longest_first = sorted(forms, key=len, reverse=True)
    return Redactor(re.compile("|".join(map(re.escape, longest_first))) if forms else None)


def _forms(secret: str) -> Iterator[str]:
    yield secret
    for quoting in (partial(quote, safe=""), quote, quote_plus):
        quoted = quoting(secret, errors="surrogatepass")
        yield quoted
        yield re.sub("%..", lambda found: found[0].lower(), quoted)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    if len(secret) >= SHORTEST:
        yield from _encoded(secret.encode("utf-8", "surrogatepass"))


def _encoded(secret: bytes) -> Iterator[str]:
    """Yield it in hexadecimal and in base64, whatever stands before it, as `user:` does."""
    yield secret.hex()
    yield secret.hex().upper()
    for before in range(3):
        first, last = -(-before * 8 // 6), (before + len(secret)) * 8 // 6  # whole characters of it
        found = base64.b64encode(bytes(before) + secret).decode()[first:last]
        yield found
        yield found.replace("+", "-").replace("/", "_")


def texts(value: Any) -> Iterator[str]:
    """Yield every text inside a JSON value, and the secrets inside URLs, tokens and the like."""
    match value:
        case str():
            yield value
            for part in PARTS.findall(value):
                yield from (part, unquote(part))
            for password in PASSWORD.findall(value):
                yield from (password, unquote(password))
        case Mapping():
            for item in value.values():
                yield from texts(item)
        case list() | tuple():
            for item in value:
                yield from texts(item)
