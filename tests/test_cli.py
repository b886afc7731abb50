"""The command line as its users meet it: every mistake is told with what to do next."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import process
from tests.servers.base import Options, Server
from tests.site import S3, Site
from tests.typed import ROOT, Typed, command, environ, on_terminal, typed

COMMANDS = ("plan", "migrate", "check", "verify", "report", "config", "doctor", "storages")
SECRET = "a-very-secret-key"
OPTIONS = {
    "access_key": "AKIAEXAMPLE",
    "secret_key": SECRET,
    "bucket_name": "photos",
    "endpoint_url": "http://127.0.0.1:1",
}
ANSI = re.compile(r"\x1b")


def env(options: object = OPTIONS, storage: str = S3) -> str:
    text = options if isinstance(options, str) else json.dumps(options)
    return f"MEDIA_STORAGE={storage}\nMEDIA_STORAGE_OPTIONS='{text}'\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a site whose `.env` is right and whose store is not there."""
    (tmp_path / ".env").write_text(env())
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.txt").write_text("hello")
    return tmp_path


def assert_told(seen: Typed, code: int, *words: str) -> None:
    """Check that the user learns what is wrong and what to do, and no more than that."""
    assert seen.code == code, seen.all
    assert seen.err.count("error: ") == seen.err.count("\n  TIP: ") > 0, seen.err
    assert "Traceback" not in seen.all
    assert SECRET not in seen.all
    assert [word for word in words if word not in seen.err] == [], seen.err
    assert max(map(len, seen.err.splitlines())) < 400


# .env

NOTHING: Mapping[str, str] = {}
QUOTED = {"MEDIA_STORAGE": S3, "MEDIA_STORAGE_OPTIONS": "'" + json.dumps(OPTIONS) + "'"}
ENV_FILES = {
    "no file": (None, NOTHING, ["no .env in this folder", "MEDIA_STORAGE", "The source media"]),
    "without the variables": ("DEBUG=1\n", NOTHING, [".env", "MEDIA_STORAGE is set neither"]),
    "broken JSON": (
        env('{"secret_key": "a-very-secret-key", "bucket_name": "b",'),
        NOTHING,
        [".env line 2", "broken JSON at character", '"bucket_name"'],
    ),
    "no object": (env('["b"]'), NOTHING, [".env line 2", "not an object: list"]),
    "quotes of docker": (None, QUOTED, ["the environment", "docker run --env-file"]),
    "another class": (
        env(storage="shop.Storage"),
        NOTHING,
        ["shop.Storage", "`media-orchestrator storages`"],
    ),
    "a typo in the class": (env(storage=S3[:-1]), NOTHING, ["no such class", f"mean {S3}?"]),
    "a class that hashes names": (
        env(storage="storages.backends.s3.S3ManifestStaticStorage"),
        NOTHING,
        ["meant for static files", "storages"],
    ),
    "a typo in an option": (
        env({**OPTIONS, "bucket": "b"}),
        NOTHING,
        ["no option 'bucket'", "did you mean 'bucket_name'?"],
    ),
}


@pytest.mark.parametrize("case", ENV_FILES)
def test_a_mistake_in_env_is_told_with_what_to_do(case: str, tmp_path: Path) -> None:
    text, variables, words = ENV_FILES[case]
    if text is not None:
        (tmp_path / ".env").write_text(text)
    assert_told(typed(tmp_path, "plan", **variables), 2, *words)


def test_all_mistakes_in_the_options_are_told_at_once(folder: Path) -> None:
    wrong = {**OPTIONS, "bucket_nme": "b", "transfer_config": {}, "acces_key": "x"}
    (folder / ".env").write_text(env(wrong))
    seen = typed(folder, "plan")
    assert_told(seen, 2, "'bucket_nme'", "'acces_key'", "transfer_config")
    assert seen.err.count("error: ") == 3


def test_mistakes_in_env_in_the_folders_and_in_globs_are_told_together(folder: Path) -> None:
    (folder / ".env").write_text(env({**OPTIONS, "bucket_nme": "b"}))
    seen = typed(folder, "--source", "nope", "plan", "--include", "[z-a]", "--exclude", "")
    told = "'bucket_nme'", "nope", "The pattern [z-a] is not a glob", "A pattern is empty"
    assert_told(seen, 2, *told)
    assert seen.err.count("error: ") == len(told)
    assert not (folder / "migration-runs").exists()


