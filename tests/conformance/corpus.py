"""The file types and the hostile names that every storage has to take as Django takes them."""
# ruff: noqa: RUF001, SIM905  # look-alikes are what it is about, and lists are read in rows

from __future__ import annotations

import os
from collections.abc import Mapping
from random import Random

EXTENSIONS = """
    jpg jpeg png gif webp avif heic heif svg svgz ico bmp tiff
    mp4 mov mkv webm avi m4v 3gp wmv mpg ts mp3 m4a wav ogg flac
    pdf doc docx xlsx odt epub rtf txt csv md vcf ics
    json xml css js html htm py ttf woff2
    zip tar tar.gz tar.bz2 tar.xz tgz gz bz2 xz
""".split()
TYPES = (
    *(f"type.{extension}" for extension in EXTENSIONS),
    *("noext", "UPPER.JPG", "UPPER.SVG", "UPPER.TAR.GZ", "Mixed.TxT", ".hidden", ".hidden.png"),
    *("a.b.c.PDF", "weird.unknownext", "ends.with.", "two words.jpeg", "folder.gz/plain", "x.jpg~"),
)
SOME = (
    *(f"type.{e}" for e in "jpg heic svg svgz txt css js json html tar.gz".split()),
    *TYPES[-13:],
)
"""Each way of finding a type and an encoding: for the runs with options, a batch being a second."""

MIB = 1 << 20
SIZES = (0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 16 * MIB, 21 * MIB + 17)
"""Around the size from which boto3 sends a file in parts, and around the size of those."""

LIMIT = 1024  # bytes of a key that S3 takes


def long_name(length: int) -> str:
    """Return a name of so many bytes, in folders: a file system takes 255 bytes a component."""
    folders, rest = divmod(length - 20, 201)
    return ("d" * 200 + "/") * folders + "f" * (rest + 16) + ".jpg"


