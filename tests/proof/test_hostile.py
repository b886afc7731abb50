"""Hostile input: an error that helps, nothing executed, nothing written but runs and store."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings

from orchestrator.errors import TemplateError
from orchestrator.storage import supported
from orchestrator.template import parse
from tests.proof import inputs
from tests.proof.figures import Proof, Tally
from tests.proof.prefork import Program, program
from tests.proof.witness import Seen, traced
from tests.proof.world import (
    CODES,
    CONTROL,
    FOLDER,
    HARMLESS,
    PROGRAMS,
    World,
    snapshot,
    within,
)
from tests.servers.base import MissingServerError, Options, Server
from tests.servers.process import free_address
from tests.site import Site
from tests.typed import ROOT, on_terminal

HARNESS = "hostile input"
ENDED = frozenset({0, 2, 5, 6, 7})
TEMPLATES = ROOT / "rclone_templates"


@pytest.fixture(scope="session")
def started() -> Iterator[Program]:
    with program() as started:
        yield started


@pytest.fixture
def world(tmp_path: Path, started: Program) -> World:
    return World.made(tmp_path.resolve() / "world", started)


def attempt(tally: Tally, world: World, label: str, *args: str, **how: object) -> int:
    """Count one call of the program and all that it should not have done; return its exit code."""
    call, faults = world.faults(*args, **how)  # type: ignore[arg-type]
    tally.cases += 1
    tally.missed += [f"{label}: {fault}" for fault in faults]
    return call.code


def control(tally: Tally, world: World, *args: str) -> None:
    """Count a good case in between, which must be taken as it is."""
    world.env(world.options())
    if attempt(tally, world, "control", *args):
        tally.false_alarms.append(" ".join(args))


def test_env_files(world: World, proof: Proof) -> None:
    tally = Tally()

    @seed(proof.seed)
    @settings(
        max_examples=proof.size(1500, 40),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=inputs.env_files())
    def run(data: bytes) -> None:
        world.write(data)
        attempt(tally, world, repr(data)[:300], "config", codes=frozenset({0, 2, 5}))

    run()
    for name, data in whole_files().items():
        world.write(data)
        attempt(tally, world, name, "plan", codes=frozenset({0, 2}))
    control(tally, world, "config")
    proof.holds(HARNESS, tally)


def whole_files() -> dict[str, bytes]:
    """Return files that are odd as a whole."""
    good = f"MEDIA_STORAGE={FOLDER}\nMEDIA_STORAGE_OPTIONS="
    return {
        "deep JSON": f"{good}'{inputs.nested(900)}'\n".encode(),
        "very deep JSON": f"{good}'{inputs.nested(100_000)}'\n".encode(),
        "long number": f'{good}{{"location":{"9" * 10_000}}}\n'.encode(),
        "long line": f'{good}{{"location":"{"x" * 3_000_000}"}}\n'.encode(),
        "many unclosed quotes": b"A='\n" * 20_000,
        "many lines": b"A=1\n" * 50_000,
        "NUL": b"\0" * 1000,
        "many keys": f"{good}{json.dumps({str(n): n for n in range(20_000)})}\n".encode(),
    }


ONCE: tuple[tuple[str, dict[str, object]], ...] = (
    ("storages.backends.azure_storage.AzureStorage", {"connection_string": {}}),
    (inputs.S3, {"location": "\ud800"}),
    (inputs.S3, {"secret_key": "\ud800"}),
)
"""What ended a run once."""


def test_options(world: World, proof: Proof) -> None:
    tally, random = Tally(), Random(proof.seed)
    found = inputs.bases(free_address())
    found[FOLDER] = (world.options(), "")
    for storage, (options, more) in found.items():
        names = sorted(supported()[storage].options)
        cases = [(name, value) for name in names for value in inputs.VALUES]
        for name, value in random.sample(cases, min(len(cases), proof.size(120, 4))):
            world.env({**options, name: value}, storage)
            world.write((world.site / ".env").read_bytes() + more.encode() + b"\n")
            label = f"{storage} {name}={value!r:.60}"
            attempt(tally, world, label, "config", codes=frozenset({0, 2, 5}))
    for storage, option in ONCE:
        world.env({**found[storage][0], **option}, storage)
        attempt(tally, world, f"{option}", "config", codes=frozenset({0, 2}))
    for value in random.sample(inputs.VALUES, proof.size(len(inputs.VALUES), 8)):
        world.env(world.options(location=value))
        attempt(tally, world, f"location={value!r:.60}", "migrate", codes=ENDED)
    control(tally, world, "config")
    proof.holds(HARNESS, tally)


def test_written_configurations(world: World, proof: Proof) -> None:
    """No value becomes a second key or a second remote of the written rclone.conf."""
    tally, random = Tally(), Random(proof.seed)
    options, _ = inputs.bases(free_address())[inputs.S3]
    conf = world.runs / "rclone.conf"
    for value in random.sample(inputs.TEXTS, proof.size(len(inputs.TEXTS), 6)):
        for name in ("secret_key", "bucket_name", "region_name"):
            world.runs.mkdir(exist_ok=True)
            world.env({**options, name: value}, inputs.S3)
            attempt(tally, world, f"{name}={value!r:.60}", "config", "--output", str(conf))
            text = conf.read_bytes() if conf.exists() else b""
            conf.unlink(missing_ok=True)
            keys = re.findall(rb"^(\w+) = ", text, re.MULTILINE)
            if text.count(b"\n[") or len(set(keys)) != len(keys):
                tally.missed.append(f"{name}={value!r:.60} became a key")
    proof.holds(HARNESS, tally)


def test_file_names(world: World, proof: Proof) -> None:
    """What is called verified is in the store, byte by byte; all else is named with its reason."""
    tally, random = Tally(), Random(proof.seed)
    for _ in range(proof.size(12, 1)):
        world.empty()
        laid = fill(world, random, proof.size(300, 60))
        label = f"{len(laid)} names"
        attempt(tally, world, label, "migrate", "--skip-refused", codes=frozenset({0, 7}))
        attempt(tally, world, label, "doctor", codes=frozenset({0}))
        tally.cases += len(laid)
        tally.missed += unproven(world, laid)
    control(tally, world, "plan")
    proof.holds(HARNESS, tally)


def fill(world: World, random: Random, number: int) -> dict[str, bytes]:
    shutil.rmtree(world.media)
    world.media.mkdir()
    found = {}
    for name in (*inputs.LONG, *inputs.names(random, number)):
        data = b"content of " + name[:200] + random.randbytes(random.randrange(3))
        if inputs.lay(world.media, name, data):
            found[os.fsdecode(name)] = data
    return found


def unproven(world: World, laid: dict[str, bytes]) -> Iterator[str]:
    """Compare the ledger with what was laid and with what is in the store."""
    *_, ledger = sorted(world.runs.glob("*/ledger.sqlite"))
    with closing(sqlite3.connect(ledger)) as db:
        rows = db.execute("SELECT name, key, state, reason FROM entry").fetchall()
    told = {n if isinstance(n, str) else os.fsdecode(n): rest for n, *rest in rows}
    seen = set()
    for name, data in laid.items():
        entry = next((p for p in (name, *above(name)) if p in told), name)
        seen.add(entry)
        key, state, reason = told.get(entry, (None, "missing", ""))
        if state == "verified" and (world.store / key).read_bytes() != data:
            yield f"{name!r} is called verified and is not there"
        elif state not in ("verified", "refused", "excluded") or (
            state == "refused" and not reason
        ):
            yield f"{name!r} is {state}: {reason}"
        elif entry != name and state != "refused":
            yield f"{name!r} is not named, and neither is a folder that cannot be opened"
    yield from (f"{name!r} was never there" for name in told.keys() - seen)


def above(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name


def test_names_on_a_terminal(world: World, proof: Proof) -> None:
    """Nothing of a name reaches a real terminal as it is; rich's own sequences may."""
    tally, random = Tally(), Random(proof.seed)
    fill(world, random, proof.size(400, 60))
    (world.media / "\x1b]0;title\x07\u202e\x9b2J").symlink_to("/etc/passwd")
    environ = world.environ(NO_COLOR="")
    for command in (["plan"], ["migrate", "--skip-refused"], ["check"], ["doctor"]):
        seen = on_terminal(world.site, *command, **environ)
        tally.cases += 1
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.out.replace("\r", ""))
        erased = re.search(r"\x1b\[[0-3]?J", seen.out)
        if CONTROL.search(text) or erased or "Traceback" in text:
            tally.missed.append(f"{command}: {text[-300:]!r}")
    proof.holds(HARNESS, tally)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
