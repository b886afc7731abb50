"""What is installed: locked by hash, not known to be vulnerable, its licences named; S rules on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from scripts import licences
from tests.proof.figures import Proof, Tally
from tests.typed import ROOT

HARNESS = "supply chain"
LOCKS = ("requirements.lock", "requirements-dev.lock")
MINIMUM = tomllib.loads((Path(__file__).parent / "minimum_versions.toml").read_text())
PINNED = re.compile(r"([A-Za-z0-9_.-]+)==(\S+)( ;.*)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
BANDIT_OFF = {"S101", "S108", "S112", "S311", "S314", "S321", "S323", "S506", "S603", "S608"}
"""The S rules that product code may set aside, each beside the statement."""
GENERAL = {"S603": "in pyproject.toml", "S311": "a sample is for statistics"}
"""Those whose reason is not repeated beside each statement."""


def loose(text: str) -> Iterator[str]:
    """Yield each line of a lock that is not one package of one version, held by its hashes."""
    logical = re.sub(r"\\\n\s*", " ", text).splitlines()
    for line in (line for line in logical if line and not line.startswith("#")):
        requirement, *hashes = re.split(r"\s+(?=--hash)", line)
        if not PINNED.fullmatch(requirement.strip()):
            yield f"{line[:60]} is not NAME==VERSION"
        elif not hashes or not all(HASH.fullmatch(h.strip()) for h in hashes):
            yield f"{requirement} has no hash"


def outdated(versions: dict[str, str]) -> Iterator[str]:
    """Yield each package that is older than what is known to be safe, or not there at all."""
    locked = {name.lower(): version for name, version in versions.items()}
    for name, entry in MINIMUM.items():
        found = locked.get(name.lower())
        if found is None or Version(found) < Version(entry["at_least"]):
            yield f"{name} {found} < {entry['at_least']}: {entry['why']}"


def test_locks(proof: Proof) -> None:
    tally = Tally()
    for name in LOCKS:
        text = (ROOT / name).read_text(encoding="utf-8")
        tally.cases += len(re.findall(r"^\S+==", text, re.MULTILINE))
        tally.missed += [f"{name}: {line}" for line in loose(text)]
        versions = {n: v for n, v, _ in PINNED.findall(text)}
        tally.cases += len(MINIMUM)
        tally.missed += [f"{name}: {line}" for line in outdated(versions)]
    proof.holds(HARNESS, tally)


@pytest.mark.parametrize(
    "line",
    [
        "evil==1.0\n",
        "evil>=1.0 --hash=sha256:" + "0" * 64,
        "evil @ git+ssh://host/evil",
        "--extra-index-url https://host.invalid/simple",
        "-r other.txt",
        "evil==1 --hash=md5:0123",
    ],
)
def test_a_loose_requirement_would_be_seen(line: str) -> None:
    good = (ROOT / LOCKS[0]).read_text(encoding="utf-8")
    assert len(list(loose(good + line))) == 1


@pytest.mark.parametrize("name", MINIMUM)
def test_an_old_version_would_be_seen(name: str) -> None:
    good = {n: e["at_least"] for n, e in MINIMUM.items()}
    assert list(outdated(good)) == []
    older = "0." + good[name]
    assert len(list(outdated({**good, name: older}))) == 1


def test_everybody_installs_by_hash() -> None:
    for name in ("Makefile", "Dockerfile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        installs = re.findall(r"pip install (.*)", text)
        assert installs
        for arguments in installs:
            assert "--require-hashes" in arguments or "--no-deps" in arguments, arguments
        assert "index-url" not in text


def test_the_page_of_licences_is_up_to_date() -> None:
    script = [sys.executable, "scripts/licences.py", "--check"]
    done = subprocess.run(script, cwd=ROOT, check=False)
    assert done.returncode == 0, "run scripts/licences.py"


def test_each_licence_is_known_and_each_copyleft_one_explained(proof: Proof) -> None:
    tally = Tally(cases=len(licences.locked()))
    own = licences.PAGE.read_text(encoding="utf-8").partition(licences.START)[0]
    tally.missed += [name for name in licences.locked() if not licences.licence(name)]
    tally.missed += [name for name in licences.copyleft() if f"**{name}**" not in own]
    assert set(licences.copyleft()) == {"certifi", "paramiko"}
    proof.holds(HARNESS, tally)


def test_the_security_rules_of_ruff_hold_for_the_product(proof: Proof) -> None:
    """They are on; what is set aside is on the list above and says why in a comment."""
    product = [*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "rclone_templates").rglob("*.py")]
    command = [sys.executable, "-m", "ruff", "check", "--select=S", "--ignore-noqa", "--isolated"]
    done = subprocess.run(
        [*command, "--output-format=concise", *product],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^(\S+?):(\d+):\d+: (S\d+)", done.stdout, re.MULTILINE)
    tally = Tally(cases=len(product))
    tally.missed += [f"{p}:{line} {rule}" for p, line, rule in found if not excused(p, line, rule)]
    assert found, done.stderr
    proof.holds(HARNESS, tally)


def excused(path: str, line: str, rule: str) -> bool:
    """Say whether the statement says why the rule is set aside for it."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    said = "\n".join(lines[int(line) - 1 : int(line) + 2])
    told = rule in GENERAL or re.search(rf"noqa: .*{rule}.*  # ", said)
    return rule in BANDIT_OFF and bool(told)
