"""Our values are those of the real django-environ, or an error names the line."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import environ
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.envfile import Settings, read
from orchestrator.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CLASS = "MEDIA_STORAGE=storages.backends.s3.S3Storage\n"
NAME = "MEDIA_STORAGE_OPTIONS"
SECRET = "s3cr3tvalue"
QUOTED = f"""'{{"secret_key": "{SECRET}"}}'"""


def oracle(path: Path, variables: Mapping[str, str]) -> Any:
    site: Any = type("Site", (environ.Env,), {"ENVIRON": dict(variables)})
    site.read_env(path)
    return site()


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "site.env"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def holds_like_the_site(found: Settings, path: Path, variables: Mapping[str, str]) -> None:
    site = oracle(path, variables)
    assert found.storage_class == site.str("MEDIA_STORAGE")
    # A missing variable is the one thing that the storage stage judges.
    assert found.options == site.json(NAME, default={})
    for name, value in found.variables.items():
        assert site.ENVIRON[name] == value
    unaccounted = set(site.ENVIRON) - set(variables) - set(found.variables) - set(found.disputed)
    assert unaccounted <= {"MEDIA_STORAGE", NAME}


def refused(path: Path | None, variables: Mapping[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(path, variables)
    assert caught.value.__context__ is None
    assert all(problem.tip for problem in caught.value.problems)
    text = str(caught.value)
    assert SECRET not in text
    assert SECRET not in repr(caught.value)
    return text


ACCEPTED = {
    "single quotes": f"{CLASS}{NAME}={QUOTED}\n",
    "no final newline": f"{CLASS}{NAME}={QUOTED}",
    "no quotes": f'{CLASS}{NAME}={{"a":"b c"}}\n',
    "double quotes around a class": f'MEDIA_STORAGE="a.B"\n{NAME}={{}}\n',
    "single quotes around a class": f"MEDIA_STORAGE='a.B'\n{NAME}={{}}\n",
    "hash in a value": f"""{CLASS}{NAME}='{{"a": "b#c # d"}}'\n""",
    "hash without quotes": f'{CLASS}{NAME}={{"a":"b#c"}}\n',
    "dollar in a value": f"""{CLASS}{NAME}='{{"a": "$b ${{HOME}} \\\\u0024"}}'\n""".replace(
        "\\\\", "\\"
    ),
    "export": f"export {CLASS}export {NAME}={QUOTED}\n",
    "CRLF": f"{CLASS}{NAME}={QUOTED}\n".replace("\n", "\r\n"),
    "lone CR": f"{CLASS}{NAME}={QUOTED}\n".replace("\n", "\r"),
    "unicode": f"""{CLASS}{NAME}='{{"a": "Zoë 文 🎂 e\u0301"}}'\n""",
    "JSON escapes": f"""{CLASS}{NAME}='{{"a": "x\\ny\\t\\"z\\" \\u005c \\u0027"}}'\n""",
    "spaces in the JSON": f"{CLASS}{NAME}='  {{ }}  '\n",
    "tab in the JSON": f"""{CLASS}{NAME}='{{"a":\t1}}'\n""",
    "comments and blank lines": f"# x\n\n{CLASS}\n   \n# {NAME}='{{}}'\n{NAME}='{{}}'\n",
    "duplicate lines, the last wins": f"MEDIA_STORAGE=old.C\n{CLASS}{NAME}=\n{NAME}='{{}}'\n",
    "first of two in doubt, second sure": f"MEDIA_STORAGE = old.C\n{CLASS}{NAME}='{{}}'\n",
    "options left out": CLASS,
    "options only in a comment": f"{CLASS}#{NAME}={QUOTED}\n",
    "lower-case name beside": f"{CLASS}{NAME}='{{}}'\nmedia_storage=x\n",
    "invalid line elsewhere": f"{CLASS}what is this\n{NAME}='{{}}'\n",
    "numbers": f"""{CLASS}{NAME}='{{"a": [1, 1.5, -0.0, 1e9, true, null]}}'\n""",
    "lone surrogate": f"""{CLASS}{NAME}='{{"a": "\\ud800"}}'\n""",
    "backslash in single quotes": f"""{CLASS}{NAME}='{{"a": "\\/"}}'\n""",
    "NBSP in a value": f"""{CLASS}{NAME}='{{"a": "b\u00a0c"}}'\n""",
}

REFUSED = {
    "space before =": (f"{CLASS}{NAME} ={QUOTED}\n", 2, "spaces around '='"),
    "space after =": (f"{CLASS}{NAME}= {QUOTED}\n", 2, "spaces around '='"),
    "tabs round =": (f"{CLASS}{NAME}\t=\t{QUOTED}\n", 2, "spaces around '='"),
    "space before the name": (f"{CLASS} {NAME}={QUOTED}\n", 2, "before the name"),
    "export and a tab": (f"{CLASS}export\t{NAME}={QUOTED}\n", 2, "`export`"),
    "export and two spaces": (f"{CLASS}export  {NAME}={QUOTED}\n", 2, "`export`"),
    "quoted name": (f"{CLASS}'{NAME}'={QUOTED}\n", 2, "name stands in quotes"),
    "BOM": (f"\ufeff{CLASS}{NAME}={QUOTED}\n", 1, "byte order mark"),
    "inline comment": (f"{CLASS}{NAME}={QUOTED} # mine\n", 2, "no comments"),
    "inline comment, no quotes": (f"MEDIA_STORAGE=a.B # c\n{NAME}='{{}}'\n", 1, "no comments"),
    "trailing space, quotes": (f"{CLASS}{NAME}={QUOTED} \n", 2, "end of the line"),
    "trailing space, none": (f"MEDIA_STORAGE=a.B \n{NAME}='{{}}'\n", 1, "end of the line"),
    "trailing tab": (f"MEDIA_STORAGE=a.B\t\n{NAME}='{{}}'\n", 1, "end of the line"),
    "trailing NBSP": (f"MEDIA_STORAGE=a.B\u00a0\n{NAME}='{{}}'\n", 1, "end of the line"),
    "several lines": (f"""{CLASS}{NAME}='{{\n"a": "{SECRET}"\n}}'\n""", 2, "several lines"),
    "inside another value": (f"A='x\n{CLASS}'\n{NAME}='{{}}'\n", 2, "several lines"),
    "form feed": (f"""{CLASS}{NAME}='{{"a": "b\fc"}}'\n""", 2, "ends the line"),
    "vertical tab": (f"""{CLASS}{NAME}='{{"a": "b\vc"}}'\n""", 2, "ends the line"),
    "file separator": (f"""{CLASS}{NAME}='{{"a": "b\x1cc"}}'\n""", 2, "ends the line"),
    "NEL": (f"""{CLASS}{NAME}='{{"a": "b\x85c"}}'\n""", 2, "ends the line"),
    "U+2028": (f"""{CLASS}{NAME}='{{"a": "b\u2028c"}}'\n""", 2, "ends the line"),
    "U+2029": (f"""{CLASS}{NAME}='{{"a": "b\u2029c"}}'\n""", 2, "ends the line"),
    "hidden by U+2028": (f"A=1\u2028{CLASS}{NAME}='{{}}'\n", 1, "ends the line"),
    "backslashes, single": (f"""{CLASS}{NAME}='{{"a": "b\\\\c"}}'\n""", 2, "u005c"),
    "quote escaped, single": (f"""{CLASS}{NAME}='{{"a": "b\\'c"}}'\n""", 2, "u0027"),
    "double quotes, \\a": (f'MEDIA_STORAGE="x\\a"\n{NAME}={{}}\n', 1, "in its own way"),
    "double quotes, \\n": (f'MEDIA_STORAGE="x\\ny"\n{NAME}={{}}\n', 1, "in its own way"),
    "double in single": (f"MEDIA_STORAGE='\"a.B\"'\n{NAME}='{{}}'\n", 1, "takes off both"),
    "unclosed single": (f"MEDIA_STORAGE='a.B\n{NAME}={{}}\n", 1, "not closed"),
    "quote within": (f"{CLASS}{NAME}='{{'a': 'b'}}'\n", 2, "not closed"),
    "JSON in double quotes": (f'{CLASS}{NAME}="{{"a": "b"}}"\n', 2, "not closed"),
    "duplicate": (f"{CLASS}MEDIA_STORAGE = b.C\n{NAME}='{{}}'\n", 2, "line 1; the last counts"),
    "CRLF and a space": (f"{CLASS}{NAME}={QUOTED} \n".replace("\n", "\r\n"), 2, "spaces at"),
    "lone CR and a space": (f"{CLASS}{NAME}={QUOTED} \n".replace("\n", "\r"), 2, "spaces at"),
    "after blank lines": (f"{CLASS}\n\n \n{NAME} = {QUOTED}\n", 5, "spaces around '='"),
    "whole value a variable": (f"{CLASS}A=1\n{NAME}=$A\n", 3, "starts with $"),
    "whole value in braces": (f"{CLASS}{NAME}=${{HOME}}\n", 2, "starts with $"),
    "a variable of itself": (f"{CLASS}{NAME}=${NAME}\n", 2, "starts with $"),
    "empty class": (f"MEDIA_STORAGE=\n{NAME}='{{}}'\n", 1, "is empty"),
    "empty options": (f"{CLASS}{NAME}=''\n", 2, "is empty"),
    "blank options": (f"{CLASS}{NAME}='  '\n", 2, "is empty"),
    "quotes within quotes": (f"""{CLASS}{NAME}="'{{}}'"\n""", 2, "docker run --env-file"),
    "no =": (f"{CLASS}{NAME}\n", 2, "not as NAME=value"),
    "YAML": (f"{CLASS}{NAME}: {QUOTED}\n", 2, "not as NAME=value"),
    "lower-case name": (f"media_storage=a.B\n{NAME}='{{}}'\n", 1, "not as NAME=value"),
    "name in double quotes": (f'"MEDIA_STORAGE"=a.B\n{NAME}={{}}\n', 1, "not as NAME=value"),
    "not UTF-8": (f"{CLASS}{NAME}=".encode() + b"'\xff'\n", 2, "not UTF-8"),
    "UTF-16": (f"{CLASS}{NAME}={QUOTED}\n".encode("utf-16"), 1, "not UTF-8"),
    "NUL": (f"{CLASS}A=\0{SECRET}\n{NAME}='{{}}'\n", 2, "not UTF-8"),
}