PICTURES = {
    "PostScript": EPS,
    "a huge PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0",
    "half a JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\0" * 50,
    "a GIF without end": b"GIF89a" + b"\xff" * 500,
    "an SVG": b"<svg onload='alert(1)' xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.on("moto")
def test_pictures(server: Server, bucket: Options, tmp_path: Path, proof: Proof) -> None:
    """What claims to be a picture starts no program and does not end the run."""
    tally, programs = Tally(), tmp_path / "bin"
    programs.mkdir()
    (programs / "gs").write_text("#!/bin/sh\ntouch ../canary\n")
    (programs / "gs").chmod(0o755)
    site = Site.on(server, bucket, tmp_path / "site")
    for name, data in PICTURES.items():
        for extension in ("jpg", "png", "gif", "webp"):
            site.add(f"{name}.{extension}", data)
            tally.cases += 1
    done = site.migrate(PATH=f"{programs}:{os.environ['PATH']}")
    if (tmp_path / "canary").exists():
        tally.missed.append("Ghostscript was started")
    if done.code:
        tally.false_alarms.append(f"{done.code}: {done.err}")
    proof.holds(HARNESS, tally)


def test_templates(world: World, proof: Proof) -> None:
    tally, random = Tally(), Random(proof.seed)
    good = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.yaml")}
    broken = [("s3.yaml", text) for text in inputs.YAML.values()]
    for _ in range(proof.size(400, 15)):
        name = random.choice(sorted(good))
        broken.append((name, inputs.spoilt(random, good[name])))
    for name, text in broken:
        folder = shadow(world, {**good, name: text})
        label = f"{name}: {text[:200]!r}" if len(text) < 1000 else f"{name}: spoilt"
        attempt(tally, world, label, "config", path=folder, codes=frozenset({0, 2, 3}))
    if attempt(tally, world, "control", "config", path=shadow(world, good)):
        tally.false_alarms.append("the templates as they are")
    proof.holds(HARNESS, tally)


def shadow(world: World, files: dict[str, str]) -> Path:
    folder = world.folder / "tmp" / "shadow"
    package = folder / "rclone_templates"
    shutil.rmtree(folder, ignore_errors=True)
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name, text in files.items():
        (package / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    return folder


def test_documents(proof: Proof) -> None:
    """A template in which any value is of another kind is a template or a TemplateError."""
    tally, random = Tally(), Random(proof.seed)
    files = [p for p in sorted(TEMPLATES.glob("*.yaml")) if p.name != "errors.yaml"]
    good = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    for _ in range(proof.size(4000, 200)):
        document = deepcopy(random.choice(good))
        what = swapped(random, document)
        tally.cases += 1
        try:
            parse(document)
        except TemplateError:
            continue
        except Exception as error:  # noqa: BLE001  # the fault that is looked for
            tally.missed.append(f"{what}: {type(error).__name__}: {error}")
    proof.holds(HARNESS, tally)


def swapped(random: Random, document: object) -> str:
    """Put a value of another kind somewhere into a document; return where."""
    where, place = "", document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))  # type: ignore[arg-type]
        key = random.choice(keys)
        where += f"/{key}"
        inner = place[key]  # type: ignore[index]
        if not isinstance(inner, dict | list) or not inner or random.random() < 0.2:
            place[key] = random.choice(inputs.VALUES)  # type: ignore[index]
            return f"{where} = {place[key]!r:.60}"  # type: ignore[index]
        place = inner


