"""Strike a migration at a random moment, run the same command again, and judge what came of it."""

from __future__ import annotations

import logging
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.conformance.observe import wait_for
from tests.proof.figures import Tally
from tests.proof.trial import ESCAPED, SECONDS, Going, Held, Trial
from tests.servers.base import Server

LOG = logging.getLogger(__name__)
AT_ONCE = 2  # cases
TRANSFERS = 8
COMMAND = ("migrate", "--sample=50%", "--no-thumbnails", f"--transfers={TRANSFERS}")
BACK = 0.25  # of a run's time, at most, that the next one takes to come back to where it was
SURVIVAL = 5.0  # seconds that a child may outlive its parent's kill
TO_END = 30.0  # seconds that a run may take to end after a signal that it can hear
EXTENSIONS = ("jpg", "jpg", "jpg", "png", "css", "txt")
OUR_MAIN = re.compile(r'cli\.py", line \d+, in main')  # Python's own site has a main() too
HEARD = {signal.SIGINT: 130, signal.SIGTERM: 143}

Write = Callable[[str, bytes], object]


def draw_media(media: Path, files: int, seed: int) -> None:
    """Write small files with several types, some for the class to save, and a link to nothing."""
    draw = Random(seed)
    for number in range(files):
        mark = ESCAPED if not number % 50 else ""
        name = f"{number % 40}/{number}{mark}.{draw.choice(EXTENSIONS)}"
        path = media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.randbytes(draw.randrange(3000)) if number else b"")
    (media / "nothing.jpg").symlink_to("is here")


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """How a run ends that nobody disturbs, and how long it takes."""

    seconds: float
    ledger: Mapping[str, Mapping[str, Any]]
    digests: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Blow:
    """Signals to the process group of a run, so many seconds after its start."""

    moment: float
    signals: tuple[signal.Signals, ...] = (signal.SIGKILL,)
    gap: float = 0.0  # seconds between two signals
    objects: int = 0  # that lie in the store by then, however long they take
    patient: bool = False  # the next run starts only when all is quiet


