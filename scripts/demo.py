"""Move a made-up family site's media into an S3 store on this machine: plan, migrate, once more.

Draws a media folder, starts `rclone serve s3` on the loopback interface, writes the `.env` that an
admin would write, and runs media-orchestrator as an admin would. Nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import NOTHING_TO_DO, OrchestratorError
from orchestrator.rclone import find

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PROGRAM = "media-orchestrator"
BUCKET = "family-media"
RUNS = "migration-runs"
STARTED = re.compile(r"Starting s3 server on \[(http://[^/\]]+)")
START_SECONDS = 20.0
INTERRUPTED, TERMINATED = 130, 143
# What is set in this shell for a real site must not reach the demo: the environment wins over .env.
OTHERS = ("AWS_", "MEDIA_ORCHESTRATOR_", "MEDIA_STORAGE", "RCLONE_", "DJANGO_SETTINGS_MODULE")
EPILOG = f"""\
The folder afterwards:
  media/               the site's uploads, as they were
  .env                 the two lines that name the new storage
  store/{BUCKET}/  the bucket, one file an object
  {RUNS}/      the ledger and the report of each run

DEMO_DIR names a new or empty folder to use instead of a temporary one.
The exit code is that of `{PROGRAM} migrate`: 0 means that every file was verified.

example: DEMO_DIR=/tmp/demo python scripts/demo.py --images 50
"""


def main() -> int:
    arguments = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that the server is ended
    try:
        program()
        folder = demo_folder(os.environ.get("DEMO_DIR"))
        return demonstrated(folder, images=arguments.images, keep=arguments.keep)
    except (OrchestratorError, OSError) as error:
        print(error, file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        return INTERRUPTED


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=300, help="how many to draw (%(default)s)")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--keep", action="store_true", default=True, help="keep the folder (default)")
    kept.add_argument("--clean", action="store_false", dest="keep", help="remove it at the end")
    return parser.parse_args()


def demo_folder(wanted: str | None) -> Path:
    """Make the folder of this demo; one that holds anything is not touched, nor ever removed."""
    if not wanted:
        return Path(tempfile.mkdtemp(prefix="media-demo-")).resolve()
    folder = Path(wanted).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"DEMO_DIR {folder} is not empty.\n  TIP: Name a new folder.")
    return folder


def demonstrated(folder: Path, *, images: int, keep: bool) -> int:
    try:
        return demo(folder, images)
    finally:
        if keep:
            say(f"Everything is kept in {folder}")
        else:
            shutil.rmtree(folder)


def demo(folder: Path, images: int) -> int:
    say(f"A site with {images} photos and some documents")
    draw = [sys.executable, str(HERE / "sample_media.py"), str(folder / "media")]
    code = subprocess.run([*draw, "--images", str(images)], check=False).returncode
    if code:
        return code
    with store(folder) as options:
        say("The admin names the new storage in .env")
        print("MEDIA_STORAGE=storages.backends.s3.S3Storage")
        print(f"MEDIA_STORAGE_OPTIONS='{json.dumps(options | {'secret_key': '***'})}'")
        write_env(folder / ".env", options)
        return migrated(folder)


def migrated(folder: Path) -> int:
    """Plan, migrate, migrate again; return the code of the first that is not as it should be."""
    say("What would happen")
    code = run(folder, "plan")
    if code:
        return code
    say("Do it")
    code = run(folder, "migrate")
    show_report(folder)
    if code:
        return code
    say("Once more: nothing is left to transfer")
    again = run(folder, "migrate")
    return 0 if again in {0, NOTHING_TO_DO} else again


def run(folder: Path, command: str) -> int:
    """Show a command as it would be typed in `folder`, and run it there."""
    words = ["--env-file", ".env", "--source", "media", "--run-dir", RUNS, command]
    print(f"$ {shlex.join([PROGRAM, *words])}", flush=True)
    code = subprocess.run([program(), *words], cwd=folder, env=clean(), check=False).returncode
    print(f"(exit code {code})", flush=True)
    return code


def program() -> Path:
    """Return the console script as it was installed beside this Python."""
    script = Path(sys.executable).with_name(PROGRAM)
    if not script.exists():
        raise FileNotFoundError(f"There is no {script}.\n  TIP: pip install --editable .")
    return script


def show_report(folder: Path) -> None:
    newest = max(folder.glob(f"{RUNS}/*/"), default=folder)  # runs are named for their time
    for report in sorted(newest.glob("report.[hm]*"))[:1]:  # HTML, else Markdown
        say(f"The report: {report}")


def write_env(path: Path, options: dict[str, object]) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(
        "MEDIA_STORAGE='storages.backends.s3.S3Storage'\n"
        f"MEDIA_STORAGE_OPTIONS='{json.dumps(options)}'\n"
    )


@contextmanager
def store(folder: Path) -> Iterator[dict[str, object]]:
    """Serve `store/` as an S3 store with one bucket; yield the options of S3Storage for it."""
    (folder / "store" / BUCKET).mkdir(parents=True)
    # The server wants key ids of at least 16 characters.
    access_key, secret_key = secrets.token_hex(10).upper(), secrets.token_hex(20)
    with server(folder, f'"{access_key},{secret_key}"') as url:
        yield {
            "access_key": access_key,
            "secret_key": secret_key,
            "bucket_name": BUCKET,
            "endpoint_url": url,
            "object_parameters": {"CacheControl": "public, max-age=86400"},
        }


@contextmanager
def server(folder: Path, auth_key: str) -> Iterator[str]:
    """Run the server on a free port of its own choice; yield its URL."""
    log = folder / "store.log"
    words = ["serve", "s3", "--addr", "127.0.0.1:0", str(folder / "store")]
    env = clean() | {"RCLONE_CONFIG": os.devnull, "RCLONE_AUTH_KEY": auth_key}
    with log.open("wb") as output:
        child = subprocess.Popen([find(), *words], env=env, stdout=output, stderr=output)
    try:
        yield address(child, log)
    finally:
        child.terminate()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def address(child: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        started = STARTED.search(log.read_text(errors="replace"))
        if started:
            return started[1]
        time.sleep(0.05)
    raise TimeoutError(f"rclone serve s3 did not start:\n{log.read_text(errors='replace')}")


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}


def say(text: str) -> None:
    print(f"\n── {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
