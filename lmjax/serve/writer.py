"""Completions and chats: from a checked request to rows of the engine, and from their tokens to OpenAI's answers."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Sequence

from lmjax.data.tokenizers import BPE
from lmjax.decode import slots
from lmjax.errors import UserError
from lmjax.interop.chat import END, START, chatml
from lmjax.run import models
from lmjax.serve.engine import Engine, Row
from lmjax.serve.limits import Limits, Refusal, error
from lmjax.serve.text import Text


class Writer:
    """A language model that completes and, where it has a chat template, chats."""

    does = "complete"

    def __init__(self, trained: models.Trained, name: str, limits: Limits, *, rows: int, queue: int, metrics):
        trained = models.unstacked(trained)
        self.tokenizer, self.template = trained.tokenizer, trained.template
        self.name, self.limits, self.metrics = name, limits, metrics
        self.program = models.apart(trained.model)
        self.length = min(self.program.context or limits.tokens, limits.tokens)
        self.engine = Engine(self.program, trained.params, rows=rows, length=self.length, queue=queue)
        metrics.active.set_function(lambda: self.engine.active)
        metrics.waiting.set_function(lambda: len(self.engine.waiting))
        bpe = isinstance(self.tokenizer, BPE)
        self.eos = self.tokenizer.eos if bpe else None  # of a vocabulary of words it is a line's end
        self.turn = self.tokenizer.id(END) if bpe and self.template and END in self.template else None

    @property
    def chats(self) -> bool:
        return self.turn is not None

    def start(self):
        self.engine.warm()
        self.engine.start()

    def close(self):
        self.engine.close()

    def ids(self, prompt: str | Sequence[int], param: str) -> list[int]:
        """The tokens of a prompt. Refusal where it has none, or one that the model does not know."""
        if isinstance(prompt, str):
            try:
                ids = self.tokenizer.encode(prompt).tolist()
            except UserError as error:
                raise Refusal(400, str(error), param) from None
        else:
            ids = list(prompt)
            if ids and max(ids) >= self.tokenizer.vocab:
                raise Refusal(400, f"token {max(ids)} is not in the vocabulary of {self.tokenizer.vocab}", param)
        if not ids:
            raise Refusal(400, "an empty prompt: give at least one token to go on from", param)
        return ids

    def chat_prompt(self, messages: Sequence[tuple[str, str]]) -> str:
        """Refusal where a message holds the template's own marks: it could speak for another."""
        for at, (_, text) in enumerate(messages):
            if START in text or END in text:
                raise Refusal(400, f"a message may not hold {START} or {END}", f"messages.{at}.content")
        return chatml([("system" if role == "developer" else role, text) for role, text in messages], self.template)

    def ask(self, prompts: Sequence[Sequence[int]], form, count: int | None, end: int | None) -> "Job":
        """The rows of a request, taken by the engine: `form.n` for each prompt. Refusal where they are too many, too
        long, or the queue is full."""
        n, most = form.n or 1, self.limits.rows
        if n * len(prompts) > most:
            raise Refusal(400, f"{n * len(prompts)} continuations: expected at most {most} in one request", "n")
        room = self.limits.tokens - max(map(len, prompts))
        if room < (count or 1):
            asked = f" and {count} to write" if count else ""
            raise Refusal(
                400, f"a prompt of {max(map(len, prompts)):,} tokens{asked}: expected at most {self.limits.tokens:,} "
                "together", "messages" if end == self.turn and self.chats else "prompt", "context_length_exceeded",
            )  # fmt: skip
        seed = secrets.randbits(32) if form.seed is None else form.seed
        stops = [form.stop] if isinstance(form.stop, str) else form.stop or []
        job, cut = Job(self.metrics), self.program.context and self.program.context - 1
        for prompt in prompts:
            for choice in range(n):
                draws = slots.draws(
                    seed, choice, temperature=1.0 if form.temperature is None else form.temperature,
                    top_k=form.top_k or 0, top_p=1.0 if form.top_p is None else form.top_p,
                )  # fmt: skip
                seen = prompt[-cut:] if cut else prompt
                job.add(seen, count or room, draws, Text(self.tokenizer, seen, stops), end)
        self.engine.submit(job.rows)
        self.metrics.tokens.labels("prompt").inc(sum(map(len, prompts)))
        return job