@dataclass(kw_only=True)
class Case:
    """What a struck run left, and what is wrong with it."""

    trial: Trial
    blows: Sequence[Blow]
    began: float = field(default_factory=time.time)
    stages: list[str] = field(default_factory=list)
    left: list[Mapping[str, Held]] = field(default_factory=list)
    sent_again: int = 0
    wrong: list[str] = field(default_factory=list)

    def told(self) -> str:
        blows = ", ".join(
            f"{'+'.join(s.name for s in blow.signals)} at {blow.moment:.3f} s ({stage})"
            for blow, stage in zip(self.blows, self.stages, strict=False)
        )
        return f"{blows}: {'; '.join(self.wrong)}"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A server, the media of all cases, and what they should come to."""

    server: Server
    media: Path
    folder: Path
    undisturbed: Undisturbed

    def case(self, name: object, blows: Sequence[Blow]) -> Case:
        trial = Trial.on(self.server, self.media, self.folder / f"case-{name}")
        return Case(trial=trial, blows=blows)


def ground(server: Server, folder: Path, files: int, seed: int) -> Ground:
    """Measure undisturbed runs, as many at once as there are cases at once."""
    media = folder / "media"
    draw_media(media, files, seed)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        trials = [Trial.on(server, media, folder / f"undisturbed{n}") for n in range(AT_ONCE)]
        found = list(pool.map(_undisturbed, trials))
    assert found[0].ledger == found[1].ledger
    seconds = sum(one.seconds for one in found) / len(found)
    undisturbed = replace(found[0], seconds=seconds)
    return Ground(server=server, media=media, folder=folder, undisturbed=undisturbed)


def _undisturbed(trial: Trial) -> Undisturbed:
    with trial.cleared():
        start = time.monotonic()
        going = trial.go(*COMMAND)
        assert going.code == 0, going.said()[-3000:]
        return Undisturbed(
            seconds=time.monotonic() - start,
            ledger=trial.ledger(),
            digests={key: held.digest for key, held in trial.holds().items()},
        )


Between = Callable[[Case], None]


def nothing(_: Case) -> None:
    pass


def go_through(
    case: Case, undisturbed: Undisturbed, between: Between = nothing, after: Between = nothing
) -> Case:
    """Strike, run the same command again, judge, and clear away.

    `between` is called before the next run, `after` when it has ended.
    """
    with case.trial.cleared():
        for number, blow in enumerate(case.blows):
            going = _strike(case, blow, f"struck{number}")
            survivors = case.trial.at_work()
            if blow.patient or number + 1 < len(case.blows):
                _quiet(case, survivors)
            case.left.append(_settled(case.trial) if blow.patient else case.trial.holds())
            case.wrong += false_claims(case.trial, case.left[-1], undisturbed)
            case.wrong += (f"a secret lies about: {s}" for s in case.trial.leaked(case.began))
            case.stages.append("ended" if going.code == 0 else going.stage())
        between(case)
        again = case.trial.go(*COMMAND, name="again")
        _quiet(case, survivors)
        again.ended_within(SECONDS)
        after(case)
        case.wrong += judge(case, again, undisturbed)
    return case


def _strike(case: Case, blow: Blow, name: str) -> Going:
    going = case.trial.go(*COMMAND, name=name)
    if going.ended_within(blow.moment):
        return going
    if blow.objects:
        wait_for(lambda: len(case.trial.holds()) >= blow.objects, SECONDS)
    for number in blow.signals:
        going.send(number)
        going.ended_within(blow.gap)
    if blow.signals[-1] is signal.SIGKILL:
        going.ended_within(TO_END)
    elif not going.ended_within(TO_END):
        case.wrong.append(f"it goes on {TO_END:.0f} s after {blow.signals[-1].name}")
        going.send(signal.SIGKILL)
        going.ended_within(TO_END)
    else:
        case.wrong += _last_words(going, blow)
    return going


def _last_words(going: Going, blow: Blow) -> Iterator[str]:
    """Judge how a run ended by itself; before it listens, Python ends it in its own way."""
    stage, code, said = going.stage(), going.code, going.said()
    if stage == "ended":
        return
    if "Traceback" in said and (stage != "starting" or OUR_MAIN.search(said)):
        yield f"it shows a traceback: {going.err.read_text()[-1500:]}"
    if code != HEARD[blow.signals[-1]] and stage != "starting":
        yield f"its exit code is {code}"
    if "goes on where it was" not in said and stage != "starting":
        yield f"it does not say how to go on: {said[-300:]}"


def _settled(trial: Trial) -> Mapping[str, Held]:
    """Return what is in the store once the server has done with what it was sent last."""
    before, found = trial.holds(), trial.holds()
    while before != found:
        before, found = found, trial.holds()
    return found


def _quiet(case: Case, processes: set[int]) -> None:
    if not wait_for(lambda: not processes & case.trial.at_work(), SURVIVAL):
        case.wrong.append(f"processes outlive the kill by more than {SURVIVAL:.0f} s")


def judge(case: Case, again: Going, undisturbed: Undisturbed) -> Iterator[str]:
    """Say all that distinguishes the end of the next run from that of an undisturbed one."""
    code, report, trial = again.code, again.report(), case.trial
    if (code, report.get("verdict"), report.get("unaccounted")) != (0, "verified", 0):
        yield f"the next run ends with {code}: {again.said()[-1500:]}"
    if "Traceback" in again.said():
        yield "the next run shows a traceback"
    ledger, holds = trial.ledger(), trial.holds()
    yield from false_claims(trial, holds, undisturbed)
    if ledger != undisturbed.ledger:
        yield f"the ledger differs: {_differences(ledger, undisturbed.ledger)}"
    digests = {key: held.digest for key, held in holds.items()}
    if digests != undisturbed.digests:
        yield f"the store differs: {_differences(digests, undisturbed.digests)}"
    yield from _sent_again(case, holds, undisturbed)
    yield from (f"a secret lies about: {s}" for s in trial.leaked(case.began))
    if trial.at_work():
        yield "processes are left at the end"


def false_claims(
    trial: Trial, holds: Mapping[str, Held], undisturbed: Undisturbed
) -> Iterator[str]:
    """Say which files the ledger calls verified, as it lies there, that are not in the store."""
    whole = {key for key, held in holds.items() if held.digest == undisturbed.digests.get(key)}
    if false := sorted(trial.claims() - whole):
        yield f"{len(false)} are called verified and are not there, as {false[0]}"


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    names = [n for n in sorted({*found, *expected}) if found.get(n) != expected.get(n)]
    first = names[0]
    return f"{len(names)} as {first}: {found.get(first)}, not {expected.get(first)}"


def _sent_again(case: Case, holds: Mapping[str, Held], undisturbed: Undisturbed) -> Iterator[str]:
    """Judge how many objects each run wrote though they were there, whole, when it began.

    Where it began at once, those that were in flight may have been whole before they were closed.
    """
    for left, then, blow in zip(case.left, [*case.left[1:], holds], case.blows, strict=False):
        whole = {k for k, held in left.items() if held.digest == undisturbed.digests.get(k)}
        again = sorted(k for k in whole & then.keys() if then[k].stamp != left[k].stamp)
        case.sent_again += len(again)
        if len(again) > (0 if blow.patient else TRANSFERS):
            yield f"{len(again)} objects were there and were sent again, as {again[0]}"


def kills(seed: int, seconds: float, number: int) -> list[list[Blow]]:
    """Draw so many kills, uniform over the time of a run; each sixth run is killed twice."""
    draw, found, left = Random(seed), list[list[Blow]](), number
    while left > 0:
        times = min(left, 1 + (len(found) % 6 == 5))
        patient = bool(len(found) % 2)
        found.append([Blow(moment=draw.uniform(0, seconds), patient=patient) for _ in range(times)])
        left -= times
    return found


def kills_in_rows(seed: int, seconds: float, number: int, row: int) -> list[list[Blow]]:
    """Draw so many kills, each run going on where the one before was killed.

    Those of a row are uniform over the work of an undisturbed run; each takes some time to come
    back to where it was.
    """
    draw, found = Random(seed), list[list[Blow]]()
    for first in range(0, number, row):
        moments = sorted(draw.uniform(0, seconds) for _ in range(min(row, number - first)))
        gaps = [moment - before for before, moment in zip([0, *moments], moments, strict=False)]
        back = [0, *(draw.uniform(0, seconds * BACK) for _ in gaps[1:])]
        patient = [bool(draw.randrange(2)) for _ in gaps]
        found.append(
            [
                Blow(moment=gap + more, patient=waits)
                for gap, more, waits in zip(gaps, back, patient, strict=True)
            ]
        )
    return found


def interruptions(seed: int, seconds: float, number: int) -> list[list[Blow]]:
    """Draw SIGTERM, Ctrl-C, and Ctrl-C pressed twice, in turn."""
    draw = Random(seed)
    kinds = [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)]
    return [
        [
            Blow(
                moment=draw.uniform(0, seconds),
                signals=kinds[n % len(kinds)],
                gap=draw.uniform(0, 0.5),
                patient=True,
            )
        ]
        for n in range(number)
    ]


def _gone_through(ground: Ground, numbered: tuple[int, Sequence[Blow]]) -> Case:
    case = go_through(ground.case(*numbered), ground.undisturbed)
    LOG.info("%s: sent again %d; %s", numbered[0], case.sent_again, case.told())
    return case


def go_through_all(ground: Ground, drawn: Sequence[Sequence[Blow]]) -> tuple[Tally, str]:
    """Go through all cases, some at once; return the tally, and where the blows fell."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        cases = list(pool.map(partial(_gone_through, ground), enumerate(drawn)))
    struck = sum(stage != "ended" for case in cases for stage in case.stages)
    tally = Tally(cases=struck, missed=[c.told() for c in cases if c.wrong])
    fell = Counter(stage for case in cases for stage in case.stages)
    most = max(case.sent_again for case in cases)
    stages = ", ".join(f"{stage} {count}" for stage, count in fell.most_common())
    return tally, f"fell in: {stages}; sent again: at most {most} in a case"


