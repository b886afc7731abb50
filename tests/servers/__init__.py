"""The test servers: every module here with a `FAMILY` and a `start(folder)` is one."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tests.servers.base import Server


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A server that can be started; `name` is its module's."""

    name: str
    family: str
    start: Callable[[Path], AbstractContextManager[Server]]


def kinds() -> dict[str, Kind]:
    """Find the kinds of servers, by name."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: import_module(f"{__name__}.{name}") for name in sorted(names)}
    return {
        name: Kind(name=name, family=module.FAMILY, start=module.start)
        for name, module in modules.items()
        if hasattr(module, "FAMILY")
    }
