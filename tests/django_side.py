"""What Django itself does: save files through the storage class, and open them again.

Run in the site's own environment, it takes its task as JSON from stdin and answers in JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import forked
from tests.site import Site


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What each name gave (a saved name, or the SHA-256 of what was read), or why it gave none."""

    given: Mapping[str, str]
    errors: Mapping[str, str]


def save(site: Site, names: Iterable[str]) -> Answer:
    """Save the site's media through Django, as an upload form would."""
    return _ask(site, "save", names)


def read(site: Site, names: Iterable[str]) -> Answer:
    return _ask(site, "read", names)


def question(site: Site, task: str, names: Iterable[str], *, media: str = "") -> str:
    """Return what `main` reads; `media` is where the files are for a process in a container."""
    asked = {
        "class": site.storage_class,
        "options": dict(site.options),
        "media": media or str(site.media),
        "task": task,
        "names": list(names),
    }
    return json.dumps(asked)


def _ask(site: Site, task: str, names: Iterable[str]) -> Answer:
    done = forked.run(
        [sys.executable, "-m", "tests.django_side"],
        stdin=question(site, task, names),
        cwd=site.folder,
        env=site.environ(),
        module=site.storage_class.rpartition(".")[0],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return Answer(**json.loads(done.stdout))


def main() -> None:
    asked = json.load(sys.stdin)
    storage = _storage(asked["class"], asked["options"])
    media = Path(asked["media"])
    task = {"save": _save, "read": _read}[asked["task"]]
    answer: dict[str, dict[str, str]] = {"given": {}, "errors": {}}
    for name in asked["names"]:
        kind, text = _tried(task, storage, media, name)
        answer[kind][name] = text
        if kind == "errors":  # some classes are of no use after one
            storage = _storage(asked["class"], asked["options"])
    json.dump(answer, sys.stdout)


def configure(variables: Mapping[str, str]) -> None:
    """Give Django the settings of a site that reads these of its own variables."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(USE_TZ=True)
    settings.LIBCLOUD_PROVIDERS = json.loads(variables.get("LIBCLOUD_PROVIDERS", "{}"))


def _storage(dotted: str, options: Mapping[str, Any]) -> Any:
    from django.utils.module_loading import import_string

    configure(os.environ)
    return import_string(dotted)(**options)


def _tried(
    task: Callable[[Any, Path, str], str], storage: Any, media: Path, name: str
) -> tuple[str, str]:
    try:
        return "given", task(storage, media, name)
    except Exception as error:  # noqa: BLE001  # whatever the class makes of it
        return "errors", f"{type(error).__name__}: {error}"


def _save(storage: Any, media: Path, name: str) -> str:
    from django.core.files.base import File

    with (media / name).open("rb") as file:
        return str(storage.save(name, File(file)))


def _read(storage: Any, media: Path, name: str) -> str:
    with storage.open(name, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


if __name__ == "__main__":
    main()
