"""The dry-run report tells what a migration will do, and the migration then does that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.servers.base import Options, Server
from tests.site import Site
from tests.typed import typed

MIB = 1 << 20
SMALL = {f"photos/{n}.jpg": b"%d" % n for n in range(60)}
FILES = {
    **SMALL,
    "notes/a.txt": b"note",
    "notes/empty": b"",
    "films/long.mp4": b"f" * (9 * MIB + 5),
    "films/exact.mp4": b"f" * (8 * MIB),
    "odd/line\nend.txt": b"odd",
    "odd/look\u201b\u240aalike.txt": b"odd",
}


@pytest.fixture
def site(server: Server, bucket: Options, tmp_path: Path) -> Site:
    site = Site.on(server, bucket, tmp_path)
    for name, data in FILES.items():
        site.add(name, data)
    return site


def size(prefix: str) -> int:
    return sum(len(data) for name, data in FILES.items() if name.startswith(prefix))


@pytest.mark.on("rclone_s3")
def test_a_plan_tells_counts_bytes_types_folders_and_hard_names(
    site: Site, server: Server, bucket: Options
) -> None:
    site.add(b"raw\xff.jpg")
    site.add("theirs.txt", b"ours")
    server.put(bucket, "theirs.txt", b"theirs!")
    report = site.plan("--bandwidth", "8", "--exclude", "notes/empty").report
    assert {state: count["files"] for state, count in report["states"].items()} == {
        "planned": len(FILES) - 1,
        "excluded": 1,
        "refused": 1,
        "conflict": 1,
    }
    assert report["states"]["planned"]["bytes"] == size("")
    assert report["types"]["image/jpeg"] == {"files": 60, "bytes": size("photos/")}
    assert report["types"]["video/mp4"] == {"files": 2, "bytes": size("films/")}
    assert report["folders"]["films/"] == {"files": 2, "bytes": size("films/")}
    assert report["folders"]["notes/"] == {"files": 2, "bytes": size("notes/")}
    assert report["folders"]["."]["files"] == 2
    assert sorted(item["name"] for item in report["hard_names"]) == [
        r"odd/line\nend.txt",
        "odd/look\u201b\u240aalike.txt",
    ]
    assert {item["reason"] for item in report["hard_names"]} == {"rclone cannot be given this name"}
    assert sorted(item["state"] for item in report["trouble"]) == ["conflict", "refused"]
    assert report["forecast"]["seconds"] == {"8": round(size("") / 1_000_000, 1)}


@pytest.mark.on("rclone_s3")
def test_a_plan_reads_well_as_text_and_as_markdown(site: Site) -> None:
    site.write_env()
    site.add("<b>*bold*|_x_.jpg", b"1")
    site.add(b"raw\xff.jpg")
    seen = typed(site.folder, "--quiet", "plan", **site.variables)
    text = seen.out
    assert text.startswith(f"PLANNED: {len(FILES) + 1} files (17.0 MiB) would be copied.\n")
    for line in (
        r"types .*2 video/mp4 \(17\.0 MiB\), 61 image/jpeg",
        r"folders .*2 films/ \(17\.0 MiB\)",
        r"forecast +\d+ write requests, \d+ list requests; \d+ s at 10 Mbit/s, ",
        r"~ odd/line\\nend\.txt: saved by the class: rclone cannot be given this name",
        r"! raw\\udcff\.jpg: .*Django cannot address it",
        r"next: rename or --exclude the refused files, or migrate with --skip-refused",
    ):
        assert re.search(line, text), text
    assert max(map(len, text.splitlines())) < 300
    (run,) = site.runs.glob("2*")
    markdown = (run / "report.md").read_text(encoding="utf-8")
    assert "| films/ | 2 | 17.0 MiB |" in markdown
    assert "| image/jpeg | 61 |" in markdown
    assert r"| odd/line\\nend.txt | planned | rclone cannot be given this name |" in markdown
    assert "<b>" not in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    for line in tables:
        assert len(re.findall(r"(?<!\\)\|", line)) == 4, line


@pytest.mark.on("rclone_s3")
@pytest.mark.parametrize("extra", [{}, {"gzip": True}])
def test_the_forecast_of_requests_is_what_the_migration_sends(
    extra: dict[str, bool], site: Site, server: Server, bucket: Options
) -> None:
    with server.proxied({**bucket, **extra}) as (options, proxy):
        same = Site.on(server, options, site.folder)
        forecast = same.plan().report["forecast"]
        early = proxy.writes
        planning = len(proxy.requests)
        done = same.migrate()
        assert (done.code, done.states()) == (0, {"verified": len(FILES)}), done.out
        writes = len(proxy.writes)
        once = {(request.method, request.path, request.query) for request in proxy.writes}
        lists = sum("prefix=" in r.query or "list-type" in r.query for r in proxy.requests)
    assert early == ()
    assert abs(forecast["requests"]["write"] - writes) <= 0.05 * writes
    assert forecast["requests"]["write"] == len(once)  # a lost one is sent again
    assert lists - planning <= 2 * forecast["requests"]["list"] + 10


@pytest.mark.on("rclone_s3")
def test_the_next_forecast_uses_the_bandwidth_that_was_measured(site: Site) -> None:
    assert site.migrate("--bwlimit", "8M").code == 0
    site.add("new.bin", b"n" * MIB)
    forecast = site.plan().report["forecast"]
    assert forecast["measured"] is True
    ((mbit, seconds),) = forecast["seconds"].items()
    assert float(mbit) < 8 * 8.4
    assert seconds == pytest.approx(MIB / (float(mbit) * 125_000), rel=0.1, abs=0.1)
    assert (forecast["files"], forecast["requests"]["write"]) == (1, 1)
    assert site.plan("--bandwidth", "100").report["forecast"]["measured"] is False
