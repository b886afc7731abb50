"""Dropbox through the SDK client of the storage object itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dropbox.exceptions import ApiError
from dropbox.files import FileMetadata

from orchestrator import clients
from orchestrator.clients import Stored
from orchestrator.digest import ContentHash

CHUNK = 8 << 20  # chunk_size of the template


class Client(clients.Client):
    def __init__(self, storage: Any) -> None:
        self._dropbox = storage.client

    def probe(self, prefix: str, source: Path) -> None:  # noqa: ARG002
        """Ask for a listing; a folder that is not there yet is made by the first save()."""
        self._page(prefix, limit=1)

    def _page(self, prefix: str, **how: Any) -> Any:
        try:
            return self._dropbox.files_list_folder(prefix.rstrip("/"), **how)
        except ApiError as error:
            if error.error.is_path() and error.error.get_path().is_not_found():
                return None
            raise

    def objects(self, prefix: str) -> Iterator[Stored]:
        """List with names in their own case; the folders of `prefix` may have any."""
        depth = prefix.count("/")
        page = self._page(prefix, recursive=True)
        while page:
            for item in page.entries:
                if isinstance(item, FileMetadata):
                    name = "/".join(item.path_display.split("/")[depth:])
                    found = item.content_hash
                    yield Stored(key=prefix + name, size=item.size, hash=found, tag=found)
            more = page.has_more
            page = self._dropbox.files_list_folder_continue(page.cursor) if more else None

    def hasher(self) -> ContentHash:
        return ContentHash()

    def puts(self, size: int) -> int:
        """Count a session's start, its further chunks, its end, and a share of the commit."""
        return 2 + size // CHUNK
