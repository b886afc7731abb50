"""No secret leaves, on any path that ends in an error, an interruption or a success."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.conformance.observe import Running, rclones, running, wait_for
from tests.conformance.test_no_secret_leaves import FOR_RCLONE, Secretive, say
from tests.proof.figures import Proof, Tally
from tests.proof.planted import Planted, everything, forms, leaked, new, s3
from tests.proof.prefork import Program, program
from tests.proof.world import World
from tests.servers.base import Options, Server
from tests.servers.process import free_address

HARNESS = "secrets"
COMMANDS = (
    *(["config"], ["plan"], ["doctor", "--no-write"], ["--json", "config"], ["--json", "doctor"]),
    *(["storages"], ["migrate"], ["--quiet", "migrate"], ["config", "--output", "/dev/full"]),
)
SHARED = Path("/dev/shm")  # looked at, not written


def spoilt(random: Random, planted: Planted) -> bytes:
    """Return the site's `.env` with the kind of mistake that people make."""
    options, good = dict(planted.options), planted.env()
    name = random.choice(sorted(options))
    broken = [
        good,
        good.replace(b'", "', b'" "', 1),
        good.replace(b"}'", b"'", 1),
        good.replace(b"='{", b"={").replace(b"}'", b"} # mine"),
    ]
    wrong: list[dict[str, Any]] = [
        {f"{name}x": new()},
        {name: {"secret": options[name]}},
        {name: [options[name]]},
        {name: f"{options[name]}\n\0"},
        {name: None},
    ]
    return random.choice([*broken, *(planted.env({**options, **more}) for more in wrong)])


def test_every_way_to_fail_before_there_is_a_store(tmp_path: Path, proof: Proof) -> None:
    tally, random = Tally(), Random(proof.seed)
    address = free_address()
    with program() as started:
        world = World.made(tmp_path / "world", started)
        keys = tmp_path / "keys"
        keys.mkdir()
        sites = everything(address, keys)
        tally.cases += len({s for site in sites for s in site.all()}) - len(sites) * 10 + 10
        for planted in sites:
            for _ in range(proof.size(20, 2)):
                env, command = spoilt(random, planted), random.choice(COMMANDS)
                if planted.label in ("Google", "S3, environment") and command[-1] != "config":
                    command = ["config"]  # their SDKs wait long for a store
                tally.cases += 1
                tally.missed += seen(world, planted, env, command)
    proof.holds(HARNESS, tally)


def seen(world: World, planted: Planted, env: bytes, command: list[str]) -> list[str]:
    """Call the program and return what can be read of the secrets afterwards."""
    world.write(env)
    before = world.environ(AWS_CONFIG_FILE=os.devnull)
    call = world.program(*command, cwd=world.site, env=before)
    texts = [call.out, call.err, *map(str.encode, call.started), *left(world.folder)]
    found = [secret for secret in planted.all() if leaked(secret, texts)]
    return [f"{planted.label}, {command}: {secret} in {texts!r:.900}" for secret in found]


def left(folder: Path) -> list[bytes]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".env"]
    return [path.read_bytes() for path in files]


@pytest.mark.parametrize("spoil", ["out", "file"])
def test_a_leak_would_be_seen(tmp_path: Path, spoil: str) -> None:
    address = free_address()
    planted = s3(address)
    text = planted.secrets[0].encode().hex()
    plant = {
        "out": f"import os\nos.write(1, b'{text}')",
        "file": f"import pathlib\npathlib.Path('../tmp/x').write_text('{text}')",
    }
    with program() as started:
        world = World.made(tmp_path / "world", started)
        spoiling = replace(world, program=Spoiling(program=started, spoil=plant[spoil]))  # type: ignore[arg-type]
        assert seen(world, planted, planted.env(), ["storages"]) == []
        assert len(seen(spoiling, planted, planted.env(), ["storages"])) == 1


@dataclass(frozen=True, kw_only=True)
class Spoiling:
    program: Program
    spoil: str

    def __call__(self, *args: str, **how: Any) -> object:
        return self.program(*args, **how, spoil=self.spoil)


# With a store that answers


