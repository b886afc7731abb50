"""The command line: arguments, progress and exit codes, and nothing else.

What a command needs is imported when it runs, so that --help is quick.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from orchestrator.errors import (
    INCOMPLETE,
    NOTHING_TO_DO,
    UNEXPECTED,
    ConfigurationError,
    OrchestratorError,
    Problem,
)

if TYPE_CHECKING:
    from orchestrator.job import Wishes
    from orchestrator.report import Report

EPILOG = """\b
Example, in the folder of the site:
  media-orchestrator doctor
  media-orchestrator plan
  media-orchestrator migrate

\b
Exit codes:
  0    all files verified (plan: the plan is made)
  2    .env, an option or a path is wrong
  3    a template of ours is wrong
  4    no usable rclone
  5    the store refused the credentials or the bucket
  6    the transfer failed
  7    not all files are verified: differences, refused files, conflicts
  8    nothing to do: the source has no files
  70   unexpected error
  130, 143  interrupted; the same command goes on where it was"""


PREFIX = "MEDIA_ORCHESTRATOR"
SLOWEST, FASTEST = 0.001, 1e6  # Mbit/s that a forecast can be made of
AGAIN = "run the same command again: it goes on where it was"


class Terminated(BaseException):  # like KeyboardInterrupt, no error
    """SIGTERM: `docker stop`, a shutdown."""


def _example(line: str) -> str:
    return f"\b\nExample:\n  {line}"


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="media-orchestrator")
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    show_default=".env, which may be missing if the environment has both variables",
    help="The site's .env, with MEDIA_STORAGE and MEDIA_STORAGE_OPTIONS.",
)
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    default="media",
    show_default=True,
    help="The folder with the site's media.",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    default="migration-runs",
    show_default=True,
    help="Where each run leaves its ledger and its reports.",
)
@click.option(
    "--mime-types",
    metavar="python|FILE",
    help="Guess content types by this table, as the site does, not by this machine's: "
    "that of Python alone, or a mime.types file.",
)
@click.option("--json", is_flag=True, help="JSON lines instead of text.")
@click.option("--quiet", is_flag=True, help="No progress, only the summary.")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """Move a Django site's media from the local disk to the storage that its .env names,
    and prove that it arrived.

    The source is never written, buckets are never created, and an object that somebody else put
    into the store is left alone. Begin with `plan`: it writes nothing to the store.

    Every option can be given as a variable too: MEDIA_ORCHESTRATOR_SOURCE for --source.
    """  # noqa: D205
    if options["mime_types"]:
        _use_mime_types(options["mime_types"])
    ctx.obj.update(options)


def _use_mime_types(table: str) -> None:
    """The classes ask Python's mimetypes, which reads whatever tables a machine happens to have."""
    import mimetypes

    if table != "python" and not Path(table).is_file():
        raise ConfigurationError(
            f"--mime-types {table}: there is no such file",
            tip="give the path of a mime.types file, or python",
        )
    mimetypes.knownfiles[:] = [] if table == "python" else [table]
    try:
        mimetypes.init()
    except (OSError, ValueError) as error:
        what = f"--mime-types {table} is no mime.types file: {error}"
        raise ConfigurationError(what, tip="give the path of one, or python") from error


def _run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option("--include", multiple=True, metavar="GLOB", help="Only these files."),
            click.option("--exclude", multiple=True, metavar="GLOB", help="All but these files."),
            click.option("--transfers", type=click.IntRange(1), help="Files in flight at once."),
            click.option("--bwlimit", metavar="RATE", help="rclone's limit, as in 2M or 1M:off."),
            click.option(
                "--bandwidth",
                type=float,
                metavar="MBIT",
                help="Uplink in Mbit/s, for the forecast of the plan.",
            ),
            click.option(
                "--overwrite-conflicts",
                is_flag=True,
                help="Put local files in the place of objects that differ and are not ours.",
            ),
        ]
    ):
        function = option(function)
    return function