def both_at_once(ground: Ground, name: object, gap: float = 0.0) -> Tally:
    """Start the same command twice: one run does it all, the other is refused and says why."""
    case = ground.case(f"twice-{name}", ())
    with case.trial.cleared():
        runs = [case.trial.go(*COMMAND, name="first")]
        runs[0].ended_within(gap)
        runs.append(case.trial.go(*COMMAND, name="second"))
        refused, done = sorted(runs, key=lambda run: run.code == 0)
        case.wrong += judge(case, done, ground.undisturbed)
        if refused.code != 2 or "another run is at work" not in refused.said():
            case.wrong.append(f"the other run: {refused.code} {refused.said()[-300:]}")
        return Tally(cases=1, missed=[case.told()] if case.wrong else [])


def side_by_side(
    ground: Ground, name: object, gap: float = 0.0, between: Between = nothing
) -> Tally:
    """Start two runs that know nothing of each other on one bucket: what both claim is there.

    Each ends with a state of each file; the same command then ends well. `between` is called
    when both have ended.
    """
    case = ground.case(f"beside-{name}", ())
    other = case.trial.beside(ground.folder / f"case-beside-{name}-other")
    with case.trial.cleared(), other.cleared():
        runs = [case.trial.go(*COMMAND)]
        runs[0].ended_within(gap)
        runs.append(other.go(*COMMAND))
        for run in runs:
            case.wrong += _ended_in_order(run)
        between(case)
        for trial in (case.trial, other):
            case.wrong += false_claims(trial, _settled(trial), ground.undisturbed)
        case.wrong += _ends_well(case.trial, ground.undisturbed)
        return Tally(cases=1, missed=[case.told()] if case.wrong else [])


def _ends_well(trial: Trial, undisturbed: Undisturbed) -> Iterator[str]:
    again = trial.go(*COMMAND, name="again")
    if (again.code, again.report().get("verdict")) != (0, "verified"):
        yield f"the next run ends with {again.code}: {again.said()[-1500:]}"
    digests = {key: held.digest for key, held in trial.holds().items()}
    if digests != undisturbed.digests:
        yield f"the store differs: {_differences(digests, undisturbed.digests)}"


def _ended_in_order(run: Going) -> Iterator[str]:
    if not run.ended_within(SECONDS):
        yield f"a run goes on for more than {SECONDS} s"
        run.send(signal.SIGKILL)
        return
    report = run.report()
    if run.code not in {0, 6, 7} or "Traceback" in run.said():
        yield f"a run ends with {run.code}: {run.said()[-1500:]}"
    elif report.get("unaccounted") != 0:
        yield f"a run leaves {report.get('unaccounted')} files without a state"
