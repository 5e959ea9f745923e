"""DBOS in Python: the workflow of the Rust peers and their protocol (src/rounds.rs), on the Postgres of DATABASE_URL.

Workflows and steps are coroutines and are awaited directly, not through a queue: its fast way in one process.
"""

import asyncio
import importlib.metadata
import json
import logging
import os
import sys
import time

from dbos import DBOS, DBOSConfig

# Seconds.
WORKFLOW = 30
ROUND = 120
# As many connections as the Rust peer has.
CONNECTIONS = 16
# Fewer than there: it is ten times slower.
WARM_UP = (100, 50)


@DBOS.step()
async def append(text: str) -> str:
    return text + "x"


@DBOS.workflow()
async def three(text: str) -> str:
    for _ in range(3):
        text = await append(text)
    return text


async def timed() -> float:
    """Milliseconds of one workflow."""
    began = time.perf_counter()
    result = await asyncio.wait_for(three("a"), WORKFLOW)
    if result != "axxx":
        raise RuntimeError(f"wrong result {result}")
    return (time.perf_counter() - began) * 1000


async def figures(count: int, in_flight: int) -> dict[str, float]:
    places = asyncio.Semaphore(in_flight)

    async def one() -> float:
        async with places:
            return await timed()

    began = time.perf_counter()
    times = sorted(await asyncio.wait_for(asyncio.gather(*(one() for _ in range(count))), ROUND))
    lasted = time.perf_counter() - began
    at = lambda percent: times[(count - 1) * percent // 100]
    return {"p50_ms": at(50), "p99_ms": at(99), "per_second": count / lasted}


def say(line: dict) -> None:
    print(json.dumps(line), flush=True)


async def answer(lines: asyncio.StreamReader) -> None:
    await figures(*WARM_UP)
    say({"ready": True, "version": importlib.metadata.version("dbos")})
    while order := (await lines.readline()).split():
        word, count, in_flight = order
        if word != b"run":
            raise RuntimeError(f"not `run COUNT IN_FLIGHT`: {order}")
        say(await figures(int(count), int(in_flight)))


async def main() -> None:
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: Ended(lines), sys.stdin)
    await answer(lines)


class Ended(asyncio.StreamReaderProtocol):
    """The end of the input ends the process, in the middle of a round too: there is nothing to keep."""

    def eof_received(self) -> bool:
        os._exit(0)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    config: DBOSConfig = {
        "name": "bench",
        "application_version": "bench",
        "system_database_url": os.environ["DATABASE_URL"],
        "sys_db_pool_size": CONNECTIONS,
    }
    try:
        DBOS(config=config)
        DBOS.launch()
        asyncio.run(main())
    except Exception as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
