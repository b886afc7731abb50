"""Feed a parser what a fuzzer draws, led by the branches that it takes; a process for each.

python -m tests.proof.fuzz TARGET [arguments of libFuzzer]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # else it was loaded before the fuzzer can follow it
    from orchestrator.errors import OrchestratorError

Target = Callable[[bytes], None]

STORAGE = "MEDIA_STORAGE=storages.backends.s3.S3Storage\n"
OPTIONS = (
    '{"access_key": "KEY", "gzip": true, "max_memory_size": 1e3, "x": [null, {"y": "\\u00e9"}]}'
)


def check(error: OrchestratorError) -> None:
    assert all(problem.what and problem.tip for problem in error.problems)


def env() -> Target:
    """Whatever the file holds: a clear error, or what django-environ gives the site."""
    from orchestrator import envfile
    from orchestrator.errors import ConfigurationError

    file = Path(".env").resolve()

    def read(data: bytes) -> None:
        file.write_bytes(data)
        try:
            found = envfile.read(file, {})
        except ConfigurationError as error:
            check(error)
            return
        site = envfile._site({})
        site.read_env(str(file))
        assert found.storage_class == site.str(envfile.STORAGE)
        assert found.options == (
            site.json(envfile.OPTIONS) if envfile.OPTIONS in site.ENVIRON else {}
        )

    return read


def options() -> Target:
    """Whatever the variable holds: a clear error, or the object that JSON makes of it."""
    from orchestrator import envfile
    from orchestrator.errors import ConfigurationError

    def read(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        try:
            found = envfile.read(None, {envfile.STORAGE: "s.S", envfile.OPTIONS: text})
        except ConfigurationError as error:
            check(error)
            return
        assert found.options == json.loads(text)

    return read


def template() -> Target:
    """Whatever the document is: a TemplateError, or a template."""
    from orchestrator import template
    from orchestrator.errors import TemplateError

    file = Path("s3.yaml").resolve()

    def read(data: bytes) -> None:
        file.write_bytes(data)
        try:
            template.parse(template._read(file))
        except TemplateError:
            return

    return read


def log() -> Target:
    """Whatever rclone prints is an event that can be heard."""
    from orchestrator.daemon import Daemon, Ears
    from orchestrator.event import event
    from orchestrator.redact import redactor

    redact = redactor(["a secret"])
    ears = Ears(fatal=lambda _: None, throttled=lambda said: "slow" in said, stalled=lambda: None)
    with subprocess.Popen(["true"]) as child:
        daemon = Daemon(child=child, address=Path("socket"), password="", ears=ears)

    def read(data: bytes) -> None:
        found = event(data.decode("utf-8", "replace"), redact)
        assert isinstance(found.message, str)
        assert found.name is None or isinstance(found.name, str)
        daemon.hear(found)

    return read


def planted() -> Target:
    """A defect that is found step by step, and not by chance."""
    import atheris

    @atheris.instrument_func  # type: ignore[untyped-decorator]
    def read(data: bytes) -> None:
        if data[:1] == b"b" and data[1:2] == b"a" and data[2:3] == b"d":
            raise KeyError("planted")

    return read  # type: ignore[no-any-return]


TARGETS: Mapping[str, Callable[[], Target]] = {
    made.__name__: made for made in (env, options, template, log, planted)
}


def seeds(target: str, templates: Path) -> list[bytes]:
    """Return good input, from which the fuzzer goes on."""
    match target:
        case "env":
            more = (f"MEDIA_STORAGE_OPTIONS={o}\n" for o in (OPTIONS, f"'{OPTIONS}'", "'{}'"))
            return [f"{STORAGE}{line}export A='b' # c\nD=\"e\\n\"\n".encode() for line in more]
        case "options":
            return [OPTIONS.encode(), b"{}", b"[]", b'{"a": NaN}', b"'{}'"]
        case "template":
            return [path.read_bytes() for path in sorted(templates.glob("*.yaml"))]
        case "log":
            line = {"level": "error", "msg": "Failed to copy: slow", "object": "a.jpg"}
            return [json.dumps(line).encode(), b"panic: nil", b"goroutine 1 [running]:"]
    return [b"no"]


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["orchestrator", "dotenv", "environ"]):
        import orchestrator.daemon
        import orchestrator.envfile
        import orchestrator.template  # noqa: F401
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]]())
        atheris.Fuzz()


if __name__ == "__main__":
    main()
