"""What a developer would write first: storage.save() for each file; FOLDER THREADS."""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from django.conf import settings
from django.core.files import File
from storages.backends.s3 import S3Storage

LOCAL = threading.local()


def save(root: Path, path: Path) -> None:
    """Each thread has a storage object of its own: they are not safe to share."""
    if not hasattr(LOCAL, "storage"):
        LOCAL.storage = S3Storage(**json.loads(os.environ["MEDIA_STORAGE_OPTIONS"]))
    with path.open("rb") as file:
        LOCAL.storage.save(str(path.relative_to(root)), File(file))


def main() -> None:
    settings.configure()
    root, threads = Path(sys.argv[1]), int(sys.argv[2])
    paths = (path for path in root.rglob("*") if path.is_file())
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(save, root, path) for path in paths]:
            future.result()


if __name__ == "__main__":
    main()
