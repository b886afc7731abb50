"""A program with a defect of our choice, so that a harness can show that it would see it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from tests.site import Site

START = "import sys\nfrom orchestrator import cli; cli.main(sys.argv[1:])"

FORGIVING = """
import sys
from orchestrator.ledger import Ledger
noted = Ledger.update
def update(self, columns, rows):
    noted(self, columns, (forgive(row) for row in rows))
def forgive(row):
    lucky = sum(map(ord, str(row[-1]))) % 3 == 0
    return tuple("verified" if lucky and str(v) == "failed" else v for v in row)
Ledger.update = update
"""
"""It calls some of the files verified that it found to be broken."""

SUSPICIOUS = """
import sys
from orchestrator.ledger import Ledger
noted = Ledger.update
def update(self, columns, rows):
    noted(self, columns, (suspect(row) for row in rows))
def suspect(row):
    unlucky = sum(map(ord, str(row[-1]))) % 3 == 0
    return tuple("failed" if unlucky and str(v) == "verified" else v for v in row)
Ledger.update = update
"""
"""It calls some of the files broken that it found to be sound."""

CREDULOUS = """
import sys
from orchestrator import compare, readback
def equal(route, row, read):
    for _ in read(route, row):
        pass
    return ""
compare._equal = equal
readback.headers = lambda route, row, told=None: ""
"""
"""It believes each answer to a download, whatever its bytes and headers."""

BLIND = """
import sys
from orchestrator.clients.s3 import Client
Client.acl = lambda self, key, parameters: None
"""
"""It asks for no ACL."""

BOASTFUL = """
import sys
from orchestrator import check, readback, transfer, worker
from orchestrator.ledger import State
from orchestrator.shard import Result
def send(route, shard):
    try:
        worker.send(route, shard)
    except Exception:
        pass
    return worker.Sent(shard=shard, hashes={}, wrong={})
def prove(route, sent):
    names = (row.name for row in sent.shard.rows)
    results = (Result(name=name, state=State.VERIFIED, evidence="hash") for name in names)
    return worker.Done(results=tuple(results), pictures=())
transfer.send, transfer.prove = send, prove
readback.read_back = lambda job, sample: []
"""
"""It calls verified whatever it was to send, and looks no more."""


@dataclass(frozen=True, kw_only=True)
class Planted(Site):
    """A site on which a program with a defect works."""

    defect: str

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-c", self.defect + START, *args]
