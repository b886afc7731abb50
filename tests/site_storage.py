"""A site's own storage class, which gives each object the headers that fit its name."""

from __future__ import annotations

from typing import Any

from storages.backends.s3 import S3Storage


class ByName(S3Storage):  # type: ignore[misc]  # django-storages has no types
    def get_object_parameters(self, name: str) -> dict[str, Any]:
        found = dict(super().get_object_parameters(name))
        folder, _, last = name.rpartition("/")
        if last.lower().endswith((".pdf", ".docx")):
            found["ContentDisposition"] = f'attachment; filename="{last}"'
        if last.endswith(".tar.gz"):
            found["ContentType"] = "application/gzip"
        if folder:
            found["CacheControl"] = "private, no-store"
            found["Metadata"] = {"Folder": folder.lower()}
        return found


class ByFolder(S3Storage):  # type: ignore[misc]  # django-storages has no types
    """Spreads the objects over folders that no name tells."""

    def _normalize_name(self, name: str) -> str:
        key: str = super()._normalize_name(name)
        return f"{sum(key.encode()) % 7}/{key}"
