"""Draw the media folder of a made-up family site: photos, avatars, documents, names as people give.

The same seed draws the same bytes, with the same version of Pillow.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

try:
    from PIL import Image, ImageDraw, ImageFont, ImageOps
except ImportError:
    sys.exit("The samples are drawn with Pillow.\n  TIP: pip install Pillow, in this environment.")

if TYPE_CHECKING:
    from collections.abc import Callable

MEBIBYTE = 1024 * 1024
ORIENTATION, DESCRIPTION, TAKEN = 0x0112, 0x010E, 0x0132  # EXIF tags
TURNED = {  # EXIF orientation → how a camera held that way stores the picture
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
ALBUMS = ("2019 Été à la mer", "Weihnachten bei Oma", "Björns Hochzeit", "picnic", "jardín 🌻")
MOMENTS = ("At the lake", "The whole family", "Grandma's garden", "First snow", "Birthday 🎂")
COUSINS = ("anna", "björn", "chloé", "dmitri", "elif", "josé maría", "zoë")
SKIES = (
    ("#274690", "#f4d6a0"),
    ("#0b132b", "#5b7db1"),
    ("#6fb1fc", "#eaf6ff"),
    ("#ff7e5f", "#feb47b"),
    ("#355c7d", "#f67280"),
)
HILLS = ("#2d6a4f", "#40916c", "#74a57f", "#588157", "#8a9a5b", "#3a5a40")
CLOTHES = ("#e63946", "#f1faee", "#457b9d", "#ffb703", "#9d4edd", "#2a9d8f", "#fb8500")


class Scene(NamedTuple):
    """A picture being drawn, and the dice that decide how."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    dice: random.Random


