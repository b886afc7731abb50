"""Shards under way: what one of them waits for is not waited for by the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.transfer import AT_ONCE
from tests.conformance.observe import wait_for
from tests.servers.base import Options, Server
from tests.servers.trouble import Trouble
from tests.site import Site

FILES = 2_400  # more shards than are sent at once
EVER = 1_000_000


@pytest.mark.on("rclone_s3")
def test_what_is_read_back_slowly_does_not_keep_the_others_from_being_sent(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    """Where all is read back, receiving takes longer than sending."""
    in_time: list[bool] = []
    with server.proxied(bucket) as (options, proxy):
        site = Site.on(server, options, tmp_path)
        for number in range(FILES):
            site.add(f"{number:04}.txt", f"{number}".encode())

        def until_all_are_sent() -> None:
            in_time.append(wait_for(lambda: len(proxy.writes) >= FILES, 20))

        proxy.trouble(Trouble(before=until_all_are_sent), matching=r"^GET .*\.txt", times=EVER)
        done = site.migrate("--no-thumbnails", "--seed", "1")
    assert done.states() == {"verified": FILES}
    assert len(in_time) > 2 * AT_ONCE
    assert all(in_time)