@pytest.mark.parametrize("content", ACCEPTED.values(), ids=ACCEPTED)
def test_an_accepted_file_gives_what_the_site_gets(tmp_path: Path, content: str) -> None:
    path = written(tmp_path, content)
    found = read(path, {})
    holds_like_the_site(found, path, {})
    assert found.source == path


@pytest.mark.parametrize(("content", "line", "why"), REFUSED.values(), ids=REFUSED)
def test_a_refused_file_names_line_and_reason(
    tmp_path: Path, content: str | bytes, line: int, why: str
) -> None:
    path = written(tmp_path, content)
    text = refused(path, {})
    assert f"{path} line {line}" in text
    assert why in text


BROKEN = {
    f'{{"secret_key": "{SECRET}"': 'after the key "secret_key"',
    f'{{"a": 1, "secret_key": "{SECRET}': 'after the key "secret_key"',
    f'{{"secret_key": "{SECRET}", }}': 'after the key "secret_key"',
    f'{{"secret_key": "{SECRET}": 1}}': 'after the key "secret_key"',
    '{"a": 1 "secret_key": 2}': 'after the key "a"',
    f"{{secret_key: '{SECRET}'}}": "character 2 of the value",
    f'{{"secret_key": "{SECRET}"}} {SECRET}': "character 31 of the value",
    f'"{SECRET}': "character 1 of the value",
    "[" * 100_000: "nested too deeply",
    '{"a": %s}' % ("1" * 5000): "too long",
}
# Read by json.loads without a word.
DOUBTFUL = {
    f'{{"secret_key": "{SECRET}", "secret_key": "x"}}': 'the key "secret_key" 2 times',
    f'{{"a": {{"b": "{SECRET}", "b": 1}}}}': 'the key "b" 2 times',
    '{"a": "x", "\\u0061": "y"}': 'the key "a" 2 times',
    '{"a": NaN}': "not finite",
    '{"a": Infinity}': "not finite",
    '{"a": [-Infinity]}': "not finite",
    '{"a": 1e999}': "not finite",
    f'["{SECRET}"]': "not an object: list",
    f'  "{SECRET}"': "not an object: str",
    "null": "not an object: NoneType",
    "1": "not an object: int",
}