def make_media(folder: Path, *, seed: int = 1, images: int = 300) -> None:
    """Fill `folder`, which must be new or empty, with `images` pictures and a few other files."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; the samples want a folder of their own.")
    for number in range(images):
        # A seed of its own for each picture: more pictures leave the first ones as they were.
        dice = random.Random(f"{seed}/{number}")
        suffix, save = FORMATS[number % len(FORMATS)]
        write(folder / picture_name(number, suffix, dice), save(dice))
    for name, content in documents(random.Random(seed)).items():
        write(folder / name, content)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def picture_name(number: int, suffix: str, dice: random.Random) -> str:
    if number % 10 == 9:
        return f"avatars/{dice.choice(COUSINS)}_{number:04d}{suffix}"
    album = dice.choice(ALBUMS)
    title = dice.choice((f"IMG_{number:04d}", f"{dice.choice(MOMENTS)} {number}"))
    return f"galleries/{album}/{title}{suffix}"


# Scenes


def scene(dice: random.Random, width: int, height: int) -> Image.Image:
    image = sky(dice, width, height)
    drawn = Scene(image, ImageDraw.Draw(image), dice)
    sun(drawn)
    for layer in range(4):
        hill(drawn, layer)
    for _ in range(dice.randint(25, 60)):
        tree(drawn)
    house(drawn)
    for _ in range(dice.randint(2, 7)):
        cousin(drawn)
    caption(drawn)
    return image


def sky(dice: random.Random, width: int, height: int) -> Image.Image:
    top, bottom = dice.choice(SKIES)
    gradient = Image.linear_gradient("L").resize((width, height))
    return ImageOps.colorize(gradient, top, bottom)


def sun(drawn: Scene) -> None:
    width, height = drawn.image.size
    x, y = drawn.dice.uniform(0.1, 0.9) * width, drawn.dice.uniform(0.08, 0.3) * height
    for radius, color in ((0.09, "#ffe8a3"), (0.07, "#fff3c4"), (0.05, "#ffffff")):
        drawn.draw.circle((x, y), radius * height, fill=color)


def hill(drawn: Scene, layer: int) -> None:
    width, height = drawn.image.size
    base = height * (0.45 + 0.13 * layer)
    swing, waves = height * drawn.dice.uniform(0.03, 0.09), drawn.dice.uniform(1, 4)
    phase = drawn.dice.uniform(0, math.tau)
    ridge = [
        (x, base + swing * math.sin(phase + waves * math.tau * x / width))
        for x in range(0, width + 8, 8)
    ]
    drawn.draw.polygon([*ridge, (width, height), (0, height)], fill=drawn.dice.choice(HILLS))


def tree(drawn: Scene) -> None:
    width, height = drawn.image.size
    x, y = drawn.dice.uniform(0, width), drawn.dice.uniform(0.55, 0.95) * height
    size = height * 0.12 * (y / height)
    drawn.draw.rectangle((x - size / 12, y, x + size / 12, y + size / 2), fill="#5c4033")
    for step in range(3):
        top = y - size * (0.4 + 0.35 * step)
        half = size * (0.45 - 0.1 * step)
        crown = [
            (x, top - size * 0.4),
            (x - half, top + size * 0.45),
            (x + half, top + size * 0.45),
        ]
        drawn.draw.polygon(crown, fill=drawn.dice.choice(HILLS), outline="#1b4332")


def house(drawn: Scene) -> None:
    width, height = drawn.image.size
    x, y = drawn.dice.uniform(0.1, 0.7) * width, 0.62 * height
    w, h = 0.2 * width, 0.16 * height
    drawn.draw.rectangle((x, y, x + w, y + h), fill="#f5ebe0", outline="#6b4f3a", width=2)
    roof = [(x - w * 0.1, y), (x + w / 2, y - h * 0.7), (x + w * 1.1, y)]
    drawn.draw.polygon(roof, fill="#9c4a2f", outline="#5a2a1a")
    for column in (0.15, 0.65):
        left = x + w * column
        window = (left, y + h * 0.25, left + w * 0.2, y + h * 0.6)
        drawn.draw.rectangle(window, fill="#a2d2ff", outline="#6b4f3a", width=2)


def cousin(drawn: Scene) -> None:
    width, height = drawn.image.size
    x, y = drawn.dice.uniform(0.1, 0.9) * width, drawn.dice.uniform(0.75, 0.85) * height
    size = height * drawn.dice.uniform(0.1, 0.16)
    coat = [(x, y - size * 0.2), (x - size * 0.3, y + size * 0.6), (x + size * 0.3, y + size * 0.6)]
    drawn.draw.polygon(coat, fill=drawn.dice.choice(CLOTHES), outline="#222222")
    drawn.draw.circle((x, y - size * 0.35), size * 0.18, fill="#e0ac69", outline="#7a4f2a")


def caption(drawn: Scene) -> None:
    width, height = drawn.image.size
    font = ImageFont.load_default(size=height / 22)
    year = drawn.dice.randint(1968, 2025)
    text = f"{drawn.dice.choice(MOMENTS[:4])}, {year}"
    drawn.draw.text((width * 0.03, height * 0.92), text, "white", font, stroke_width=1)


# Formats


def jpeg(dice: random.Random) -> bytes:
    """Draw a photo; a third of them were taken with the camera turned, as EXIF says."""
    photo = scene(dice, 1280, 960)
    exif = Image.Exif()
    exif[DESCRIPTION] = dice.choice(MOMENTS[:4])
    exif[TAKEN] = f"{dice.randint(1999, 2025)}:07:{dice.randint(1, 31):02d} 12:00:00"
    turned = dice.choice((1, 1, 1, 1, *TURNED))
    exif[ORIENTATION] = turned
    if turned in TURNED:
        photo = photo.transpose(TURNED[turned])
    return saved(photo, "JPEG", quality=88, exif=exif)


def png(dice: random.Random) -> bytes:
    return saved(scene(dice, 800, 600), "PNG", compress_level=4)


def webp(dice: random.Random) -> bytes:
    return saved(scene(dice, 960, 720), "WEBP", quality=88, method=1)


def gif(dice: random.Random) -> bytes:
    first, *others = [scene(dice, 320, 240) for _ in range(3)]
    return saved(first, "GIF", save_all=True, append_images=others, duration=700, loop=0)


def svg(dice: random.Random) -> bytes:
    """Write a family tree."""
    people = "".join(person(dice, 60 + 110 * (n % 8), 80 + 130 * (n // 8)) for n in range(40))
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 720">'
    return f"{head}<title>Family tree</title>{people}</svg>\n".encode()


def person(dice: random.Random, x: int, y: int) -> str:
    color, name = dice.choice(CLOTHES), dice.choice(COUSINS).title()
    return (
        f'<g transform="translate({x} {y})">'
        f'<circle r="34" fill="{color}" stroke="#333"/>'
        f'<text y="54" text-anchor="middle" font-size="15">{name}</text></g>\n'
    )


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FORMATS: tuple[tuple[str, Callable[[random.Random], bytes]], ...] = (
    (".jpg", jpeg),
    (".jpg", jpeg),
    (".JPG", jpeg),
    (".jpeg", jpeg),
    (".png", png),
    (".jpg", jpeg),
    (".webp", webp),
    (".gif", gif),
    (".jpg", jpeg),
    (".png", png),
    (".svg", svg),
)


# Documents


def documents(dice: random.Random) -> dict[str, bytes]:
    """Write what else a family keeps; one file is large enough to travel in several parts."""
    people = [(name.title(), dice.randint(1930, 2020)) for name in COUSINS]
    table = io.StringIO()
    csv.writer(table).writerows([("name", "born"), *people])
    letter = "Dear cousins,\n\nthe reunion is on the first Sunday of July. Bring cake.\n"
    return {
        "documents/Family reunion (programme).pdf": pdf(dice),
        "documents/birthdays.csv": table.getvalue().encode(),
        "documents/Liebe Größe aus Zürich.txt": (letter * 20).encode(),
        "documents/empty.txt": b"",
        "documents/old album.bin": dice.randbytes(20 * MEBIBYTE),
        "galleries/albums.json": json.dumps({"albums": ALBUMS}, ensure_ascii=False).encode(),
        "galleries/picnic/🎂 cake.jpg": jpeg(dice),
        "galleries/.album-order": "\n".join(ALBUMS).encode(),
    }


def pdf(dice: random.Random) -> bytes:
    first, *others = [scene(dice, 800, 600) for _ in range(3)]
    day = time.gmtime(0)  # without a date Pillow writes the present one, and the bytes differ
    dates = {"creationDate": day, "modDate": day}
    return saved(first, "PDF", save_all=True, append_images=others, **dates)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python scripts/sample_media.py /tmp/media --images 50"
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new or empty folder")
    parser.add_argument("--images", type=int, default=300, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other pictures")
    arguments = parser.parse_args()
    try:
        make_media(arguments.folder, seed=arguments.seed, images=arguments.images)
    except OSError as error:
        parser.exit(2, f"{error}\n")
    files = [path.stat().st_size for path in arguments.folder.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(files) / MEBIBYTE:.1f} MiB in {arguments.folder}")


if __name__ == "__main__":
    main()