def test_a_named_env_file_must_be_there_and_the_default_need_not(folder: Path) -> None:
    assert_told(typed(folder, "--env-file", "x.env", "plan"), 2, "x.env cannot be read")
    (folder / ".env").unlink()
    variables = {"MEDIA_STORAGE": S3, "MEDIA_STORAGE_OPTIONS": json.dumps(OPTIONS)}
    seen = typed(folder, "config", **variables)
    assert (seen.code, "endpoint = http://127.0.0.1:1" in seen.out) == (0, True), seen.err


def blocking(folder: Path, module: str, error: str) -> str:
    """Return a PYTHONPATH on which importing `module` fails with `error`."""
    block = folder / "block"
    block.mkdir()
    lines = [
        "import sys",
        "class Finder:",
        "    def find_spec(self, name, path=None, target=None):",
        f"        if name.partition('.')[0] == {module!r} or name == {module!r}:",
        f"            raise {error}('No module named ' + repr(name))",
        "sys.meta_path.insert(0, Finder())",
    ]
    (block / "sitecustomize.py").write_text("\n".join(lines))
    return str(block)


def test_a_missing_package_is_told_with_the_extra_to_install(folder: Path) -> None:
    path = blocking(folder, "boto3", "ModuleNotFoundError")
    seen = typed(folder, "plan", PYTHONPATH=path)
    assert_told(seen, 2, "package is not installed", "pip install 'media-orchestrator[s3]'")


# The source and the folder of the runs

