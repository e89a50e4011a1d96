"""The first measurements: a cell, a new sandbox, a command; ours and theirs in turn, medians, as a Markdown table.

    python -m benchmarks.core [--repeat 1.0] [--engine bubblewrap|docker]

Times depend on the machine and the hour; the ratios of one run are what is compared with the goals. Uses the manager
of whoever runs it, and destroys every sandbox that it makes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from jupyter_sandbox import AsyncSandbox, __version__, get_async_sandbox, ids
from jupyter_sandbox.options import EngineName

from .theirs import Containers, LocalKernel, local_kernel

Timed = Callable[[], Awaitable[float]]
IMAGE = f"jupyter-sandbox:{__version__}"


@dataclass
class Row:
    """One comparison: seconds of ours and of theirs, and how many times as long ours may take."""

    name: str
    goal: float
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Median of ours by median of theirs."""
        return statistics.median(self.ours) / statistics.median(self.theirs)

    def __str__(self) -> str:
        ours, theirs = (statistics.median(times) * 1000 for times in (self.ours, self.theirs))
        met = "met" if self.ratio <= self.goal else "**not met**"
        cells = (self.name, len(self.ours), f"{ours:.1f}", f"{theirs:.1f}", f"{self.ratio:.2f}", f"≤ {self.goal}", met)
        return f"| {' | '.join(map(str, cells))} |"


HEAD = """\
| ours ÷ theirs | n | ours, ms | theirs, ms | ratio | goal | |
|---|---|---|---|---|---|---|"""


async def compare(name: str, goal: float, ours: Timed, theirs: Timed, repeat: int, warm_up: int = 1) -> Row:
    """Run both in turn; the first ``warm_up`` rounds do not count."""
    row = Row(name, goal)
    for turn in range(warm_up + repeat):
        for times, timed in ((row.ours, ours), (row.theirs, theirs)):
            seconds = await timed()
            if turn >= warm_up:
                times.append(seconds)
    return row


async def took(work: Awaitable[object]) -> float:
    """Seconds that ``work`` took."""
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


@asynccontextmanager
async def sandbox(engine: EngineName) -> AsyncIterator[AsyncSandbox]:
    """A new sandbox, not started yet; destroyed afterwards."""
    made = get_async_sandbox(ids.temporary(), engine=engine)
    try:
        yield made
    finally:
        await made.destroy()
        await made.close()


async def first_cell_ours(engine: EngineName) -> float:
    """A sandbox that did not exist, to its first result; the manager runs already."""
    async with sandbox(engine) as made:
        return await took(made.run_code("1+1"))


async def first_cell_theirs(containers: Containers | None = None) -> float:
    """A local kernel to its first result; with ``containers``, a plain container before it."""
    kernel = LocalKernel()
    started = time.perf_counter()
    container = await asyncio.to_thread(containers.start) if containers else None
    await kernel.start()
    await kernel.first("1+1")
    seconds = time.perf_counter() - started
    await kernel.end()
    if container is not None:
        await asyncio.to_thread(container.remove, force=True)
    return seconds


async def cell(engine: EngineName, repeat: int) -> Row:
    """`1+1` through client, proxy and agent, beside a kernel spoken to directly."""
    async with sandbox(engine) as ours, local_kernel() as theirs:
        channel = await ours.channel()

        async def through_the_channel() -> None:
            async for _ in channel.execute("1+1"):
                pass

        name = f"`1+1` in a running sandbox ({engine}) ÷ in a local kernel"
        return await compare(
            name, 2.0, lambda: took(through_the_channel()), lambda: took(theirs.run("1+1")), repeat, warm_up=10
        )


async def new_bubblewrap(repeat: int) -> Row:
    """A new bubblewrap sandbox to its first result."""
    name = "new bubblewrap sandbox to the first `1+1` ÷ new local kernel to the same"
    return await compare(name, 1.6, lambda: first_cell_ours("bubblewrap"), first_cell_theirs, repeat)


async def new_docker(containers: Containers, repeat: int) -> Row:
    """A new Docker sandbox to its first result."""
    name = "new Docker sandbox to the first `1+1` ÷ `docker create` and `start`, then a new local kernel"
    return await compare(name, 1.3, lambda: first_cell_ours("docker"), lambda: first_cell_theirs(containers), repeat)


async def command(engine: EngineName, containers: Containers, repeat: int) -> list[Row]:
    """The smallest command in a running sandbox, against the docker command and against its SDK."""
    name = f"`exec('true')` in a running sandbox ({engine}) ÷ `docker exec … true`"
    with containers.one() as container:

        async def by_command() -> None:
            process = await asyncio.create_subprocess_exec("docker", "exec", container.id, "true")
            await process.wait()

        theirs = {
            name: lambda: took(by_command()),
            f"{name} through the SDK": lambda: took(asyncio.to_thread(container.exec_run, "true")),
        }
        async with sandbox(engine) as ours:
            await ours.start()
            return [
                await compare(title, 0.15, lambda: took(ours.exec("true")), measured, repeat, warm_up=3)
                for title, measured in theirs.items()
            ]


async def main(engines: list[EngineName], repeat: float) -> None:
    """Measure and print, row by row as they come."""
    print(HEAD, flush=True)
    containers = Containers(IMAGE) if "docker" in engines else None
    for engine in engines:
        print(await cell(engine, round(200 * repeat)), flush=True)
    if "bubblewrap" in engines:
        print(await new_bubblewrap(round(12 * repeat)), flush=True)
    if containers is not None:
        print(await new_docker(containers, round(8 * repeat)), flush=True)
        for engine in engines:
            print(*await command(engine, containers, round(40 * repeat)), sep="\n", flush=True)
        containers.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", action="append", choices=("bubblewrap", "docker"), help="default: both")
    parser.add_argument("--repeat", type=float, default=1.0, help="how many times as many rounds as usual")
    given = parser.parse_args()
    asyncio.run(main(given.engine or ["bubblewrap", "docker"], given.repeat))