Damage = Callable[[Path, Random], None]


def replaced(make: Callable[[Path], object]) -> Damage:
    def damage(ledger: Path, _: Random) -> None:
        ledger.unlink()
        make(ledger)

    return damage


def cut(ledger: Path, random: Random) -> None:
    data = ledger.read_bytes()
    ledger.write_bytes(data[: random.randrange(len(data))])


def noise(ledger: Path, random: Random) -> None:
    ledger.write_bytes(random.randbytes(5000))


def flipped(ledger: Path, random: Random) -> None:
    data = bytearray(ledger.read_bytes())
    for _ in range(random.choice([1, 1, 5, 100])):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    ledger.write_bytes(data)


def statement(sql: str) -> Damage:
    def damage(ledger: Path, _: Random) -> None:
        with closing(sqlite3.connect(ledger)) as db:
            db.executescript(sql)

    return damage


DAMAGE: dict[str, Damage] = {
    "cut": cut,
    "flipped": flipped,
    "random bytes": noise,
    "empty": replaced(Path.touch),
    "a folder": replaced(Path.mkdir),
    "a link to another file": replaced(
        lambda ledger: ledger.symlink_to(ledger.parents[3] / "neighbour" / "precious")
    ),
    "a link to nothing": replaced(
        lambda ledger: ledger.symlink_to(ledger.parents[3] / "neighbour" / "new")
    ),
    "a fifo": replaced(os.mkfifo),
    "another version": statement("PRAGMA user_version = 99"),
    "an older version": statement("PRAGMA user_version = 0"),
    "without tables": statement("DROP TABLE entry"),
    "without a column": statement("ALTER TABLE entry DROP COLUMN reason"),
    "another column": statement("ALTER TABLE entry ADD COLUMN more NOT NULL DEFAULT 1"),
    "unknown states": statement("UPDATE entry SET state = 'wonderful'"),
    "texts for numbers": statement("UPDATE entry SET size = 'big', mtime_ns = 'x', packed = 'y'"),
    "bytes for texts": statement("UPDATE entry SET key = x'ff', hashes = x'00', reason = x'fe'"),
    "facts that are no JSON": statement("UPDATE fact SET value = '{'"),
    "facts of another kind": statement("UPDATE fact SET value = '[1]' WHERE name <> 'identity'"),
    "a trigger": statement("CREATE TRIGGER t AFTER UPDATE ON entry BEGIN DELETE FROM entry; END"),
    "a view": statement("ALTER TABLE entry RENAME TO e; CREATE VIEW entry AS SELECT * FROM e"),
    "wrong evidence": statement("UPDATE entry SET state = 'verified', hashes = 'x', tags = 'x'"),
}