PLACES = {
    "missing": (["--source", "nope"], ["nope", "no such file", "--source"]),
    "a file": (["--source", "media/a.txt"], ["a.txt is not a folder", "--source"]),
    "everything": (["--source", "/"], ["the whole file system", "--source"]),
    "runs in it": (["--run-dir", "media/runs"], ["media/runs lies in the source", "--run-dir"]),
    "runs are it": (["--run-dir", "media"], ["the source", "--run-dir"]),
    "runs below it": (["--source", "."], ["lies in the source", "--run-dir"]),
    "no room for runs": (["--run-dir", "/proc/runs"], ["/proc/runs cannot be written"]),
    "runs in a file": (["--run-dir", ".env/runs"], ["cannot be written: Not a directory"]),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_place_that_cannot_be_used_is_told(case: str, folder: Path) -> None:
    options, words = PLACES[case]
    assert_told(typed(folder, *options, "plan"), 2, *words)
    assert sorted(path.name for path in (folder / "media").iterdir()) == ["a.txt"]


# Options

USAGES = {
    "unknown": (["plan", "--excluded", "x"], ["--excluded", "--exclude", "plan --help"]),
    "before": (["plan", "--source", "media"], ["before the command", "--source … plan"]),
    "behind": (["--transfers", "4", "migrate"], ["behind the command", "plan --transfers"]),
    "command": (["migrat"], ["No such command 'migrat'", "migrate", "--help"]),
    "number": (["plan", "--transfers", "0"], ["--transfers", "--help"]),
    "sample": (["migrate", "--sample", "12"], ["--sample 12", "0.1%"]),
    "rate": (["migrate", "--bwlimit", "-rf"], ['"-rf"', "--bwlimit", "rclone help flags"]),
    "run": (["report", "nope"], ["'nope' does not exist", "report --help"]),
    "no run": (["report", "media"], ["media holds no summary.txt", "finished run"]),
    "class": (
        ["storages", "shop.Storage"],
        ["shop.Storage is not supported", "media-orchestrator storages"],
    ),
    "output": (["config", "--output", "nope/x.conf"], ["nope/x.conf cannot be written"]),
}


@pytest.mark.parametrize("case", USAGES)
def test_a_mistake_in_the_command_is_told_before_anything_is_done(case: str, folder: Path) -> None:
    args, words = USAGES[case]
    assert_told(typed(folder, *args), 2, *words)
    assert not (folder / "migration-runs").exists()


def test_in_json_mistakes_are_events_too(folder: Path) -> None:
    for args in (["plan", "--excluded", "x"], ["--source", "nope", "plan"], ["plann"]):
        seen = typed(folder, "--json", *args)
        (event,) = map(json.loads, seen.out.splitlines())
        assert (seen.code, event["event"], event["exit_code"]) == (2, "error", 2)
        assert event["problems"][0].keys() == {"what", "tip"}
        assert seen.err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_teaches_by_an_example(name: str, tmp_path: Path) -> None:
    seen = typed(tmp_path, name, "--help")
    assert seen.code == 0
    example = seen.out.partition("Example:\n")[2]
    assert re.match(rf" +media-orchestrator .*\b{name}\b", example), seen.out
    assert max(map(len, seen.out.splitlines())) <= 100


def test_without_a_command_the_help_is_shown(tmp_path: Path) -> None:
    seen = typed(tmp_path)
    assert seen.code == 2
    assert all(f"\n  {name} " in seen.all for name in COMMANDS)


def test_every_option_can_be_a_variable(folder: Path) -> None:
    (folder / "media").rename(folder / "photos")
    (folder / ".env").rename(folder / "site.env")
    variables = {
        "MEDIA_ORCHESTRATOR_SOURCE": "photos",
        "MEDIA_ORCHESTRATOR_ENV_FILE": "site.env",
        "MEDIA_ORCHESTRATOR_RUN_DIR": "runs",
        "MEDIA_ORCHESTRATOR_JSON": "1",
        "MEDIA_ORCHESTRATOR_TRANSFERS": "3",
        "MEDIA_ORCHESTRATOR_BWLIMIT": "wrong",
    }
    told = typed(folder, "plan", **variables)
    assert '\\"wrong\\"' in told.out
    seen = typed(folder, "plan", **{**variables, "MEDIA_ORCHESTRATOR_BWLIMIT": "2M"})
    events = [json.loads(line) for line in seen.out.splitlines()]
    assert (seen.code, [event["event"] for event in events][-2:]) == (5, ["error", "report"])
    assert events[-1]["source"] == str(folder / "photos")
    assert len(list((folder / "runs").glob("*/report.json"))) == 1


# Values that look like something else

VALUES = {
    "a flag": ({"bucket_name": "-rf"}, 5),
    "a remote": ({"bucket_name": "a:b,c"}, 2),
    "a line": ({"bucket_name": "b\nx"}, 2),
    "a path": ({"bucket_name": "../b"}, 2),
    "a key": ({"access_key": "AKIAEXAMPLE\nprovider = AWS"}, None),
}


@pytest.mark.on("rclone_s3")
@pytest.mark.parametrize("case", VALUES)
def test_a_value_is_never_taken_for_a_flag_or_a_key(
    case: str, server: Server, bucket: Options, tmp_path: Path
) -> None:
    values, code = VALUES[case]
    site = Site.on(server, {**bucket, **values}, tmp_path)
    site.add("a.txt")
    done = site.migrate()
    assert done.code in ([code] if code else [2, 5, 6]), done.out
    problem = json.loads(done.out.splitlines()[-2])["problems"][0]
    assert problem["tip"]
    shown = typed(tmp_path, "config")
    assert not re.search(r"^(x|provider = AWS|-rf)", shown.out, re.MULTILINE)
    assert len(re.findall(r"^provider = ", shown.out, re.MULTILINE)) == 1
    conf = tmp_path / "rclone.conf"
    written = typed(tmp_path, "config", "--output", "rclone.conf")
    assert written.code == (2 if case == "a key" else 0)
    assert conf.exists() == (case != "a key")


# The output

NAMES = {
    "photos/1.jpg": b"1" * 3000,
    "photos/2.jpg": b"2" * 300_000,
    "notes/read me.txt": b"",
    "film.mp4": b"f" * 9_000_000,
}


@pytest.fixture
def site(server: Server, bucket: Options, tmp_path: Path) -> Site:
    site = Site.on(server, bucket, tmp_path)
    for name, data in NAMES.items():
        site.add(name, data)
    site.write_env()
    return site


@pytest.mark.on("rclone_s3")
def test_a_terminal_shows_a_live_bar_and_a_log_plain_lines(site: Site) -> None:
    seen = on_terminal(site.folder, "migrate", "--bwlimit", "2500k", **site.variables)
    assert seen.code == 0, seen.out
    assert re.search("\x1b\\[3[0-9]", seen.out), "no colour"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.out)
    live = re.findall(
        r"copying +━+[╸╺]?━* (\d) of 4 files +([\d.]+)/8\.9 MiB +([\d.]+ MiB/s)?", text
    )
    assert len({size for _, size, _ in live}) > 2, text[-3000:]
    assert live[-1][:2] == ("4", "8.9")
    assert re.search(r"files [0-7]\.\d/8\.9 MiB [\d.]+ MiB/s +00:0\d", text), text[-3000:]
    grey = on_terminal(site.folder, "check", NO_COLOR="1", **site.variables)
    assert grey.code == 0
    assert not re.search("\x1b\\[(3|4|9)[0-9]", grey.out)
    dumb = on_terminal(site.folder, "check", TERM="dumb", **site.variables)
    assert not ANSI.search(dumb.out)
    assert "checking: 4 of 4 files, 8.9 MiB of 8.9 MiB" in dumb.out