@pytest.mark.parametrize(("value", "why"), (BROKEN | DOUBTFUL).items())
def test_unusable_json_is_explained_without_its_values(
    tmp_path: Path, value: str, why: str
) -> None:
    text = refused(None, {"MEDIA_STORAGE": "a.B", NAME: value})
    assert why in text
    assert "the environment: MEDIA_STORAGE_OPTIONS" in text
    if value in DOUBTFUL:
        json.loads(value)
    if "'" not in value:
        path = written(tmp_path, f"{CLASS}{NAME}='{value}'\n")
        assert f"{path} line 2: MEDIA_STORAGE_OPTIONS" in refused(path, {})


def test_no_slip_of_the_pen_in_the_json_shows_a_value() -> None:
    value = f'{{"key": "{SECRET}", "more": {{"secret_key": "{SECRET}"}}}}'
    for at in range(len(value)):
        for slip in ("", '"', ":", ",", "}", "{", "\\", '":', '","', '":"'):
            for typo in (value[:at] + slip + value[at:], value[:at] + slip + value[at + 1 :]):
                try:
                    read(None, {"MEDIA_STORAGE": "a.B", NAME: typo})
                except ConfigurationError as error:
                    shown = [SECRET[i : i + 3] in str(error) for i in range(4)]
                    assert not any(shown), typo


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_from_docker_env_file_are_explained(tmp_path: Path, quote: str) -> None:
    path = written(tmp_path, f"{CLASS}{NAME}={QUOTED}\n")
    text = refused(path, {NAME: f'{quote}{{"secret_key": "{SECRET}"}}{quote}'})
    assert "the environment" in text
    assert "docker run --env-file" in text
    assert "mount" in text