def test_ledgers(world: World, proof: Proof) -> None:
    """Whatever the last run's ledger has become, this run ends well."""
    tally, random = Tally(), Random(proof.seed)
    for n in range(20):
        (world.media / f"{n}.jpg").write_bytes(random.randbytes(100))
    attempt(tally, world, "first", "migrate", codes=frozenset({0}))
    kept, first = world.folder / "neighbour" / "kept", next(world.runs.glob("*/"))
    shutil.copytree(world.runs, kept)
    rounds = random.sample(sorted(DAMAGE), proof.size(len(DAMAGE), 5))
    rounds += random.choices(["cut", "flipped"], k=proof.size(60, 2))
    for name in rounds:
        shutil.rmtree(world.runs)
        shutil.copytree(kept, world.runs)
        DAMAGE[name](world.runs / first.name / "ledger.sqlite", random)
        command = random.choice(["migrate", "plan", "check", "verify"])
        label = f"{name}, {command}"
        if attempt(tally, world, label, command, codes=frozenset({0, 2, 7, 8})) == 2:
            attempt(tally, world, f"{label}, again", command, codes=frozenset({0, 7, 8}))
        attempt(tally, world, f"{name}, report", "report", str(first), codes=frozenset({0, 2}))
        if name in ("cut", "flipped"):
            continue
        if attempt(tally, world, f"{name}, after", "migrate", codes=frozenset({0, 7})) == 7:
            tally.missed.append(f"{name}: objects that are equal are in conflict")
    proof.holds(HARNESS, tally)


