"""Micro-batches: items of requests that come at almost the same time are asked together."""

import asyncio
import collections
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lmjax.errors import UserError
from lmjax.serve.limits import busy


class Gather:
    """ask(items) of many requests as few calls of run(items) -> results, in a thread of its own.

    most: items of a call. queue: items that may wait. window: seconds that the first waits for others.
    """

    def __init__(self, run: Callable[[list], Sequence], *, most: int, queue: int, window: float = 0.005):
        self.run, self.most, self.queue, self.window = run, most, queue, window
        self.waiting = collections.deque()  # (item, its future)
        self.thread = ThreadPoolExecutor(1, "gather")
        self.task = None

    async def ask(self, items: Sequence) -> list:
        """The result of each item. Refusal 429 where they do not fit in the queue, UserError where one is bad."""
        if self.task and self.task.done():
            self.task = None
        if len(self.waiting) + len(items) > self.queue:
            raise busy()
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        self.waiting.extend(zip(items, futures))
        self.task = self.task or loop.create_task(self._work())
        try:
            found = await asyncio.gather(*futures, return_exceptions=True)
        finally:
            for future in futures:  # whoever left is not asked any more
                future.cancel()
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return found

    async def _work(self):
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.window)
        while self.waiting:
            some = []
            while self.waiting and len(some) < self.most:
                item, future = self.waiting.popleft()
                if not future.done():
                    some.append((item, future))
            if some:
                await loop.run_in_executor(self.thread, self._answer, loop, some)

    def _answer(self, loop, some):
        """In the thread. A bad item fails alone: the others of its batch are asked one by one."""
        try:
            found = list(self.run([item for item, _ in some]))
        except UserError as error:
            if len(some) > 1:
                for one in some:
                    self._answer(loop, [one])
                return
            found = [error]
        except Exception as error:
            found = [error] * len(some)
        for (_, future), result in zip(some, found, strict=True):
            loop.call_soon_threadsafe(_settle, future, result)

    def close(self):
        self.thread.shutdown(wait=False, cancel_futures=True)


def _settle(future, result):
    if not future.done():
        future.set_exception(result) if isinstance(result, Exception) else future.set_result(result)