NFC, NFD = "\u00e9", "e\u0301"
HOSTILE: Mapping[str, tuple[str, ...]] = {
    "plain": ("plain.jpg", "deep/er/plain.jpg"),
    "unicode": (
        *(f"twins/caf{NFC}.jpg", f"twins/caf{NFD}.jpg", f"{NFC}/x.jpg", f"{NFD}/x.jpg"),
        *("emoji 🎉.jpg", "family 👨‍👩‍👧.jpg", "flag 🏴‍☠️.jpg", "漢字.jpg"),
        *("\u1100\u1161.jpg", "\uac00.jpg"),
        *("ﬁ.jpg", "\u00c5.jpg", "\u212b.jpg", "ẞ.jpg", "İ.jpg"),
        *("\U0010ffff.jpg", "\ufffd.jpg", "\uffff.jpg"),
    ),
    "case": ("case/photo.jpg", "case/PHOTO.JPG", "case/Photo.jpg", "Case/photo.jpg"),
    "control": (
        *("line\nend.jpg", "\nfirst.jpg", "last.jpg\n", "folder\nend/x.jpg"),
        "carriage\rreturn.jpg",
        *("\rfirst.jpg", "last.jpg\r", "both\r\nends.jpg", "folder\r/x.jpg", "tab\t.jpg"),
        "\ttab.jpg",
        *("bell\x07.jpg", "escape\x1b[31m.jpg", "\x01.jpg", "\x1f.jpg", "delete\x7f.jpg"),
        *("form\x0cfeed.jpg", "vertical\x0btab.jpg", "unit\x1c\x1d\x1e.jpg"),
        *("next\x85line.jpg", "line\u2028separator.jpg", "paragraph\u2029.jpg"),
    ),
    "backslash": (
        *("mid\\dle.jpg", "\\start.jpg", "end\\", "end.jpg\\", "two\\\\.jpg", "fol\\der/x.jpg"),
        *("dot\\..\\up.jpg", "..\\up.jpg", ".\\here.jpg", "C:\\x.jpg", "\\", "\\\\server\\x.jpg"),
        *("literal\\n.jpg", "literal\\x01.jpg"),
    ),
    "look-alike": (
        *("‛.jpg", "‛‛ two.jpg", "‛␊.jpg", "‛␀.jpg", "‛／.jpg", "‛．", "‛FF.jpg", "a‛", "‛/x.jpg"),
        *(f"picture {c}.jpg" for c in "␀␁␉␊␍␛␟␠␡␢␣␤␥␦"),
        *("␀", "␊/x.jpg", "␠x.jpg", "x.jpg␠"),
        *("a／b.jpg", "／", "／／.jpg", "．", "．．", "in/．/x.jpg", "in/．．/x.jpg"),
        *("．x．", "．．．"),
        *("＼.jpg", "＊.jpg", "：.jpg", "？.jpg", "＂＜＞｜.jpg", "＃％.jpg", "～.jpg", "＇｀.jpg"),
    ),
    "dots and spaces": (
        *(".dot", "..two", "...", "....", "in/.../x.jpg", "x.", "x..", "x...", "dot./x.jpg"),
        *(". ", ".. ", " .", "a. .jpg", " lead.jpg", "  two.jpg", "trail.jpg ", "trail  "),
        "a  b.jpg",
        *("in/ ", "sp/ /x.jpg", "folder /x.jpg", "~", "~x.jpg", "x~"),
    ),
    "invisible": (
        *("no\u00a0break.jpg", "\u00a0.jpg", "zero\u200bwidth.jpg", "joi\u200dner.jpg"),
        "\u200f.jpg",
        *("rtl\u200fmark.jpg", "bidi\u202egpj.exe", "iso\u2066late\u2069.jpg"),
        "soft\u00adhyphen.jpg",
        *("wide\u3000space.jpg", "thin\u2009.jpg", "\u2060.jpg", "tag\U000e0041.jpg", "עברית.jpg"),
        *("\ufeffbom.jpg", "\ufeffbom.first-in-its-list", "mid\ufeffbom.jpg", "\ufffe.jpg"),
    ),
    "of URLs": (
        *("%2F.jpg", "%20.jpg", "%2e%2e.jpg", "%.jpg", "%%.jpg", "%zz.jpg", "%00.jpg", "%0A.jpg"),
        *("#.jpg", "?.jpg", "&.jpg", "+.jpg", "=.jpg", "#?&+=;,@$.jpg", "a?b=c&d#e.jpg"),
        "a+b c.jpg",
        *("a:b", "a:b.jpg", ":", "http:x.jpg", "data:image", "data:image.jpg", "data:text,x.jpg"),
    ),
    "of shells and patterns": (
        *("-rf", "--help", "-", "- x.jpg", "+ x.jpg", "! x", "#comment.jpg", ";comment.jpg"),
        *("*", "**", "?", "[x]", "[!x].jpg", "{y}", "{a,b}.jpg", "{{x}}.jpg", "(x).jpg"),
        "$HOME.jpg",
        *("'.jpg", '".jpg', "`id`.jpg", "$(id).jpg", "a|b.jpg", "a>b.jpg", "a<b.jpg", "a;b.jpg"),
        *("<script>alert(1)<", "a&amp;b.jpg", "^.jpg", "!.jpg", "a,b.jpg", "%s%n.jpg", "{0}.jpg"),
    ),
    "of systems": (
        *("CON", "nul.txt", "AUX.jpg", "com1", "Thumbs.db", ".DS_Store", "desktop.ini", "~$x.docx"),
        *("x.partial", ".x.partial", "x.rclone", "x.bin.rclone_chunk.001", ".metadata", "x.meta"),
    ),
    "long": (
        *("l" * 251 + ".jpg", "é" * 125 + "x.jpg", "🎉" * 62 + "x.jpg", "p" * 255),
        *("deeper/" * 90 + "x.jpg", "s/" * 150 + "x.jpg", long_name(LIMIT), long_name(LIMIT + 1)),
    ),
    "bytes": tuple(
        os.fsdecode(name)
        for name in (
            *(b"raw-\xff\xfe.jpg", b"\x80", b"latin-\xe9.jpg"),
            *(b"fol\xe9der/x.jpg", b"\xed\xa0\x80.jpg"),
        )
    ),
}
"""No two of them ask for one object, where names are taken byte by byte."""


def content(name: str) -> bytes:
    """Return what the file `name` holds: no other file holds the same."""
    return b"content of " + name.encode("utf-8", "surrogateescape")


def noise(size: int) -> bytes:
    """Return so many bytes that do not repeat; the same for the same size."""
    return Random(size).randbytes(size)
