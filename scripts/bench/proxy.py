"""A TCP proxy with a delay and a rate for each direction: PORT RTT_MS MBIT; prints its own port."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

BLOCK = 64 << 10
AHEAD = 64  # blocks of one connection on their way


@dataclass(kw_only=True)
class Direction:
    """One FIFO for all connections: each block waits for those before it, then for the delay."""

    delay: float
    rate: float  # bytes a second
    busy: float = 0.0

    def due(self, size: int) -> float:
        now = time.monotonic()
        self.busy = max(self.busy, now) + size / self.rate
        return self.busy + self.delay


async def carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
) -> None:
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(AHEAD)
    delivering = asyncio.create_task(deliver(queue, writer))
    with suppress(OSError):
        while data := await reader.read(BLOCK):
            due = direction.due(len(data))
            await queue.put((due, data))
            await asyncio.sleep(max(0.0, due - direction.delay - time.monotonic()))
    await queue.put((0.0, b""))
    await delivering


async def deliver(queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while True:
            due, data = await queue.get()
            if not data:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(port: int, delay: float, rate: float) -> None:
    up, down = Direction(delay=delay, rate=rate), Direction(delay=delay, rate=rate)

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, back, up), carry(there, writer, down))

    server = await asyncio.start_server(joined, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 2000, float(sys.argv[3]) * 125_000))