@dataclass(kw_only=True)
class Watch:
    """What any process of the site shows to whoever looks into /proc."""

    arguments: set[bytes] = field(default_factory=set)
    variables: dict[str, set[bytes]] = field(default_factory=dict)
    cores: set[tuple[str, bytes]] = field(default_factory=set)

    def look(self, site: Secretive) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (folder / "cwd").readlink() != site.folder.resolve():
                    continue
                name = (folder / "comm").read_text().strip()
                self.arguments.add((folder / "cmdline").read_bytes())
                found = (folder / "environ").read_bytes().split(b"\0")
                self.variables.setdefault(name, set()).update(found)
                if name == "rclone" or self.cores:  # by then the program has set its own limit
                    limits = (folder / "limits").read_bytes().splitlines()
                    self.cores |= {(name, line) for line in limits if b"core file" in line}

    def wrong(self, site: Secretive, secrets: set[str]) -> Iterator[str]:
        if found := [s for s in secrets if leaked(s, [*self.arguments])]:
            yield f"in arguments: {found}"
        for name, variables in self.variables.items():
            known = [s for s in secrets if leaked(s, [*variables])]
            if name != "rclone" and known:
                yield f"in the environment of {name}: {known}"
            more = {v.split(b"=")[0].decode() for v in variables if v}
            if name == "rclone" and {n for n in more if not FOR_RCLONE.fullmatch(n)}:
                yield f"rclone has {more}"
            if name == "rclone" and leaked(site.other, [*variables]):
                yield "rclone has another variable of .env"
        for name, line in self.cores:
            if line.split()[4] not in (b"0", b"1"):
                yield f"core dumps of {name}: {line.decode()}"


@contextmanager
def watching(site: Secretive) -> Iterator[Watch]:
    watch, done = Watch(), threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            watch.look(site)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def secretive(server: Server, options: Options, folder: Path) -> Secretive:
    folder.mkdir()
    site = Secretive.on(server, options, folder)
    site.add("photo.jpg", os.urandom(200_000))
    assert isinstance(site, Secretive)
    return site


def ways(bucket: Options) -> dict[str, tuple[Options, list[str]]]:
    """Return how a call can end on a store that answers, with the command for it."""
    slow = ["migrate", "--bwlimit=200k"]
    nowhere = f"{bucket['bucket_name']}-x"
    tls = str(bucket["endpoint_url"]).replace("http:", "https:")
    return {
        "success": (bucket, slow),
        "success, JSON": (bucket, ["--json", *slow]),
        "wrong secret": ({**bucket, "secret_key": new(40)}, slow),
        "wrong key": ({**bucket, "access_key": new(20)}, slow),
        "a token": ({**bucket, "security_token": new(60)}, slow),
        "no bucket": ({**bucket, "bucket_name": nowhere}, slow),
        "no TLS": ({**bucket, "endpoint_url": tls}, ["plan"]),
        "no authority": ({**bucket, "endpoint_url": tls, "verify": "/etc/hostname"}, ["plan"]),
        "doctor": (bucket, ["doctor"]),
        "doctor, wrong secret": ({**bucket, "secret_key": new(40)}, ["doctor"]),
        "config": (bucket, ["config"]),
        "own encryption": (
            {
                **bucket,
                "object_parameters": {
                    "SSECustomerAlgorithm": "AES256",
                    "SSECustomerKey": new(28),
                },
            },
            slow,
        ),
    }


def planted_in(site: Secretive) -> set[str]:
    from tests.conformance.test_no_secret_leaves import secrets_in

    return {site.other, *secrets_in(site.options)}


@contextmanager
def careless() -> Iterator[None]:
    """Have the umask under which a careless file is open to all, and no limit of core dumps."""
    before, (soft, hard) = os.umask(0), resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        yield
    finally:
        os.umask(before)
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.mark.on("moto")
def test_every_way_to_end_on_a_store(
    server: Server, bucket: Options, tmp_path: Path, proof: Proof
) -> None:
    tally, random = Tally(), Random(proof.seed)
    names = sorted(ways(bucket))
    for number, way in enumerate(random.sample(names, proof.size(len(names), 3))):
        options, command = ways(server.new_bucket())[way]
        site = secretive(server, options, tmp_path / str(number))
        with careless(), watching(site) as watch:
            code, said = say(site, *command)
        again = say(site, "report", str(newest(site)))[1] if site.runs.exists() else b""
        tally.cases += 1
        tally.missed += [f"{way} ({code}): {w}" for w in wrong(site, watch, said, again)]
        if way.startswith("success") and (code or not watch.cores):
            tally.false_alarms.append(f"{way}: {code}, {said!r}")
    proof.holds(HARNESS, tally)


