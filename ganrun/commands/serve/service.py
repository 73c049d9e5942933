"""What the routes share: the generator, the network's thread, the other threads, and the figures."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ganrun.commands.serve.answers import encoded
from ganrun.commands.serve.batching import Batcher, Job
from ganrun.commands.serve.drift import Drift
from ganrun.commands.serve.figures import Figures
from ganrun.commands.serve.guard import Refused
from ganrun.commands.serve.served import Live
from ganrun.commands.serve.settings import Settings
from ganrun.commands.serve.translating import Translating
from ganrun.commands.serve.wanted import Wanted
from ganrun.errors import Failure

THREADS = 4  # that draw noise, decode and encode


class Service:
    """settings: of the command. Raises UserError for a generator that cannot be used."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.live = Live(settings.source, settings.device, settings.trust)
        self.drift = Drift(self.live.served, settings.batch_size)
        self.batcher = Batcher(batch_size=settings.batch_size, wait=settings.wait, queue=settings.queue)
        self.figures = Figures(self.drift, lambda: self.batcher.waiting, self.steps)
        self.batcher.saw = self.figures.saw_batch
        self.threads = ThreadPoolExecutor(THREADS, "work")
        self.translating = Translating(settings)

    def steps(self) -> float:
        found = self.live.served.made.trained.get("steps")
        return float(found) if isinstance(found, int) else float("nan")

    async def do(self, work: Callable[..., Any], *args: Any) -> Any:
        """work(*args) in another thread."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *args)

    async def made(self, jobs: list[Job]) -> list[Tensor]:
        """What the network makes of a request's jobs. Raises Full."""
        return await asyncio.gather(*map(asyncio.wrap_future, self.batcher.submit(jobs)))

    def reload(self) -> dict[str, Any]:
        """Raises Refused with 409 if the old generator stays."""
        try:
            served = self.live.reload()
        except Failure as error:
            self.figures.reloads.labels("refused").inc()
            raise Refused(409, f"not reloaded, the old generator stays: {error}") from error
        self.figures.reloads.labels("loaded").inc()
        return {"reloaded": True, "file": served.file.name, "trained": served.made.trained}

    def finish(self, asked: Wanted, parts: list[Tensor]) -> bytes:
        """A request's answer; its samples are counted."""
        made = parts[0] if len(parts) == 1 else torch.cat(parts)
        content = encoded(asked, made)
        self.figures.samples.inc(len(made))
        if asked.usual:
            z = torch.cat([job.rows[0] for job in asked.jobs])
            self.figures.duplicates.inc(self.drift.see(asked.served, z, asked.labels, made))
        return content

    def close(self) -> None:
        self.batcher.close()
        self.threads.shutdown()