def _sample_options(function: Callable[..., Any]) -> Callable[..., Any]:
    sample = click.option(
        "--sample",
        default="default",
        help="How many files to read back: all, or the share of bad files to exclude, as in 0.1%.",
    )
    seed = click.option("--seed", type=int, help="Draw the same sample again.")
    pictures = click.option(
        "--thumbnails/--no-thumbnails",
        default=True,
        help="Show sampled pictures, from the store and from the disk, in report.html.",
    )
    memory = click.option(
        "--memory",
        type=click.IntRange(32),
        default=512,
        show_default=True,
        metavar="MB",
        help="The most of files that rclone may hold in flight, and that are read back at once.",
    )
    return sample(seed(pictures(memory(function))))


@cli.command(epilog=_example("media-orchestrator --source /srv/site/media plan --bandwidth 40"))
@_run_options
@click.pass_obj
def plan(common: dict[str, Any], /, **options: Any) -> None:
    """Say what `migrate` would do, and how long it would take; write nothing to the store."""
    _go("plan", common, options)


@cli.command(
    epilog=_example(
        "media-orchestrator --source /srv/site/media migrate --exclude 'cache/**' --bwlimit 2M"
    )
)
@_run_options
@_sample_options
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Let the workers of a Dask scheduler copy, as in tls://HOST:8786, or local:4 for four "
    "on this machine; see docs/cluster.md.",
)
@click.option(
    "--cluster-insecure",
    is_flag=True,
    help="Use a cluster without TLS: whoever can listen there reads the secrets of .env.",
)
@click.option("--skip-refused", is_flag=True, help="Go on without files that cannot be migrated.")
@click.option("--dry-run", is_flag=True, help="The same as `plan`.")
@click.pass_obj
def migrate(common: dict[str, Any], /, *, dry_run: bool, **options: Any) -> None:
    """Plan, copy, check, read back and report. Run it again for what has changed since."""
    _go("plan" if dry_run else "migrate", common, options)


@cli.command(epilog=_example("media-orchestrator check"))
@click.pass_obj
def check(common: dict[str, Any]) -> None:
    """Compare all files of the last run with the store again."""
    _go("check", common, {})


@cli.command(epilog=_example("media-orchestrator verify --sample 0.1%"))
@_sample_options
@click.pass_obj
def verify(common: dict[str, Any], /, **options: Any) -> None:
    """Read a sample of the last run's files back through the site's own storage class again."""
    _go("verify", common, options)


@cli.command(
    epilog=_example(
        "media-orchestrator config --output rclone.conf; rclone --config rclone.conf ls media:B"
    )
)
@click.option("--output", type=click.Path(path_type=Path), help="Write a usable rclone.conf here.")
@click.pass_obj
def config(common: dict[str, Any], output: Path | None) -> None:
    """Show the rclone remote that the two lines of .env mean, with its secrets masked."""
    from orchestrator.pipeline import resolve
    from orchestrator.rclone import FAITHFUL, usable_config
    from orchestrator.report import remote_lines

    target, remote = resolve(common["env_file"])
    flags = [*FAITHFUL, "--checksum", *(f"--{k}={v}" for k, v in remote.flags.items())]
    copy = shlex.join(["rclone", "copy", str(common["source"]), remote.root, *flags])
    notes = [target.redact(copy), *remote.notes, *remote.site]
    _say(common, [*remote_lines(remote), "", *(f"# {note}" for note in notes)])
    if output:
        _write_config(output, usable_config(remote))


def _write_config(path: Path, text: str) -> None:
    if path.exists():
        click.confirm(f"{path} exists. Overwrite it?", abort=True, err=True)
    try:
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:  # noqa: PTH123  # the mode
            file.write(text)
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}"
        raise ConfigurationError(what, tip="name another file with --output") from error
    click.echo(f"{path} holds secrets: only you can read it; delete it after use.", err=True)


def _say(common: dict[str, Any], lines: Iterable[str]) -> None:
    """Print lines, each made harmless for a terminal."""
    from orchestrator.progress import printable

    for line in map(printable, lines):
        click.echo(json.dumps({"event": "line", "text": line}) if common["json"] else line)