@pytest.mark.on("rclone_s3")
def test_without_a_terminal_there_are_lines_or_with_quiet_only_the_summary(site: Site) -> None:
    seen = typed(site.folder, "migrate", **site.variables)
    assert seen.code == 0, seen.err
    assert not ANSI.search(seen.all)
    assert "copying: 4 files, 8.9 MiB\n" in seen.err
    assert "copying: 4 of 4 files, 8.9 MiB of 8.9 MiB, " in seen.err
    assert "checking\nreading back\n" in seen.err  # of what the copy did not prove already
    assert seen.out.startswith("VERIFIED: all 4 files (8.9 MiB) are in the store")
    quiet = typed(site.folder, "--quiet", "migrate", **site.variables)
    assert (quiet.code, quiet.err) == (0, "")
    assert quiet.out.startswith("VERIFIED: ")
    reader = "import sys; sys.stdin.readline()"
    pipe = subprocess.run(
        [
            "sh",
            "-c",
            '"$0" -m orchestrator.cli --json check | "$0" -c "$1"',
            sys.executable,
            reader,
        ],
        cwd=site.folder,
        env=environ(**site.variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in pipe.stderr
    assert "Exception ignored" not in pipe.stderr


@pytest.mark.on("rclone_s3")
def test_json_is_one_event_a_line_whose_counts_grow_to_their_totals(site: Site) -> None:
    done = site.migrate("--bwlimit", "6M")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert (events[-1]["event"], events[-1]["exit_code"]) == ("report", 0)
    stages: dict[str, list[tuple[int, int]]] = {}
    totals: dict[str, tuple[int, int]] = {}
    for event in events[:-1]:
        counts = event.get("files", 0), event.get("bytes", 0)
        if event["event"] == "stage":
            title = event["title"]
            totals[title] = counts
        elif event["event"] == "progress":
            stages.setdefault(title, []).append(counts)
    assert stages.keys() == {"copying"}
    assert len(stages["copying"]) > 2
    for title, seen in stages.items():
        assert seen == sorted(seen)
        assert seen[-1] == totals[title] == (4, sum(map(len, NAMES.values())))


@pytest.mark.on("rclone_s3")
def test_hostile_names_do_nothing_to_a_terminal(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    site.write_env()
    for name in ("\x1b[2Jclear", "a\nVERIFIED: all", "\u202egpj.exe", "\x9b31m", "bell\x07"):
        site.add(name)
        (site.media / f"{name}.refused").symlink_to("/etc/passwd")
    site.add(b"raw\xff")
    for run in (["plan"], ["migrate", "--skip-refused"]):
        seen = typed(tmp_path, *run, **site.variables)
        assert seen.code in (0, 7), seen.err
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", seen.all)
        assert not re.search(r"^\s*VERIFIED", seen.all, re.MULTILINE)
        assert r"\x1b[2Jclear" in seen.out


@pytest.mark.on("rclone_s3")
def test_a_finished_run_can_be_shown_again(site: Site) -> None:
    first = typed(site.folder, "--quiet", "migrate", **site.variables)
    (run,) = site.runs.glob("2*")
    again = typed(site.folder, "report", str(run))
    assert again.code == 0
    assert again.out.splitlines() == first.out.splitlines()[:-1]
    markdown = typed(site.folder, "report", str(run), "--format", "md").out
    assert markdown.startswith("# VERIFIED: all 4 files")
    event = json.loads(typed(site.folder, "--json", "report", str(run)).out)
    stored = json.loads(typed(site.folder, "report", str(run), "--format", "json").out)
    assert (event.pop("event"), event) == ("report", stored)


@pytest.mark.on("rclone_s3")
def test_the_written_config_is_usable_and_only_its_owner_can_read_it(site: Site) -> None:
    assert typed(site.folder, "--quiet", "migrate", **site.variables).code == 0
    shown = typed(site.folder, "config")
    secret = site.options["secret_key"]
    assert (shown.code, secret in shown.all, "secret_access_key = ***" in shown.out) == (
        0,
        False,
        True,
    )
    assert "# rclone copy media media:" in shown.out
    path = site.folder / "rclone.conf"
    asked = typed(site.folder, "config", "--output", "rclone.conf")
    assert (asked.code, stat.S_IMODE(path.stat().st_mode)) == (0, 0o600)
    path.write_text("mine")
    path.chmod(0o644)
    no = typed(site.folder, "config", "--output", "rclone.conf", keys="n\n")
    assert (no.code, path.read_text(), "Overwrite it?" in no.err) == (130, "mine", True)
    yes = typed(site.folder, "config", "--output", "rclone.conf", keys="y\n")
    assert (yes.code, stat.S_IMODE(path.stat().st_mode)) == (0, 0o600)
    listing = [process.find("rclone") or "", "--config", str(path), "lsf", "-R", "--files-only"]
    listed = subprocess.run(
        [*listing, f"media:{site.options['bucket_name']}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(listed.stdout.splitlines()) == sorted(NAMES)


# Exit codes: 2 and 5 are above, 5 and 6 in test_errors.py.


@pytest.mark.on("rclone_s3")
def test_exit_codes_of_runs_that_end_by_themselves(site: Site, server: Server) -> None:
    assert typed(site.folder, "plan").code == 0
    assert typed(site.folder, "migrate").code == 0
    server.put(site.options, "photos/1.jpg", b"somebody else's")
    conflict = typed(site.folder, "migrate")
    assert (conflict.code, "photos/1.jpg: " in conflict.out) == (7, True)
    assert "next: look at the conflicts" in conflict.out
    (site.folder / "empty").mkdir()
    nothing = typed(site.folder, "--source", "empty", "migrate")
    assert nothing.code == 8
    assert "next: " in nothing.out


def test_exit_code_3_is_a_template_of_ours_that_is_wrong(folder: Path) -> None:
    copy = folder / "shadow" / "rclone_templates"
    copy.mkdir(parents=True)
    for path in (ROOT / "rclone_templates").iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    s3 = copy / "s3.yaml"
    s3.write_text(s3.read_text().replace("root: required", "root: perhaps"))
    seen = typed(folder, "plan", PYTHONPATH=str(copy.parent))
    assert (seen.code, "bucket_name" in seen.err, "Traceback" in seen.err) == (3, True, False)


@pytest.mark.parametrize("script", ["", "echo rclone v1.60.0", "exit 1"])
def test_exit_code_4_is_no_usable_rclone(script: str, folder: Path) -> None:
    lonely = folder / "bin"
    lonely.mkdir()
    (lonely / "python").symlink_to(Path(sys.executable).resolve())
    if script:
        (lonely / "rclone").write_text(f"#!/bin/sh\n{script}\n")
        (lonely / "rclone").chmod(0o755)
    seen = typed(
        folder,
        "plan",
        python=str(lonely / "python"),
        PYTHONPATH=sysconfig.get_path("purelib"),
        PATH=str(lonely),
    )
    assert_told(seen, 4, "rclone", "pip install")


def test_exit_code_70_names_the_place_and_no_value(folder: Path) -> None:
    path = blocking(folder, "sqlite3", "RuntimeError")
    seen = typed(folder, "plan", PYTHONPATH=path)
    assert_told(seen, 70, "unexpected RuntimeError at sitecustomize.py", "report it")


@contextmanager
def listening_to_ctrl_c() -> Iterator[None]:
    """A shell's background job ignores Ctrl-C, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.on("rclone_s3")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_go_on(sent: signal.Signals, code: int, site: Site) -> None:
    with (
        listening_to_ctrl_c(),
        subprocess.Popen(
            command("--json", "migrate", "--bwlimit", "200k"),
            cwd=site.folder,
            env=environ(**site.variables),
            stdout=subprocess.PIPE,
            text=True,
        ) as running,
    ):
        assert running.stdout
        for line in running.stdout:
            if json.loads(line)["event"] == "progress":
                break
        start = time.monotonic()
        running.send_signal(sent)
        last = json.loads(running.stdout.read().splitlines()[-1])
        assert running.wait(20) == code
    assert time.monotonic() - start < 10
    assert (last["event"], last["exit_code"]) == ("error", code)
    assert "the same command again" in last["problems"][0]["tip"]
    assert typed(site.folder, "migrate").code == 0