def newest(site: Secretive) -> Path:
    return max(site.runs.glob("*Z-*"), default=site.runs)


def wrong(site: Secretive, watch: Watch, *said: bytes) -> Iterator[str]:
    secrets = planted_in(site)
    yield from watch.wrong(site, secrets)
    texts = [*said, *left(site.folder)]
    yield from (f"{s} was told or left" for s in secrets if leaked(s, texts))
    yield from open_to_others(site)


def open_to_others(site: Secretive) -> Iterator[str]:
    for path in (site.runs, *site.runs.rglob("*")) if site.runs.exists() else ():
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode != (0o700 if path.is_dir() else 0o600):
            yield f"{path} has mode {mode:o}"


@pytest.mark.on("moto")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGABRT])
def test_what_an_end_in_the_middle_leaves(
    server: Server, bucket: Options, tmp_path: Path, proof: Proof, number: signal.Signals
) -> None:
    tally = Tally(cases=1)
    site, shared = secretive(server, bucket, tmp_path / "site"), {*SHARED.rglob("*")}
    with careless(), watching(site) as watch, running(site, "migrate", "--bwlimit=50k") as run:
        run.await_stage("copying")
        assert wait_for(lambda: watch.cores)
        said = ended(run, number)
        assert wait_for(lambda: not rclones(site))
    texts = [*read({*SHARED.rglob("*")} - shared)]
    tally.missed += [f"{number.name}: {w}" for w in wrong(site, watch, said, *texts)]
    tally.missed += [f"{number.name}: {p}" for p in site.folder.rglob("core*")]
    proof.holds(HARNESS, tally)


def read(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with suppress(OSError):  # of somebody else, and gone again
            if path.is_file():
                yield path.read_bytes()


def ended(run: Running, number: signal.Signals) -> bytes:
    run.signal(number)
    _, said = run.end()
    return said.encode()


@pytest.mark.on("moto")
def test_a_store_that_repeats_a_secret_in_any_form(
    server: Server, bucket: Options, tmp_path: Path, proof: Proof
) -> None:
    """Error texts of stores and proxies hold what was sent: quoted, escaped, in base64."""
    tally, random = Tally(), Random(proof.seed)
    cases = sorted({*forms(bucket["secret_key"])})
    with server.proxied(bucket) as (options, proxy):
        for number, form in enumerate(random.sample(cases, proof.size(len(cases), 2))):
            site = secretive(server, options, tmp_path / str(number))
            text = b"<Error><Code>AccessDenied</Code><Message>x " + form + b" y</Message></Error>"
            method = random.choice(["^GET", "^PUT"])
            proxy.answer(403, text, times=20, matching=method)
            code, said = say(site, "migrate")
            tally.cases += 1
            if code != 5:
                tally.false_alarms.append(f"{form!r}: {code} {said!r}")
            if any(form in text for text in [said, *left(site.folder)]):
                tally.missed.append(f"{form!r}, {method}")
    proof.holds(HARNESS, tally)


@pytest.mark.on("moto")
def test_an_argument_or_a_variable_would_be_seen(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = secretive(server, bucket, tmp_path / "site")
    secret = bucket["secret_key"]
    code = "import sys; sys.stdin.read()"
    for arguments, variables in (([secret], {}), ([], {"X": secret})):
        with watching(site) as watch:
            command = [os.fspath(Path("/proc/self/exe").readlink()), "-c", code, *arguments]
            child = subprocess.Popen(command, cwd=site.folder, env=variables, stdin=subprocess.PIPE)
            assert wait_for(lambda: watch.arguments)  # called at once
            child.communicate(b"")
        assert list(watch.wrong(site, planted_in(site)))
