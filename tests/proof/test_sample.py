"""Harness: what only a read-back can see is found as surely as the report's statement says."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from fractions import Fraction

import pytest

from orchestrator.ledger import Glance
from orchestrator.readback import CONFIDENCE, bound, choose, sample_size
from tests.proof.figures import Proof, Tally

HARNESS = "samples of the read-back"
POPULATION, SHARE = 2_000, 0.01
NEVER = 1e-6
"""How unlikely a count of misses must be to refute the statement."""


def files(count: int) -> Iterator[Glance]:
    """Yield files that are all of one kind, so that only the random draw can find a bad one."""
    for n in range(count):
        yield Glance(f"f{n:05}.jpg", "file", 1000, "image/jpeg", 0, None)


def chance_to_miss(population: int, bad: int, drawn: int) -> Fraction:
    """Return the chance that a draw without replacement has none of the bad files."""
    return Fraction(math.comb(population - bad, drawn), math.comb(population, drawn))


@pytest.mark.parametrize("population", [300, 301, 1_000, 2_000, 12_345, 100_000])
@pytest.mark.parametrize("wish", ["default", "0.1%", "50%"])
def test_the_stated_bound_holds_for_a_draw_without_replacement(population: int, wish: str) -> None:
    drawn = sample_size(wish, population)
    bad = math.ceil(bound(drawn, population) * population) or 1
    assert float(chance_to_miss(population, bad, drawn)) <= 1 - CONFIDENCE


def misses(seeds: range, drawn: int) -> int:
    """Count the draws that have none of the bad files."""
    rows = list(files(POPULATION))
    bad = {rows[n].name for n in random.Random(seeds.start).sample(range(POPULATION), BAD)}
    return sum(not bad & choose(rows, POPULATION, drawn, seed).names for seed in seeds)


BAD = round(POPULATION * SHARE)


def refutes(found: int, draws: int, p: float) -> bool:
    """Tell whether so many misses would practically never come if each had the chance p."""
    return sum(_binomial(k, draws, p) for k in range(found, draws + 1)) < NEVER


def _binomial(k: int, n: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def test_draws_miss_bad_files_no_more_often_than_stated(proof: Proof) -> None:
    draws = proof.size(1000, 100)
    drawn = sample_size("default", POPULATION)
    found = misses(range(proof.seed, proof.seed + draws), drawn)
    wrong = [f"{found} of {draws}"] if refutes(found, draws, 1 - CONFIDENCE) else []
    proof.holds(HARNESS, Tally(cases=draws, missed=wrong))


def test_the_harness_sees_a_draw_that_is_too_small(proof: Proof) -> None:
    draws = proof.size(1000, 100)
    found = misses(range(proof.seed, proof.seed + draws), sample_size("default", POPULATION) // 2)
    assert refutes(found, draws, 1 - CONFIDENCE)
