"""The published schema describes every report, and the schema and the program change together."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.ledger import Change, State
from orchestrator.pipeline import COMMANDS
from orchestrator.readback import Statement
from orchestrator.report import Count, Forecast, Named, Previous, Report, Verdict
from tests.servers.base import Options, Server
from tests.site import Result, Site
from tests.typed import ROOT

SCHEMA: dict[str, Any] = json.loads((ROOT / "docs" / "report.schema.json").read_text())
PROPERTIES = SCHEMA["properties"]


def names(thing: Any) -> set[str]:
    return {field.name for field in fields(thing)} if is_dataclass(thing) else set(thing)


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of fixed keys in the schema."""
    if isinstance(schema, list):
        for item in schema:
            yield from objects(item)
    elif isinstance(schema, dict):
        if "required" in schema and "properties" in schema:
            yield schema
        for item in schema.values():
            yield from objects(item)


def one_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = PROPERTIES[name]["oneOf"][1]
    return found


def test_the_schema_is_valid_and_lists_exactly_the_keys_of_the_report() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(PROPERTIES) == names(Report) | {"unaccounted"}
    assert set(one_of("sample")["properties"]) == names(Statement)
    assert set(one_of("forecast")["properties"]) == names(Forecast)
    assert set(one_of("previous")["properties"]) == names(Previous)
    assert set(SCHEMA["$defs"]["count"]["properties"]) == names(Count)
    assert set(SCHEMA["$defs"]["named"]["items"]["properties"]) == names(Named)
    for item in objects(SCHEMA):
        assert set(item["required"]) == set(item["properties"])
        assert item["additionalProperties"] is False


def test_the_schema_lists_exactly_the_words_of_the_program() -> None:
    assert set(PROPERTIES["verdict"]["enum"]) == set(Verdict)
    assert set(PROPERTIES["command"]["enum"]) == set(COMMANDS)
    assert set(PROPERTIES["states"]["propertyNames"]["enum"]) == set(State) - {State.GONE}
    assert set(PROPERTIES["changes"]["propertyNames"]["enum"]) == set(Change)


def assert_valid(done: Result, site: Site) -> None:
    """Validate the report in the run folder, and find the same in the last line of --json."""
    path = max(site.runs.glob("2*")) / "report.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(
        SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    ).validate(report)
    event = {**done.report}
    assert (event.pop("event"), event.pop("exit_code")) == ("report", done.code)
    assert event == report
    assert report["unaccounted"] == 0
    assert sum(count["files"] for count in report["states"].values()) == report["entries"]["files"]
    assert site.options["secret_key"] not in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.on("rclone_s3")
def test_every_listed_file_can_be_found_by_its_exact_name(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    hard = ("a\x01", "a\x02\\x01", "a\u201b\u240a")
    for name in (*hard, b"raw\xff", r"a\x01"):
        site.add(name)
    planned = site.plan().report
    listed = [*planned["hard_names"], *planned["trouble"]]
    found = {os.fsencode(item["exact"] or b64decode(item["base64"])) for item in listed}
    assert found == {os.fsencode(path.name) for path in site.media.iterdir()}
    assert {item["name"] for item in listed if item["base64"]} == {r"raw\udcff"}
    twins = [item["exact"] for item in listed if item["name"] == r"a\x01"]
    assert sorted(twins) == ["a\x01", r"a\x01"]


@pytest.mark.on("rclone_s3")
def test_every_kind_of_report_fits_the_schema(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    for name in ("a.jpg", "b/c.css", "b/look\u2024alike", b"raw\xff", "d/e.tmp", "big.bin"):
        site.add(name, b"x" * (9_000_000 if name == "big.bin" else 10))
    os.symlink("nowhere", site.media / "dangling")  # noqa: PTH211  # a link to nothing
    planned = site.plan("--bandwidth", "8")
    assert (planned.code, planned.report["verdict"]) == (0, "planned")
    assert_valid(planned, site)
    incomplete = site.migrate("--skip-refused", "--exclude", "*.tmp")
    assert (incomplete.code, incomplete.report["verdict"]) == (7, "incomplete")
    assert_valid(incomplete, site)
    verified = site.migrate("--exclude", "raw*")
    assert (verified.code, verified.report["verdict"]) == (0, "verified")
    assert_valid(verified, site)
    again = site.run("check")
    assert (again.code, again.report["command"]) == (0, "check")
    assert_valid(again, site)
    with server.proxied(bucket) as (options, proxy):
        proxy.answer(403, b"<Error><Code>AccessDenied</Code></Error>", matching="^PUT", times=99)
        other = Site.on(server, {**options, "location": "other"}, tmp_path)
        failed = other.migrate("--skip-refused")
    assert (failed.code, failed.report["verdict"]) == (5, "failed")
    assert_valid(failed, other)