@cli.command(epilog=_example("media-orchestrator storages storages.backends.s3.S3Storage"))
@click.argument("storage_class", required=False)
@click.pass_obj
def storages(common: dict[str, Any], storage_class: str | None) -> None:
    """List the supported storage classes; with CLASS, what becomes of each of its options."""
    from orchestrator.fates import classes, options

    _say(common, options(storage_class) if storage_class else classes())


@cli.command(epilog=_example("media-orchestrator --env-file /srv/site/.env doctor --no-write"))
@click.option("--no-write", is_flag=True, help="Write no probe object into the store.")
@click.pass_obj
def doctor(common: dict[str, Any], /, *, no_write: bool) -> None:
    """Check everything that a migration needs, without writing any media.

    One line a check, and what to do about each that fails. Two small probe objects are written
    into the store, compared and deleted again, unless --no-write is given.
    """
    from orchestrator import doctor

    runs, checks = common["run_dir"].absolute(), []
    terminal = sys.stdout.isatty()
    for check in doctor.examine(common["env_file"], common["source"], runs, write=not no_write):
        checks.append(check)
        text = json.dumps({"event": "check", **asdict(check)})
        click.echo(text if common["json"] else doctor.line(check, terminal=terminal))
    sys.exit(doctor.exit_code(checks))


