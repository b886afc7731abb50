"""gcp-storage-emulator, mended where Google differs: keeps every header, checks no credentials.

It runs in a thread of the tests, which look at its memory without asking it over HTTP. It keeps no
ACL and no key of a KMS: the proxy shows what a client asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, partialmethod
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Unpack
from urllib.parse import quote

from tests.servers.base import Headers, MissingServerError, Options, Server, Stored
from tests.servers.proxy import Proxy, proxying
from tests.servers.s3 import bucket_name

FAMILY = "gcs"
HINT = "gcp-storage-emulator is not installed: run `make venv`, or `pip install` it"
ADDRESS = "STORAGE_EMULATOR_HOST"
CLASS = "storages.backends.gcloud.GoogleCloudStorage"
ONE = threading.Lock()
FIELDS = {
    "content_type": "contentType",
    "content_encoding": "contentEncoding",
    "content_language": "contentLanguage",
    "content_disposition": "contentDisposition",
    "cache_control": "cacheControl",
}


@dataclass(frozen=True, kw_only=True)
class GcsServer(Server):
    """The class takes no address of the API as an option, so the environment names it."""

    endpoint_option: ClassVar[str] = ADDRESS

    storage: Any = field(repr=False)
    environ: dict[str, str]

    def new_bucket(self) -> Options:
        from gcp_storage_emulator.handlers.buckets import create_bucket

        bucket = bucket_name()
        create_bucket(bucket, self.storage)
        return {"bucket_name": bucket}

    def keys(self, options: Options) -> list[str]:
        return sorted(self.storage.objects.get(options["bucket_name"], {}))

    def peek(self, options: Options, key: str) -> Stored:
        found = self.storage.objects.get(options["bucket_name"], {})[key]
        metadata = {name.lower(): value for name, value in found.get("metadata", {}).items()}
        return Stored(
            data=self.storage.get_file(options["bucket_name"], key),
            metadata=metadata,
            etag=found["etag"],
            storage_class=found["storageClass"],
            **{ours: found.get(theirs, "") for ours, theirs in FIELDS.items()},
        )

    def put(self, options: Options, key: str, data: bytes, **headers: Unpack[Headers]) -> None:
        from gcp_storage_emulator.handlers import objects

        given = {FIELDS.get(name, name): value for name, value in headers.items()}
        content_type = given.setdefault("contentType", "application/octet-stream")
        bucket = options["bucket_name"]
        made = objects._make_object_resource(
            self.environ[ADDRESS], bucket, key, content_type, str(len(data)), given
        )
        self.storage.create_file(bucket, key, data, objects._checksums(data, made))

    def delete(self, options: Options, key: str) -> None:
        self.storage.delete_file(options["bucket_name"], key)

    @contextmanager
    def proxied(
        self, options: Options, folder: Path | None = None
    ) -> Iterator[tuple[Options, Proxy]]:
        """Lead every client through a proxy until the block ends: `environ` names it."""
        direct = self.environ[ADDRESS]
        with proxying(direct, folder) as proxy:
            self.environ[ADDRESS] = proxy.url
            try:
                yield options, proxy
            finally:
                self.environ[ADDRESS] = direct


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients end connections as they like."""


@contextmanager
def start(folder: Path) -> Iterator[GcsServer]:
    if find_spec("gcp_storage_emulator") is None:
        raise MissingServerError(HINT)
    storage = _storage()
    with _Listener(("127.0.0.1", 0), _handler(storage)) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.server_port}"
        server = GcsServer(
            name="gcs",
            family=FAMILY,
            storage_class=CLASS,
            options={},
            storage=storage,
            environ={ADDRESS: url},
        )
        object.__setattr__(server, "options", server.new_bucket())
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


def _storage() -> Any:
    """A store in memory that takes every name, and does not write its state at every change."""
    from gcp_storage_emulator.storage import Storage

    class Memory(Storage):  # type: ignore[misc]  # it has no types
        def _object_path(self, bucket: str, name: str) -> str:
            return f"{bucket}/{name.encode().hex()}"

        def _write_config_to_file(self) -> None:
            pass

    return Memory(use_memory_fs=True)


