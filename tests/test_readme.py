"""Every command in the README is run by a test, and its recording is what the demo prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORDED = re.compile(r"<!-- recorded.*?-->\n```console\n(.*?)```\n<!-- end -->", re.DOTALL)

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = r"(?:make|media-orchestrator|docker|pipx|uv) "
COMPOSE = "tests/test_container.py::test_compose_runs_it_in_the_folder_of_cousins_matter"
INSTALL = "tests/test_install.py::test_what_pipx_and_uv_install_migrates"
DEMO = "tests/test_readme.py::test_the_recording_is_what_the_demo_prints"
HELP = "tests/test_cli.py::test_the_help_of_each_command_teaches_by_an_example"
MAKE = "tests/test_readme.py::test_make_runs_the_clone_on_a_site"
RUN_BY = {
    "docker compose run --rm migrate doctor": COMPOSE,
    "docker compose run --rm migrate plan": COMPOSE,
    "docker compose run --rm migrate migrate": COMPOSE,
    "make demo": DEMO,
    "media-orchestrator --env-file .env --source media migrate": DEMO,
    "make doctor": MAKE,
    "make plan": MAKE,
    "make migrate": MAKE,
    "media-orchestrator COMMAND --help": HELP,
    "pipx install 'media-orchestrator[s3]'": INSTALL,
    "uv tool install 'media-orchestrator[s3]'": INSTALL,
    "make test": "",  # what runs this
}


def commands() -> Iterator[str]:
    """Yield each command of the README, from blocks of code and from the text."""
    for block in re.findall(r"```(?:sh|console)\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"\n|# or:", block):
            line = part.strip().removeprefix("$ ").partition("  #")[0].strip()
            if re.match(PROGRAMS, line):
                yield line
    for text in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL)):
        if re.match(PROGRAMS, line := " ".join(text.split())):
            yield line


def test_every_command_is_run_by_a_test() -> None:
    assert set(commands()) == set(RUN_BY)
    for file, _, name in (test.partition("::") for test in RUN_BY.values() if test):
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def make(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run make with the Python that runs this, whatever it thinks of .venv."""
    command = ["make", "--old-file=venv", f"BIN={Path(sys.executable).parent}", *words]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_runs_the_clone_on_a_site(tmp_path: Path) -> None:
    media, store = tmp_path / "media", tmp_path / "store"
    media.mkdir()
    store.mkdir()
    (media / "a.jpg").write_bytes(b"a")
    options = json.dumps({"location": str(store)})
    storage = "django.core.files.storage.FileSystemStorage"
    env = f"MEDIA_STORAGE={storage}\nMEDIA_STORAGE_OPTIONS='{options}'\n"
    (tmp_path / ".env").write_text(env, encoding="utf-8")
    on = [f"ENV={tmp_path / '.env'}", f"SOURCE={media}"]
    runs = {"MEDIA_ORCHESTRATOR_RUN_DIR": str(tmp_path / "runs")}
    for target, says in (
        ("doctor", "a probe object"),
        ("plan", "PLANNED"),
        ("migrate", "VERIFIED"),
    ):
        done = make(target, *on, **runs)
        assert done.returncode == 0, done.stdout + done.stderr
        assert says in done.stdout
        assert list(store.iterdir()) == ([store / "a.jpg"] if target == "migrate" else [])


def demo(folder: Path) -> str:
    """Return what the demo shows for its first `migrate`, without what differs in each run."""
    done = make("demo", DEMO_DIR=str(folder))
    assert done.returncode == 0, done.stderr
    shown = done.stdout.split("── Do it\n")[1].split("(exit code")[0]
    shown = shown.replace(f"{folder}/", "").replace(" --run-dir migration-runs", "")
    return re.sub(r"\d{8}T[\d.]+Z-\w+", "<time>", shown)


def without_draw(text: str) -> str:
    """Each run draws another sample, and with it one more or less of the odd names."""
    return re.sub(r"\d+( of \d+ files were read back)", r"N\1", text)


def test_the_recording_is_what_the_demo_prints(tmp_path: Path) -> None:
    shown = demo(tmp_path.resolve())
    recorded = RECORDED.search(README)
    assert recorded
    assert without_draw(recorded[1]) == without_draw(shown)
