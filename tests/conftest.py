"""Fixtures: every test that takes `server` runs once on each test server."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests import forked
from tests.servers import Kind, kinds
from tests.servers.base import MissingServerError, Options, Server

KINDS = kinds()
SEED = 1
TOGETHER = ("test_container.py", "test_moving_ground.py", "test_kills.py")
LONGEST = (
    "test_container",
    "test_kills",
    "test_install",
    "test_cluster",
    "test_secrets",
    "test_readme",
)
"""Modules to begin with: a long test that comes last keeps all processes but one idle."""
OF_THE_DEVELOPER = ("AWS_", "RCLONE_", "MEDIA_")
"""A run must not depend on what these variables say outside."""


def pytest_addoption(parser: pytest.Parser) -> None:
    known = ", ".join(KINDS)
    parser.addoption("--servers", default="", help=f"run only on these, by comma: {known}")
    size = "how much the harnesses of tests/proof try"
    parser.addoption("--proof", choices=("short", "full"), default="short", help=size)
    seed = f"of their draws; without it {SEED}, or a new one for --proof full"
    parser.addoption("--seed", type=int, help=seed)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:
        drawn = secrets.randbelow(10**6) if config.option.proof == "full" else SEED
        config.option.seed = getattr(config, "workerinput", {}).get("seed", drawn)
    config.addinivalue_line(
        "markers", "on(*names): run only on these test servers, by name or by family"
    )
    config.addinivalue_line("markers", "full: a harness that has no short form")
    unknown = _listed(config) - KINDS.keys()
    if unknown:
        raise pytest.UsageError(f"no such server: {', '.join(unknown)}; known: {', '.join(KINDS)}")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give each worker of xdist the one seed that the header shows."""
    node.workerinput["seed"] = node.config.option.seed


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps the tests of some modules in one process: they share what is costly to make.

    The marks that xdist has for this do nothing with the structured node ids of pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        module: str = nodeid.partition("::")[0]
        return module if module.endswith(TOGETHER) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_report_header(config: pytest.Config) -> str:
    return f"harnesses of tests/proof: --proof {config.option.proof} --seed {config.option.seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest; leave out what only --proof full runs."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    if config.option.proof == "full":
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" not in metafunc.fixturenames:
        return
    marks = metafunc.definition.iter_markers("on")
    wanted = {name for mark in marks for name in mark.args}
    chosen = _listed(metafunc.config) or KINDS.keys()
    names = [
        kind.name
        for kind in KINDS.values()
        if kind.name in chosen and (not wanted or wanted & {kind.name, kind.family})
    ]
    metafunc.parametrize("server", names, indirect=True)


def _listed(config: pytest.Config) -> set[str]:
    return {name for name in config.getoption("--servers").split(",") if name}


class Pool:
    """The servers that this process has started so far; they run until its last test is done."""

    def __init__(self, factory: pytest.TempPathFactory, stack: ExitStack) -> None:
        self._factory = factory
        self._stack = stack
        self._running: dict[str, Server] = {}

    def get(self, kind: Kind) -> Server:
        if kind.name not in self._running:
            folder = self._factory.mktemp(kind.name)
            self._running[kind.name] = self._stack.enter_context(kind.start(folder))
        return self._running[kind.name]


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[None]:
    """Hide the developer's own clouds from the tests, and the proxies from loopback."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(OF_THE_DEVELOPER)]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield
    forked.end_all()


@pytest.fixture(scope="session")
def pool(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with ExitStack() as stack:
        yield Pool(tmp_path_factory, stack)


@pytest.fixture
def server(request: pytest.FixtureRequest, pool: Pool) -> Server:
    """Return a running server; one that is missing fails the test where it is required."""
    kind = KINDS[request.param]
    try:
        return pool.get(kind)
    except MissingServerError as missing:
        required = os.environ.get("REQUIRED_SERVERS", "").split(",")
        if {"all", kind.name} & set(required):
            pytest.fail(f"{kind.name} is in REQUIRED_SERVERS, but {missing}", pytrace=False)
        pytest.skip(f"{kind.name}: {missing}")


@pytest.fixture
def bucket(server: Server) -> Options:
    """Return the options of a fresh, empty bucket."""
    return server.new_bucket()
