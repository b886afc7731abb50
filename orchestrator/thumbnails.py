"""The contact sheet: sampled pictures as the new store gives them back, beside the originals."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path
from typing import BinaryIO, Final

MOST: Final = 24
EDGE: Final = 240  # pixels of the longer side
BIGGEST: Final = 40 << 20  # bytes of a file that is worth reading for a thumbnail
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
PICTURES: Final = ("image/jpeg", "image/png", "image/webp", "image/gif")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Two small JPEGs as data: URLs."""

    name: str
    original: str
    stored: str


def worth_showing(name: str, content_type: str | None, size: int) -> bool:
    """Go by the type that the object gets; a folder gives it none."""
    return (content_type or guess_type(name)[0]) in PICTURES and size < BIGGEST


def picture(path: Path, name: str, stored: BinaryIO) -> Picture | None:
    """Return None for what is no picture after all: its bytes are proven by other means."""
    try:
        stored.seek(0)
        with path.open("rb") as file:
            return Picture(name=name, original=_thumbnail(file), stored=_thumbnail(stored))
    except Exception:  # noqa: BLE001  # of Pillow on hostile files
        return None


def _thumbnail(file: BinaryIO) -> str:
    from PIL import Image, ImageOps  # as costly to import as a small run

    with Image.open(file, formats=FORMATS) as image:  # what claims to be a JPEG may be PostScript
        image.draft("RGB", (2 * EDGE, 2 * EDGE))
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((EDGE, EDGE))
        out = io.BytesIO()
        upright.convert("RGB").save(out, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