class Job:
    """The rows of one request, and what they say: an async iterator of (row's number, text, finish)."""

    def __init__(self, metrics):
        self.rows, self.events, self.metrics = [], asyncio.Queue(), metrics
        self.loop, self.began, self.written = asyncio.get_running_loop(), time.perf_counter(), 0

    def add(self, prompt, count, draws, text, end):
        number = len(self.rows)

        def tell(*event):
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                self.loop.call_soon_threadsafe(self.events.put_nowait, (number, *event))

        self.rows.append(Row(prompt, count, draws, text, tell, end))

    def cancel(self):
        """Frees the slots at the next step."""
        for row in self.rows:
            row.cancelled = True

    async def __aiter__(self):
        """Refusal 500 where a step failed."""
        left, first = len(self.rows), True
        while left:
            number, text, tokens, finish = await self.events.get()
            self.written += tokens
            if tokens:
                self.metrics.tokens.labels("completion").inc(tokens)
            if first:
                self.metrics.first.observe(time.perf_counter() - self.began)
                first = False
            if finish == "error":
                raise Refusal(500, "the server failed while it wrote; its log says why")
            left -= finish is not None
            if finish == "cancelled":
                return
            yield number, text, finish


@contextlib.asynccontextmanager
async def watched(receive, job: Job):
    """Cancels the job when the client leaves, or when the block ends early."""

    async def watch():
        while (await receive())["type"] != "http.disconnect":
            pass
        job.cancel()
        job.events.put_nowait((0, "", 0, "cancelled"))

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watcher.cancel()
        job.cancel()


class Answer:
    """OpenAI's objects for one request: of a completion, or of a chat."""

    def __init__(self, writer: Writer, chat: bool, prompts: int, echo: Sequence[str] = ()):
        self.chat, self.model, self.created = chat, writer.name, int(time.time())
        self.id = ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12)
        self.prompt_tokens, self.echo = prompts, list(echo)

    def _object(self, kind: str, choices: list, **more) -> dict:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices} | more

    def usage(self, written: int) -> dict:
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": written,
                "total_tokens": self.prompt_tokens + written}  # fmt: skip

    async def whole(self, job: Job) -> dict | None:
        """None where the client left."""
        texts = [[text] for text in self.echo or [""] * len(job.rows)]
        ends = [None] * len(job.rows)
        async for number, text, finish in job:
            texts[number].append(text)
            ends[number] = finish
        if None in ends:
            return None
        choices = []
        for number, (parts, finish) in enumerate(zip(texts, ends)):
            text = "".join(parts)
            said = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
            choices.append({"index": number, **said, "logprobs": None, "finish_reason": finish})
        kind = "chat.completion" if self.chat else "text_completion"
        return self._object(kind, choices, usage=self.usage(job.written))

    def chunk(self, number: int, text: str, finish: str | None, first: bool) -> dict:
        said = {"delta": {"role": "assistant"} if first else {}} if self.chat else {"text": text}
        if self.chat and text:
            said["delta"]["content"] = text
        choice = {"index": number, **said, "logprobs": None, "finish_reason": finish}
        return self._object("chat.completion.chunk" if self.chat else "text_completion", [choice])

    async def stream(self, job: Job, receive, usage: bool):
        """Server-sent events, one for each text that comes."""
        more = {"usage": None} if usage else {}
        begun = set()
        async with watched(receive, job):
            try:
                for number, text in enumerate(self.echo):
                    yield event(self.chunk(number, text, None, True) | more)
                async for number, text, finish in job:
                    if text or finish or number not in begun:
                        yield event(self.chunk(number, text, finish, number not in begun) | more)
                    begun.add(number)
            except Refusal as refusal:
                yield event(error(refusal))
            else:
                if usage:
                    yield event(self._object("chat.completion.chunk" if self.chat else "text_completion", [],
                                             usage=self.usage(job.written)))  # fmt: skip
            yield "data: [DONE]\n\n"


def event(data: dict) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
