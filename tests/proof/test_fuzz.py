"""No parser of ours fails on input that a fuzzer finds, by an exception that nobody understands.

Atheris is no dependency of the tests: it is installed into a folder of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.bench.tools import CACHE
from tests.proof.figures import Proof, Tally
from tests.proof.fuzz import TARGETS, seeds
from tests.typed import ROOT

pytestmark = pytest.mark.full

HOME = CACHE / "media-orchestrator" / "fuzz"
PACKAGE = "atheris==3.0.0"
LIMITS = ("-max_len=20000", "-timeout=60", "-rss_limit_mb=4096", "-print_final_stats=1")
SECONDS = 75


@pytest.fixture(scope="session")
def environment() -> Mapping[str, str]:
    if not (HOME / "atheris").exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        command = [*install, "--target", str(HOME), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{PACKAGE} cannot be installed: {done.stderr.strip()[-300:]}")
    return {**os.environ, "PYTHONPATH": f"{HOME}:{ROOT}", "PYTHONUTF8": "1"}


def fuzzed(
    target: str, seconds: int, seed: int, environment: Mapping[str, str], folder: Path
) -> Tally:
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds(target, ROOT / "rclone_templates")):
        (corpus / str(number)).write_bytes(data)
    draw = [f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={folder}/"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.proof.fuzz", target, *LIMITS, *draw, str(corpus)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    said = done.stdout + done.stderr
    units = re.search(r"number_of_executed_units: (\d+)", said)
    tally = Tally(cases=int(units[1]) if units else 0)
    if done.returncode:
        found = [path.read_bytes() for path in folder.glob("*-*")]
        tally.missed.append(f"{target} fails on {found!r:.500}: {said[-1500:]}")
    return tally


@pytest.mark.parametrize("target", sorted(TARGETS.keys() - {"planted"}))
def test_a_fuzzer_finds_no_input_that_breaks_a_parser(
    target: str, environment: Mapping[str, str], proof: Proof, tmp_path: Path
) -> None:
    proof.holds("fuzzed parsers", fuzzed(target, SECONDS, proof.seed, environment, tmp_path))


def test_the_fuzzer_finds_a_defect_that_is_planted(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    (missed,) = fuzzed("planted", SECONDS, 1, environment, tmp_path).missed
    assert missed.startswith("planted fails on [b'bad")
