"""The documentation says what the program does: it is run, or made from the same source."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from orchestrator import cli, errors

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").rglob("*.md")) + sorted(ROOT.glob("*.md"))
SAMPLE = re.compile(r"^```sh\n(MEDIA_STORAGE=.*?)^```", re.MULTILINE | re.DOTALL)


def samples() -> list[tuple[str, str]]:
    found = []
    for page in sorted((ROOT / "docs" / "storages").glob("*.md")):
        for number, text in enumerate(SAMPLE.findall(page.read_text(encoding="utf-8")), 1):
            found.append((f"{page.stem} {number}", text))
    return found


def test_the_pages_of_the_storages_are_up_to_date() -> None:
    script = [sys.executable, "scripts/storage_docs.py", "--check"]
    done = subprocess.run(
        script, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_locks_have_all_that_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = project["project"]["dependencies"]
    for lock, wanted in (
        ("requirements.lock", runtime),
        ("requirements-dev.lock", [*runtime, *project["dependency-groups"]["dev"]]),
    ):
        text = (ROOT / lock).read_text(encoding="utf-8").lower().replace("_", "-")
        locked = set(re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE))
        names = {re.match(r"[\w.-]+", w)[0].lower().replace("_", "-") for w in wanted}  # type: ignore[index]
        assert names <= locked, f"run scripts/lock: {names - locked}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_readme_names_every_command_and_exit_code() -> None:
    named = set(re.findall(r"`(\w+)(?: \[CLASS\]| RUN)?`", README.split("## How to read")[0]))
    assert set(cli.cli.commands) <= named
    codes = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.OrchestratorError)
    }
    table = " ".join(re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE))
    assert codes - {errors.UNEXPECTED} <= {int(code) for code in re.findall(r"\d+", table)}


def test_every_command_has_help_that_the_group_shows() -> None:
    context = click.Context(cli.cli)
    assert all(c.get_short_help_str(200) for c in cli.cli.commands.values())
    assert all(name in cli.cli.get_help(context) for name in cli.cli.commands)


@pytest.mark.parametrize(("name", "text"), samples(), ids=[name for name, _ in samples()])
def test_a_sample_env_can_be_used_as_it_stands(name: str, text: str, tmp_path: Path) -> None:
    """What is left to do is to put in one's own values: nothing in it is refused."""
    path = tmp_path / ".env"
    path.write_text(text.replace("/etc/ssl/own-ca.pem", str(ROOT / "README.md")), encoding="utf-8")
    script = (
        "from pathlib import Path; from orchestrator.pipeline import resolve;"
        f"print(resolve(Path({str(path)!r}))[1].root)"
    )
    env = {"PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("media:")
