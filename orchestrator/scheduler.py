"""Where the workers of a cluster are, and the way there: encrypted, or it leads nowhere."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Thread
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

from orchestrator.errors import ConfigurationError

if TYPE_CHECKING:
    from distributed import Client

EXTRA: Final = "pip install 'media-orchestrator[cluster]'"
HELP: Final = "docs/cluster.md tells how to start a scheduler and workers with TLS"
PATIENCE: Final = 15.0  # seconds that a scheduler has to answer
THREADS: Final = 4  # of each worker on this machine: so many shards are under way there at once


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the workers are: `local` of them on this machine, or behind a scheduler."""

    address: str = ""
    local: int = 0
    insecure: bool = False

    @property
    def encrypted(self) -> bool:
        return bool(self.local) or self.address.startswith("tls://")

    def safe(self, address: str) -> bool:
        """Say whether secrets may travel to this address of a scheduler or a worker."""
        parts = urlsplit(address)
        return bool(self.local or self.insecure) or parts.scheme == "tls" or _loopback(parts)


def place(text: str, *, insecure: bool = False) -> Place:
    """Read what --cluster says; raise ConfigurationError for what would not be safe or not work."""
    _require_dask()
    kind, _, rest = text.partition(":")
    if kind == "local" and rest.isdecimal() and int(rest):
        return Place(local=int(rest))
    if kind not in ("tls", "tcp") or not _has_port(text):
        tip = "write tls://HOST:8786, or local:4 for four workers on this machine"
        raise ConfigurationError(f"--cluster {text}: this is no address of a scheduler", tip=tip)
    found = Place(address=text, insecure=insecure)
    if not found.safe(text):
        what = f"--cluster {text}: the secrets of .env would travel readable for everybody"
        tip = "use tls:// (docs/cluster.md), or --cluster-insecure in a network that is yours alone"
        raise ConfigurationError(what, tip=tip)
    return found


def _has_port(text: str) -> bool:
    with suppress(ValueError):
        return bool(urlsplit(text).hostname and urlsplit(text).port)
    return False


def _loopback(parts: SplitResult) -> bool:
    with suppress(ValueError):
        return ip_address(parts.hostname or "").is_loopback
    return parts.hostname == "localhost"


def _require_dask() -> None:
    try:
        import distributed
    except ImportError as error:
        what = f"--cluster needs Dask, which is not installed ({error})"
        raise ConfigurationError(what, tip=EXTRA) from error
    assert distributed  # noqa: S101  # it is there, and named once
    for name in [n for n in logging.root.manager.loggerDict if n.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="distributed")


def within(seconds: float, function: Callable[[], object]) -> None:
    """Call a function, but wait only so long."""

    def call() -> None:
        with suppress(Exception):
            function()

    thread = Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)


@contextmanager
def connected(at: Place) -> Iterator[Client]:
    """Yield a client of the scheduler; start the workers of this machine if they were asked for."""
    from distributed import Client

    with ExitStack() as stack:
        where, security = at.address, _security(at)
        if at.local:
            where = stack.enter_context(_started(at.local, security))
        try:
            client = Client(where, security=security, timeout=PATIENCE, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise ConfigurationError(_unreachable(at, error), tip=HELP) from error
        stack.callback(within, PATIENCE, client.close)
        yield client


def _unreachable(at: Place, error: Exception) -> str:
    said = " ".join(f"{error}".split())[:200]
    return f"--cluster {at.address}: the scheduler cannot be reached ({said})"


def _security(at: Place) -> Any:
    from distributed import Security

    if at.local:
        return Security.temporary()
    security = Security(require_encryption=at.encrypted)
    if at.encrypted and not (security.tls_ca_file and security.tls_client_cert):
        raise ConfigurationError(
            f"--cluster {at.address}: Dask's settings name no certificates",
            tip="put distributed.comm.tls.ca-file and .client.cert into ~/.config/dask/tls.yaml: "
            "docs/cluster.md shows the file",
        )
    return security


@contextmanager
def _started(workers: int, security: Any) -> Iterator[Any]:
    """Start workers on this machine; nobody else can reach them."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=workers,
        threads_per_worker=THREADS,
        processes=True,
        host="127.0.0.1",
        protocol="tls://",
        security=security,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
        preload=[__name__],
    ) as cluster:
        yield cluster


def dask_setup(_: object) -> None:
    """Leave Ctrl-C to the one who started this worker: Dask calls this where it is preloaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
