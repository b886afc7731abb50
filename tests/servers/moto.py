"""moto: keeps every header, ACL, tags, storage class, encryption; IAM with users and policies."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tests.servers import process
from tests.servers.base import MissingServerError, Options
from tests.servers.s3 import STORAGE_CLASS, BotoServer, bucket_name, client, storage_options

FAMILY = "s3"
HINT = "moto is not installed: run `make venv`, or `pip install 'moto[server,s3]'`"

PRIVATE = ("owner FULL_CONTROL",)
FULL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
READ_ONLY = {
    "Effect": "Allow",
    "Action": ["s3:Get*", "s3:List*", "s3:Head*"],
    "Resource": "*",
}
CALLS_BEFORE_IAM = 3
"""What `_new_user` needs: the first user is made by nobody, all later calls are checked."""


@dataclass(frozen=True, kw_only=True)
class MotoServer(BotoServer):
    iam: Any = field(repr=False)

    def _acl(self, where: Mapping[str, str]) -> tuple[str, ...] | None:
        """Read the ACL; moto fails on objects that came in parts without one: they are private."""
        try:
            return super()._acl(where)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 500:
                raise
            return PRIVATE

    def grant(self, options: Options, key: str, acl: str) -> None:
        """Give an object another canned ACL behind everybody's back."""
        self.s3.put_object_acl(Bucket=options["bucket_name"], Key=key, ACL=acl)

    def read_only(self, options: Options) -> Options:
        return {**options, **_new_user(self.iam, READ_ONLY)}


@contextmanager
def serving(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run moto; it takes any key unless `env` says otherwise."""
    if find_spec("moto") is None or find_spec("flask") is None:
        raise MissingServerError(HINT)
    address = process.free_address()
    host, port = address.split(":")
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", port]
    url = f"http://{address}"
    with process.running(command, ready=f"{url}/moto-api/", log=folder / "moto.log", env=env):
        yield url


@contextmanager
def start(folder: Path) -> Iterator[MotoServer]:
    with serving(folder, {"INITIAL_NO_AUTH_ACTION_COUNT": str(CALLS_BEFORE_IAM)}) as url:
        with client("iam", url, "nobody", "nothing") as nobody:
            keys = _new_user(nobody, FULL)
        pair = keys["access_key"], keys["secret_key"]
        with client("s3", url, *pair) as s3, client("iam", url, *pair) as iam:
            bucket = bucket_name()
            s3.create_bucket(Bucket=bucket)
            yield MotoServer(
                name="moto",
                family=FAMILY,
                storage_class=STORAGE_CLASS,
                options=storage_options(url, *pair, bucket),
                s3=s3,
                iam=iam,
            )


def _new_user(iam: Any, statement: dict[str, Any]) -> dict[str, str]:
    """Create a user with one policy; return its keys under the names of S3Storage's options."""
    user = f"user-{uuid.uuid4().hex[:8]}"
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.create_user(UserName=user)
    iam.put_user_policy(UserName=user, PolicyName="only", PolicyDocument=policy)
    made = iam.create_access_key(UserName=user)["AccessKey"]
    return {"access_key": made["AccessKeyId"], "secret_key": made["SecretAccessKey"]}