def places(world: World) -> Iterator[tuple[str, list[str]]]:
    """Yield folders and files that make no sense, as options before the command."""
    odd, loop = world.site / "a{b},c:d=${HOME}%(x)s\n[media]", world.site / "loop"
    for folder in (odd, world.site / "-x"):
        folder.mkdir()
        (folder / "-rf").write_text("x")
    loop.symlink_to("loop")
    os.mkfifo(world.site / "fifo")
    (world.site / "binary").write_bytes(bytes(range(256)) * 100)
    sources = ("photo", "/", "/dev/null", "/proc/self", "loop", "fifo", "", ".", "..", "-x")
    for source in (*sources, odd.name, "media/photo.jpg", str(world.store)):
        yield f"source {source!r}", [f"--source={source}"]
    yield "source is the run folder", ["--source=media", "--run-dir=media"]
    yield "source in the run folder", ["--source=migration-runs/x/media"]
    yield "source above the run folder", ["--source=.", "--run-dir=migration-runs"]
    for runs in ("/dev/null", "media/photo.jpg", "media/runs", "loop", "fifo"):
        yield f"runs {runs!r}", [f"--run-dir={runs}"]
    yield "runs with escapes", ["--run-dir=migration-runs/\x1b[2J\n{x}"]
    for file in ("/dev/null", "media", "loop", "binary", "/proc/self/mem", "/dev/zero", "\x1b[2J"):
        yield f"env {file!r}", [f"--env-file={file}"]
        yield f"mime types {file!r}", [f"--mime-types={file}"]


def test_places(world: World, proof: Proof) -> None:
    tally, commands = Tally(), ("plan", "doctor", "migrate")[: proof.size(3, 1)]
    (world.runs / "x" / "media").mkdir(parents=True)
    for label, options in list(places(world)):
        for command in commands:
            attempt(tally, world, f"{label}, {command}", *options, command, codes=CODES)
    control(tally, world, "plan")
    proof.holds(HARNESS, tally)


ARGUMENTS = (
    *([f"--{name}={value}"] for name in ("include", "exclude") for value in inputs.TEXTS[4:]),
    *([f"--bwlimit={value}"] for value in ("--rc", "-1", "off; touch x", "1M\n--rc", "9" * 500)),
    *([f"--transfers={value}"] for value in ("0", "-1", "1e9", "9" * 30, "٣")),
    *([f"--bandwidth={value}"] for value in ("0", "-1", "nan", "inf", "1e-320", "x")),
    *(["--include", "[" * 3000], ["--include", "**" * 200 + "x"], ["--exclude", "*a" * 30 + "b"]),
    *(["--", "-rf"], ["--unknown\x1b[2J"], ["\udcff"], ["--include", "\udcff"], ["-" * 3000]),
)
SAMPLES = ("0", "-1", "nan", "inf%", "0%", "100%", "1e-300%", "\x1b[2J", "٣%", "9" * 400 + "%", "")


def typed(text: str) -> str:
    """Return a text as it comes from a shell: its bytes need not be UTF-8."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


def test_arguments(world: World, proof: Proof) -> None:
    tally, random = Tally(), Random(proof.seed)
    (world.media / ("a" * 200)).write_text("x")
    cases = [("plan", a) for a in ARGUMENTS if "\0" not in "".join(a) and len("".join(a)) < 100_000]
    cases += [("migrate", [f"--sample={value}"]) for value in SAMPLES]
    cases += [("migrate", [f"--seed={value}"]) for value in ("x", "-1", "9" * 50)]
    cases += [("report", [value]) for value in ("media", "/", ".env", "\x1b[2J", "migration-runs")]
    cases += [("storages", [value]) for value in inputs.TEXTS if "\0" not in value][:30]
    cases += [("config", ["--output", value]) for value in ("/dev/full", "media", "")]
    for command, arguments in random.sample(cases, min(len(cases), proof.size(1000, 25))):
        label = f"{command} {arguments!r:.80}"
        attempt(tally, world, label, command, *map(typed, arguments), codes=CODES - {143, 3, 4})
    proof.holds(HARNESS, tally)


STARTED = {*PROGRAMS, "lsb_release", "getopt", "cut", "tr"}  # `rclone version` asks what this is
SOCKET = re.compile(r"/proc/self/fd/\d+/rclone\.sock")  # in the open folder of the run
INJECTING = [text for text in inputs.TEXTS[3:36] if "\0" not in text and "\ud800" not in text]
EVIL = ("-rf", "--rc.jpg", "a\n--config=x\n.jpg", f"$(touch {inputs.CANARY}).jpg".replace("/", "_"))


@pytest.mark.on("rclone_s3")
def test_the_kernel_saw_nothing_else(
    world: World, server: Server, proof: Proof, tmp_path: Path
) -> None:
    """Options that try to inject start no other program and write nowhere else: strace tells."""
    tally, random = Tally(), Random(proof.seed)
    for name in EVIL:
        (world.media / name).write_text("x")
    for text in random.sample(INJECTING, proof.size(len(INJECTING), 2)):
        for storage, options in injected(world, server, text):
            world.env(options, storage)
            tally.cases += 1
            command = [sys.executable, "-m", "orchestrator.cli", "migrate", "--skip-refused"]
            seen, faults = witnessed(world, command, tmp_path)
            tally.missed += (f"{storage} {text!r}: {fault}" for fault in faults)
            if seen.code not in ENDED or "Traceback" in seen.said:
                tally.missed.append(f"{storage} {text!r}: {seen.code}, {seen.said[-500:]}")
    proof.holds("hostile input, as strace saw it", tally)


def injected(world: World, server: Server, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield options that hold a text wherever it may reach a command line or a header."""
    place = Path(mkdtemp(dir=world.store), text.replace("/", "_"))
    place.mkdir(exist_ok=True)
    yield FOLDER, {"location": str(place)}
    bucket = server.new_bucket()
    parameters = {"CacheControl": text, "ContentDisposition": text, "Metadata": {"a": text}}
    yield server.storage_class, {**bucket, "location": text}
    yield server.storage_class, {**bucket, "object_parameters": parameters}
    yield server.storage_class, {**bucket, "region_name": text, "default_acl": text}