def _handler(storage: Any) -> Any:
    from gcp_storage_emulator import server

    _mend()

    class Handler(server.RequestHandler):  # type: ignore[misc]  # it has no types
        def log_message(self, *_: object) -> None:
            pass

    return partial(Handler, storage)


def _mend() -> None:
    """Put right what keeps both clients from working with the emulator as with Google."""
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import objects

    if getattr(objects, "mended", False):
        return
    objects.mended = True
    server.Router.handle = partialmethod(_handle, server.Router.handle)
    server._read_raw_data = partial(_whole, server._read_raw_data)
    objects._resumable_incomplete = partial(_incomplete, objects._resumable_incomplete)
    objects._make_object_resource = partial(_resource, objects._make_object_resource)
    for name, mended in {"upload_partial": _partial, "download": _download, "ls": _ls}.items():
        theirs = getattr(objects, name)
        ours = partial(mended, theirs)
        setattr(objects, name, ours)
        for _, methods in server.HANDLERS:
            methods.update({m: ours for m, handler in methods.items() if handler is theirs})


def _handle(router: Any, theirs: Any, method: str) -> None:
    """Take requests one by one, though connections at once: the store knows no threads."""
    with ONE:
        theirs(router, method)


def _whole(theirs: Any, handler: Any) -> Any:
    """Store nothing of an upload that breaks off: its last chunk is missing, or some of its bytes.

    The last chunk is empty; at the end of a connection the emulator takes that for one.
    """
    source = handler.rfile
    handler.rfile = _Counted(source)
    data = theirs(handler)
    broken = handler.rfile.ended
    handler.rfile = source
    if broken:
        raise ConnectionAbortedError("the upload broke off")
    return data


class _Counted:
    """Notes when a stream has ended before what was asked of it."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.ended = False

    def read(self, size: int) -> bytes:
        data: bytes = self._source.read(size)
        self.ended |= len(data) < size
        return data

    def readline(self) -> bytes:
        line: bytes = self._source.readline()
        self.ended |= not line
        return line


def _partial(theirs: Any, request: Any, response: Any, storage: Any, *args: Any) -> Any:
    response.no_308 = (request.get_header("X-GUploader-No-308", "") or "").lower() == "yes"
    return theirs(request, response, storage, *args)


def _incomplete(theirs: Any, response: Any, *args: Any, **kwargs: Any) -> None:
    """Go's client cannot see a 308: it asks for a 200 that tells of it."""
    theirs(response, *args, **kwargs)
    if getattr(response, "no_308", False):
        response.status = HTTPStatus.OK
        response["X-HTTP-Status-Code-Override"] = "308"


def _resource(
    theirs: Any, base: str, bucket: str, name: str, *args: Any, **metadata: Any
) -> dict[str, Any]:
    """Quote the name in the link to its bytes, and link with TLS where the host has it."""
    made: dict[str, Any] = theirs(base, bucket, name, *args, **metadata)
    base = base if "127.0.0.1" in base else base.replace("http:", "https:")
    path = f"/download/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
    made["mediaLink"] = f"{base}{path}?generation={made['generation']}&alt=media"
    return made


def _download(theirs: Any, request: Any, response: Any, storage: Any, *args: Any) -> None:
    """Say how the bytes are packed: Google does to clients that can unpack them."""
    theirs(request, response, storage, *args)
    found = storage.objects.get(request.params["bucket_name"], {})
    packed = found.get(request.params["object_id"], {}).get("contentEncoding")
    if packed:
        response["Content-Encoding"] = packed


def _ls(theirs: Any, request: Any, response: Any, storage: Any, *args: Any) -> None:
    theirs(request, response, storage, *args)
    if response.status == HTTPStatus.NOT_FOUND:
        response.json(_error(404, "notFound", "The specified bucket does not exist."))


def _error(code: int, reason: str, message: str) -> Mapping[str, Any]:
    details = [{"message": message, "domain": "global", "reason": reason}]
    return {"error": {"code": code, "message": message, "errors": details}}
