"""The thread that writes: requests take slots, every step gives each its next token, who is done leaves.

Requests come from an event loop and get their text there through `Row.tell`. Between two steps prompts of some
`PROMPTS` tokens are read, so that nobody who writes waits long for those who come. A batch is as large as the rows in
it need, of the sizes that were compiled at the start.
"""

import bisect
import collections
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmjax.decode import slots
from lmjax.decode.slots import Apart, Draws
from lmjax.serve.limits import busy
from lmjax.serve.text import Text

PROMPTS = 256  # prompt tokens read between two steps, at least one prompt
PATIENCE = 64  # steps in which a smaller batch would have done, before it is taken

log = logging.getLogger("lmjax.serve")


@dataclass(eq=False)
class Row:
    """One continuation that is asked for.

    prompt: token ids, at least one. count: new tokens at most. end: the token that ends it, None for none. tell(text,
    tokens, finish): called in the engine's thread with what is new; finish is None until the last call, which says
    "stop", "length", "cancelled" or "error".
    """

    prompt: Sequence[int]
    count: int
    draws: Draws
    text: Text
    tell: Callable
    end: int | None = None
    cancelled: bool = False
    new: list = field(default_factory=list)
    held: int = 0  # tokens in the cache


class Engine:
    """Decodes rows of a model. rows, length: the most slots, and tokens that each has room for. queue: rows that may
    wait. `warm` compiles, `start` begins, `close` ends the thread after the rows that it has."""

    def __init__(self, model: Apart, params, *, rows: int, length: int, queue: int):
        self.model, self.params, self.queue = model, params, queue
        self.rows = slots.sizes(1, rows)
        self.lengths = slots.sizes(256, length) if model.context else [length]
        self.seats, self.slots, self.length, self.small = [], None, 0, 0
        self.waiting, self.change = collections.deque(), threading.Condition()
        self.closing, self.thread = False, threading.Thread(target=self._work, name="engine", daemon=True)

    @property
    def active(self) -> int:
        return sum(seat is not None for seat in self.seats)

    def warm(self):
        """Compiles and runs every program that a request may need."""
        free = slots.draws(temperature=0.0)
        shapes = [(rows, length) for rows in self.rows for length in self.lengths]
        for rows, length in shapes:
            some = slots.empty(self.model, rows, length)
            for width in slots.sizes(16, length, 2):
                _, some = slots.join(self.model, self.params, some, 0, length, [0] * width, free)
            some = slots.step(self.model, self.params, some)
            for others, longer in shapes:
                if (others, longer) != (rows, length):
                    slots.fit(self.model, some, [0] * others, longer)

    def start(self):
        self.thread.start()

    def close(self, wait: float = 30.0):
        """Ends when the rows that came before have ended, or at the latest after `wait` seconds."""
        with self.change:
            self.closing = True
            self.change.notify()
        self.thread.join(wait)

    def submit(self, rows: Sequence[Row]):
        """Takes all rows of a request or none: Refusal 429 where the queue has no room for them."""
        with self.change:
            room = self.queue + self.rows[-1] - self.active
            if len(self.waiting) + len(rows) > room:
                self.waiting = collections.deque(row for row in self.waiting if not row.cancelled)
            if len(self.waiting) + len(rows) > room:
                raise busy()
            self.waiting.extend(rows)
            self.change.notify()

    def _work(self):
        while True:
            with self.change:
                while not self.waiting and not self.active and not self.closing:
                    self.change.wait()
                if self.closing and not self.waiting and not self.active:
                    return
            try:
                self._admit()
                if self.active:
                    self._advance()
            except Exception:
                log.exception("a step failed; the rows in it end")
                self._fail()

    def _admit(self):
        """Waiting rows into free slots, until PROMPTS tokens are read."""
        read = 0
        while read < PROMPTS and self.active < self.rows[-1]:
            with self.change:
                row = self.waiting.popleft() if self.waiting else None
                coming = self.active + 1 + len(self.waiting)
            if row is None:
                return
            if row.cancelled:
                row.tell("", 0, "cancelled")
                continue
            self._room(coming, len(row.prompt) + 1)
            seat = self.seats.index(None)
            self.seats[seat] = row
            self._read(seat, row, row.prompt)
            read += len(row.prompt)

    def _read(self, seat: int, row: Row, prompt):
        drawn = row.draws._replace(drawn=np.array([len(row.new)], np.int32))
        token, self.slots = slots.join(self.model, self.params, self.slots, seat, self.length, prompt, drawn)
        row.held = len(prompt)
        self._got(seat, token)

    def _advance(self):
        """A token for every row."""
        for seat, row in enumerate(self.seats):
            if row is not None and row.cancelled:
                self._leave(seat, "", 0, "cancelled")
            elif row is not None and self.model.context and row.held + 1 >= self.model.context:
                # Full: the last half of the context is read again, as decode/sample.py does.
                self._read(seat, row, [*row.prompt, *row.new][-max(self.model.context // 2, 1) :])
        if not self.active:
            return
        self._room(self.active, 1 + max(row.held for row in self.seats if row is not None))
        self.slots = slots.step(self.model, self.params, self.slots)
        for seat, row in enumerate(self.seats):
            if row is not None:
                row.held += 1
                self._got(seat, int(self.slots.token[seat]))

    def _got(self, seat: int, token: int):
        """A row's new token: told, and the row's leave where it is the last."""
        row = self.seats[seat]
        if token == row.end:
            return self._leave(seat, row.text.finish(), 1, "stop")
        row.new.append(token)
        text = row.text.push(token)
        if row.text.stopped:
            return self._leave(seat, text, 1, "stop")
        if len(row.new) == row.count:
            return self._leave(seat, text + row.text.finish(), 1, "stop" if row.text.stopped else "length")
        row.tell(text, 1, None)

    def _leave(self, seat: int, text: str, tokens: int, finish: str):
        row, self.seats[seat] = self.seats[seat], None
        row.tell(text, tokens, finish)

    def _room(self, count: int, need: int):
        """A batch as large as `count` rows and `need` tokens of the longest; a smaller one after some patience."""
        rows = self.rows[min(bisect.bisect_left(self.rows, count), len(self.rows) - 1)]
        longest = max([need, *(row.held + 1 for row in self.seats if row is not None)])
        length = self.lengths[min(bisect.bisect_left(self.lengths, longest), len(self.lengths) - 1)]
        if not self.active:
            if self.slots is None or (len(self.seats), self.length) != (rows, length):
                self.slots, self.seats, self.length = None, [None] * rows, length
                self.slots = slots.empty(self.model, rows, length)
            return
        small = rows < len(self.seats) or length < self.length
        self.small = self.small + 1 if small else 0
        if self.small < PATIENCE:
            rows, length = max(rows, len(self.seats)), max(length, self.length)
        if (rows, length) != (len(self.seats), self.length):
            there = [seat for seat, row in enumerate(self.seats) if row is not None]
            order = there + [-1] * (rows - len(there))
            self.slots = slots.fit(self.model, self.slots, order, length)
            self.seats = [self.seats[seat] if seat >= 0 else None for seat in order]
            self.length, self.small = length, 0

    def _fail(self):
        seats, self.seats, self.slots = self.seats, [], None
        for row in seats:
            if row is not None:
                row.tell("", 0, "error")