@cli.command(
    epilog=_example(
        "media-orchestrator report migration-runs/20261123T034515.324283Z-5ae1 --format md"
    )
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--format", type=click.Choice(["text", "json", "md"]), default="text")
@click.pass_obj
def report(common: dict[str, Any], /, *, run: Path, **options: Any) -> None:
    """Show the report of a finished run again."""
    from orchestrator.report import stored

    if common["json"]:
        click.echo(json.dumps({"event": "report", **json.loads(stored(run, "json"))}))
    else:
        click.echo(stored(run, options["format"]), nl=False)


def _wishes(options: dict[str, Any]) -> Wishes:
    from orchestrator.job import Wishes
    from orchestrator.readback import sample_size

    sample_size(options.get("sample", "default"), 0)  # a wrong one is told before the work
    bandwidth = options.pop("bandwidth", None)
    if bandwidth is not None and not SLOWEST <= bandwidth <= FASTEST:
        what = f"--bandwidth {bandwidth}: this is no number of Mbit/s"
        raise ConfigurationError(what, tip="give that of your uplink, as in 40")
    if bandwidth:
        options["bandwidth"] = bandwidth * 125_000
    if memory := options.pop("memory", None):
        options["memory"] = memory << 20
    return Wishes(**options)


def _go(command: str, common: dict[str, Any], options: dict[str, Any]) -> NoReturn:
    from orchestrator import pipeline
    from orchestrator.progress import observer

    cluster, insecure = options.pop("cluster", None), options.pop("cluster_insecure", False)
    wishes = _wishes(options)
    request = pipeline.Request(
        command=command,
        env_file=common["env_file"],
        source=common["source"],
        runs=common["run_dir"].absolute(),
        wishes=wishes,
        cluster=cluster or "",
        insecure=insecure,
    )
    watching = observer(quiet=common["quiet"], as_json=common["json"])
    try:
        found, folder, error = pipeline.run(request, watching)
    finally:
        watching.close()
    code = error.exit_code if error else _exit_code(found)
    show = _as_event if common["json"] else _as_summary
    show(found, folder, error, code)
    _leave(code)


def _as_event(found: Report, _: Path, error: OrchestratorError | None, code: int) -> None:
    from orchestrator.report import as_json

    if error:
        _show(error.problems, code, as_json=True)
    click.echo(json.dumps({"event": "report", "exit_code": code, **json.loads(as_json(found))}))


def _as_summary(found: Report, folder: Path, error: OrchestratorError | None, code: int) -> None:
    from orchestrator.report import as_text

    if found.entries.files or not error:
        again = shlex.join(["media-orchestrator", *sys.argv[1:]])
        click.echo(as_text(found, again, problems=False), nl=False)
        click.echo(f"  report: {folder / 'report.html'}")
    if error:
        _show(error.problems, code, as_json=False)


def _exit_code(found: Report) -> int:
    from orchestrator.report import Verdict

    if not found.entries.files:
        return NOTHING_TO_DO
    if found.verdict in (Verdict.VERIFIED, Verdict.PLANNED):
        return 0
    sent = any(item.reason.startswith("not sent") for item in found.trouble)
    return 6 if sent else INCOMPLETE


def _terminate(_signal: int, _frame: object) -> None:
    raise Terminated


def _leave_no_core() -> None:
    """Keep memory, which holds the secrets, out of core dumps: ours and those of our children.

    One byte is too small for a file, and tells Linux not to start a program that takes dumps
    either; a limit of 0 would not.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    size = min(1, most) if most != resource.RLIM_INFINITY else 1
    resource.setrlimit(resource.RLIMIT_CORE, (size, size))


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; turn every error into a text that helps and an exit code."""
    gc.disable()  # what is imported now stays; pipeline.run() turns it on again
    _leave_no_core()
    signal.signal(signal.SIGTERM, _terminate)
    common: dict[str, Any] = {}
    try:
        for command in cli.commands.values():  # else a command's options had longer variables
            command.context_settings["auto_envvar_prefix"] = PREFIX
        cli.main(
            args,
            prog_name="media-orchestrator",
            standalone_mode=False,
            auto_envvar_prefix=PREFIX,
            obj=common,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `… | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UNEXPECTED)
    except (Exception, KeyboardInterrupt, Terminated) as error:  # noqa: BLE001  # the last net
        problems, code = _understood(error)
        _show(problems, code, as_json=common.get("json", "--json" in sys.argv))
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End now, also where threads still wait for a store that does not answer."""
    if threading.active_count() > 1:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _understood(error: BaseException) -> tuple[tuple[Problem, ...], int]:
    """Return what to say of an error, and the exit code."""
    match error:
        case OrchestratorError():
            return error.problems, error.exit_code
        case click.ClickException():
            tip = _usage(error) if isinstance(error, click.UsageError) else ""
            return (Problem(what=error.format_message(), tip=tip),), error.exit_code
        case Exception() if type(error).__module__ == "sqlite3":  # costly to import for its name
            what = f"the ledger in the run folder cannot be used: {error}"
            tip = "look for room and permissions there, or choose another folder with --run-dir"
            if type(error).__name__ == "DatabaseError":  # what it holds is wrong
                tip = "run the same command again: it leaves a damaged ledger aside"
            return (Problem(what=what, tip=tip),), ConfigurationError.exit_code
        case KeyboardInterrupt() | click.Abort():
            return (Problem(what="interrupted", tip=AGAIN),), 130
        case Terminated():
            return (Problem(what="terminated", tip=AGAIN),), 143
        case _:
            return (_unexpected(error),), UNEXPECTED


def _usage(error: click.UsageError) -> str:
    """Say on which side of the command an option belongs, else where help is."""
    path = error.ctx.command_path if error.ctx else "media-orchestrator"
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        if name in _options(cli):
            return f"it goes before the command: media-orchestrator {name} … {path.split()[-1]}"
        if owner := next((c for c in cli.commands.values() if name in _options(c)), None):
            return f"it goes behind the command: media-orchestrator {owner.name} {name}"
    return f"`{path} --help` shows what there is"


def _options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def _unexpected(error: BaseException) -> Problem:
    """Name the place but not the values: those may be secrets."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
    what = f"unexpected {type(error).__name__} at {place}"
    return Problem(what=what, tip="this is a bug of ours: report it with this line")


def _show(problems: Iterable[Problem], code: int, *, as_json: bool) -> None:
    """Say what is wrong: on standard error, or as an event."""
    from orchestrator.progress import printable

    if as_json:
        found = [asdict(problem) for problem in problems]
        click.echo(json.dumps({"event": "error", "exit_code": code, "problems": found}))
        return
    for problem in problems:
        click.echo(f"error: {printable(problem.what)}", err=True)
        if problem.tip:
            click.echo(f"  TIP: {printable(problem.tip)}", err=True)


if __name__ == "__main__":
    main()