def test_the_environment_wins_over_the_file_even_a_broken_one(tmp_path: Path) -> None:
    path = written(tmp_path, f"MEDIA_STORAGE = x\n{NAME}='broken\nA = 1\nB=file\nC=\n")
    variables = {"MEDIA_STORAGE": "a.B", NAME: '{"a": 1}', "A": "won", "B": "", "Z": "other"}
    found = read(path, variables)
    holds_like_the_site(found, path, variables)
    assert found.variables == {"A": "won", "B": "", "C": ""}
    assert found.disputed == {}


def test_other_variables_in_doubt_are_set_apart_with_their_line(tmp_path: Path) -> None:
    path = written(tmp_path, f"{CLASS}{NAME}={QUOTED}\nA=x # c\nB='y'\nC = z\nMII+x=\nD=$B\nE\n")
    found = read(path, {"B": "kept"})
    holds_like_the_site(found, path, {"B": "kept"})
    assert found.variables == {"B": "kept", "D": "$B"}
    assert found.disputed == {"A": 3, "C": 5}


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, f"{NAME}='{{'\n")
    with pytest.raises(ConfigurationError) as caught:
        read(path, {})
    first, second = caught.value.problems
    assert "MEDIA_STORAGE is set neither there nor in the environment" in first.what
    assert "MEDIA_STORAGE_OPTIONS is broken JSON" in second.what