def witnessed(world: World, command: list[str], folder: Path) -> tuple[Seen, list[str]]:
    env = world.environ(PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    try:
        seen = traced(command, world.site, env, folder / "trace")
    except MissingServerError as missing:
        if "all" in os.environ.get("REQUIRED_SERVERS", "").split(","):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    own = (world.runs, world.store, world.folder / "tmp")
    faults = [f"started {path}" for path in seen.started if Path(path).name not in STARTED]
    others = [path for path in seen.wrote if path not in HARMLESS and not SOCKET.fullmatch(path)]
    faults += [f"wrote to {path}" for path in others if not within(path, own)]
    return seen, faults


@pytest.mark.parametrize(
    "defect",
    [
        "touch ../elsewhere",
        "mkdir ../elsewhere",
        "mv media/photo.jpg media/x",
        "cat .env",
        ": >>.env",
    ],
)
def test_strace_would_see_it(world: World, tmp_path: Path, defect: str) -> None:
    """Also where Python's own audit sees nothing: in a child."""
    assert witnessed(world, ["sh", "-c", "echo x >../tmp/x; read -r x <.env"], tmp_path)[1] == []
    assert witnessed(world, ["sh", "-c", f"{defect}; :"], tmp_path)[1]


INSTEAD = "import orchestrator.cli as c, os, pathlib, subprocess\nc.cli.main = lambda *a, **k: "
SPOILT = {
    "a traceback": "import orchestrator.cli as c\ndel c.cli, c._show",
    "another code": f"{INSTEAD}c.sys.exit(99)",
    "a program": f"{INSTEAD}subprocess.run(['true'])",
    "a shell": f"{INSTEAD}os.system(':')",
    "a file elsewhere": f"{INSTEAD}open('../../elsewhere', 'w')",
    "a neighbour": "import pathlib\npathlib.Path('../neighbour/new').touch()",
    "the source": "import pathlib\npathlib.Path('media/photo.jpg').chmod(0o600)",
    "a time": "import os\nos.utime('media', (1, 1))",
    "a raw name": "import os\nos.write(1, b'\\x1b[2J')",
    "no tip": "import os\nos.write(2, b'error: x\\n')",
}


@pytest.mark.parametrize("defect", SPOILT)
def test_each_fault_would_be_seen(world: World, defect: str) -> None:
    _, faults = world.faults("storages", spoil=SPOILT[defect])
    assert faults


def test_a_snapshot_sees_any_change(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    assert inputs.lay(tmp_path / "media", b"/".join([b"x" * 250] * 20), b"deep")
    before = snapshot(tmp_path)
    assert sum(len(os.fsencode(name)) > 4096 for name in before)
    assert snapshot(tmp_path) == before
    assert inputs.lay(tmp_path / "media", b"/".join([b"x" * 250] * 18 + [b"y"]), b"deep")
    assert snapshot(tmp_path) != before
