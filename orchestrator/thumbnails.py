"""The contact sheet: sampled pictures as the new store gives them back, beside the originals."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Final

from PIL import Image, ImageOps

from orchestrator.job import Job
from orchestrator.ledger import Row

MOST: Final = 24
EDGE: Final = 240  # pixels of the longer side
BIGGEST: Final = 40 << 20  # bytes of a file that is worth reading for a thumbnail
PICTURES: Final = ("image/jpeg", "image/png", "image/webp", "image/gif")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Two small JPEGs as data: URLs."""

    name: str
    original: str
    stored: str


def contact_sheet(job: Job) -> list[Picture]:
    kinds = ", ".join(f"'{kind}'" for kind in PICTURES)
    rows = job.ledger.rows(
        f"state = 'verified' AND readback = 'ok' AND type IN ({kinds}) AND size < {BIGGEST}"
    )
    pictures = (picture for row in rows if (picture := _picture(job, row)))
    return list(islice(pictures, MOST))


def _picture(job: Job, row: Row) -> Picture | None:
    """Return None for what is no picture after all: its bytes are proven by other means."""
    try:
        with job.path(row).open("rb") as file:
            original = _thumbnail(file)
        with job.own_target().storage.open(row.name, "rb") as file:
            stored = _thumbnail(io.BytesIO(file.read()))
    except Exception:  # noqa: BLE001  # of Pillow on hostile files, and of any SDK
        job.forget_target()
        return None
    return Picture(name=row.name, original=original, stored=stored)


def _thumbnail(file: BinaryIO) -> str:
    with Image.open(file) as image:
        image.draft("RGB", (2 * EDGE, 2 * EDGE))
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((EDGE, EDGE))
        out = io.BytesIO()
        upright.convert("RGB").save(out, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