def test_paths_that_are_no_readable_file_are_explained(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    both = {"MEDIA_STORAGE": "a.B", NAME: "{"}
    assert f"{tmp_path / 'none'} cannot be read" in refused(tmp_path / "none", both)
    assert "Docker makes a folder" in refused(tmp_path, both)
    assert "owner and permissions" in refused(loop, both)
    assert "is broken JSON" in refused(loop, both)
    assert "MEDIA_STORAGE is set" not in refused(loop, {})


def test_the_default_file_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no .env in this folder" in refused(None, {})
    found = read(None, {"MEDIA_STORAGE": "a.B"})
    assert (found.storage_class, found.options, found.source) == ("a.B", {}, None)
    (tmp_path / ".env").write_text(CLASS)
    assert str(read(None, {}).source) == ".env"
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()
    assert "Docker makes a folder" in refused(None, {"MEDIA_STORAGE": "a.B"})


def test_nothing_is_logged_shown_or_put_into_the_environment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = written(tmp_path, f"{CLASS}{NAME}={QUOTED}\nPLANTED={SECRET}\n{SECRET} {SECRET}\n")
    before = dict(os.environ)
    found = read(path, os.environ)
    assert found.variables["PLANTED"] == SECRET
    assert SECRET not in caplog.text
    assert SECRET not in repr(found)
    assert dict(os.environ) == before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generated")


def agrees_or_names_a_line(path: Path, variables: Mapping[str, str]) -> bool:
    try:
        found = read(path, variables)
    except ConfigurationError as error:
        for problem in error.problems:
            assert SECRET not in str(problem)
            assert f"{path} line " in problem.what or "is set neither" in problem.what
        return False
    holds_like_the_site(found, path, variables)
    return True


TEXT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("'\"\\#$ =\n\u2028\x85")))
LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
OBJECTS = st.dictionaries(TEXT, st.recursive(LEAF, st.lists, max_leaves=4), max_size=4)
HARD = ("'", "\\\\", "\0", *"\v\f\x1c\x1d\x1e\x85\u2028\u2029")


@settings(max_examples=150, deadline=None)
@given(options=OBJECTS, ascii_only=st.booleans())
def test_any_json_in_single_quotes_arrives_or_is_refused(
    folder: Path, options: dict[str, Any], ascii_only: bool
) -> None:
    try:
        value = json.dumps(options, ensure_ascii=ascii_only, allow_nan=False)
    except ValueError:
        return
    path = written(folder, f"{CLASS}{NAME}='{value}'\n")
    accepted = agrees_or_names_a_line(path, {})
    assert accepted or any(part in value for part in HARD)
    if accepted:
        assert read(path, {}).options == options


NAMES = ("MEDIA_STORAGE", NAME, "A")
MARKS = ("'", '"', "\\", " ", "\t", "#", "$", "=", "\n", "\r\n", "\u2028", "\f", "\ufeff")
WORDS = ("{}", "x", SECRET, "export ", "\\n", "\\'", *NAMES, *(f"\n{name}=" for name in NAMES))


@settings(max_examples=250, deadline=None)
@given(
    parts=st.lists(st.sampled_from(MARKS + WORDS), max_size=12),
    variables=st.dictionaries(st.just("A"), st.sampled_from(["", "x", "$A"])),
)
def test_any_file_gives_what_the_site_gets_or_an_error(
    folder: Path, parts: list[str], variables: dict[str, str]
) -> None:
    path = written(folder, f"{CLASS}{NAME}={{}}\n{''.join(parts)}\n")
    agrees_or_names_a_line(path, variables)
