"""The routes, by FastAPI. Every one is there whatever the model does; one that it cannot do says so, with 404."""

import base64
import contextlib
import hashlib
import re
import time
from importlib import resources
from typing import Annotated

import numpy as np
from fastapi import APIRouter, FastAPI
from fastapi import Request as Call
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from lmjax.errors import UserError
from lmjax.serve.guard import LOCAL, Guard
from lmjax.serve.limits import Limits, Refusal, error
from lmjax.serve.metrics import Metrics
from lmjax.serve.schemas import Chat, Completion, Embedding, Questions, Texts
from lmjax.serve.writer import Answer, Writer, watched

PATHS = {"complete": "/v1/completions", "chat": "/v1/chat/completions", "embed": "/v1/embeddings",
         "classify": "/v1/classify", "tag": "/v1/tag", "answer": "/v1/answer",
         "translate": "/v1/translate"}  # fmt: skip
OTHERS = ("/", "/healthz", "/metrics", "/v1/models")
# What any route may answer, for the description of the interface.
SAID = {status: {"description": why} for status, why in {
    400: "a field is wrong; the message says which", 401: "no key", 403: "not to this host", 404: "not of this model",
    408: "too slow", 413: "too large", 415: "no JSON", 429: "busy: come again after Retry-After", 500: "a failure",
}.items()}  # fmt: skip


def metrics() -> Metrics:
    return Metrics((*PATHS.values(), *OTHERS))


def build(served, limits: Limits, seen: Metrics, *, key: str = "", local: bool = True):
    """The ASGI application. served: a Writer or an Asker. key: "" for none. local: without a key it answers to
    localhost alone."""

    @contextlib.asynccontextmanager
    async def lifespan(_):
        yield
        served.close()

    app = FastAPI(title="lmjax", docs_url=None, redoc_url=None, openapi_url="/openapi.json" if key else None,
                  lifespan=lifespan, responses=SAID)  # fmt: skip
    app.add_exception_handler(Refusal, lambda call, refusal: refused(refusal))
    app.add_exception_handler(UserError, lambda call, problem: refused(Refusal(400, str(problem), "input")))
    app.add_exception_handler(RequestValidationError, lambda call, problem: refused(unfit(problem.errors())))
    app.add_exception_handler(HTTPException, lambda call, problem: refused(
        Refusal(problem.status_code, f"{call.method} {call.url.path[:100]}: {problem.detail}")))  # fmt: skip
    app.include_router(about(served, seen))
    does = abilities(served)
    for does_it, routes in ((served.does == "complete", writes), ("chat" in does, chats), (True, asks)):
        if does_it:
            app.include_router(routes(served, limits))
    for ability, path in PATHS.items():
        if ability not in does:
            app.add_api_route(path, cannot(served, ability), methods=["POST"], include_in_schema=False)
    return Guard(app, limits=limits, key=key, hosts=LOCAL if local and not key else None, seen=seen.seen)


def abilities(served) -> list[str]:
    return [served.does, *["chat"] * getattr(served, "chats", False)]


def refused(refusal: Refusal) -> JSONResponse:
    headers = {"Retry-After": str(refusal.wait)} if refusal.wait else None
    return JSONResponse(error(refusal), refusal.status, headers)


def unfit(problems) -> Refusal:
    """The first of pydantic's errors, in a line."""
    problem = problems[0]
    place = [str(part) for part in problem["loc"][1:]]
    name = ".".join(part for n, part in enumerate(place) if n == 0 or part.isdigit() or "[" not in part)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "is no field of this route: leave it out"
    elif problem["type"] == "missing":
        message = "is missing"
    return Refusal(400, f"{name or 'the body'}: {message}"[:500], place[0] if place else None)


def cannot(served, ability: str):
    def refuse():
        able = " or ".join(PATHS[one] for one in abilities(served))
        raise Refusal(404, f"{served.name} does not {ability}: ask {able}")

    return refuse


def fits(served, limits: Limits, form, texts):
    """Refusal where a request is for another model, or too large."""
    if form.model not in (None, served.name):
        raise Refusal(404, f"there is no model {form.model[:100]!r} here: expected {served.name}", "model",
                      "model_not_found")  # fmt: skip
    if len(texts) > limits.items:
        raise Refusal(400, f"{len(texts)} texts: expected at most {limits.items}")
    if (size := sum(map(len, texts))) > limits.characters:
        raise Refusal(400, f"{size:,} characters: expected at most {limits.characters:,}")


def stops(limits: Limits, form):
    if isinstance(form.stop, list) and len(form.stop) > limits.stops:
        raise Refusal(400, f"{len(form.stop)} stop texts: expected at most {limits.stops}", "stop")


def several(given) -> list:
    """A text, several, a list of tokens or several of those, as a list of prompts."""
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        return [given]
    if not given:
        raise Refusal(400, "an empty list: give at least one text")
    return given


async def said(call: Call, answer: Answer, job, form):
    if form.stream:
        usage = bool((form.stream_options or {}).get("include_usage"))
        return StreamingResponse(answer.stream(job, call.receive, usage), media_type="text/event-stream",
                                 headers={"Cache-Control": "no-store"})  # fmt: skip
    async with watched(call.receive, job):
        whole = await answer.whole(job)
    return JSONResponse(whole) if whole else Response(status_code=499)


def writes(writer: Writer, limits: Limits) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/completions")
    async def completions(call: Call, form: Completion):
        prompts = several(form.prompt)
        fits(writer, limits, form, prompts)
        stops(limits, form)
        ids = [writer.ids(prompt, "prompt") for prompt in prompts]
        job = writer.ask(ids, form, form.max_tokens or 16, writer.eos)
        echo = [writer.tokenizer.decode(row) for row in ids for _ in range(form.n or 1)] if form.echo else ()
        return await said(call, Answer(writer, False, sum(map(len, ids)), echo), job, form)

    return router


def chats(writer: Writer, limits: Limits) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(call: Call, form: Chat):
        texts = [message.text() for message in form.messages]
        fits(writer, limits, form, texts)
        stops(limits, form)
        prompt = writer.chat_prompt([(message.role, text) for message, text in zip(form.messages, texts)])
        ids = writer.ids(prompt, "messages")
        job = writer.ask([ids], form, form.max_completion_tokens or form.max_tokens, writer.turn)
        return await said(call, Answer(writer, True, len(ids)), job, form)

    return router


def asks(asker, limits: Limits) -> APIRouter:
    """The one route of what classifies, tags, answers, translates or embeds."""
    router = APIRouter()

    async def ask(form, texts, items):
        fits(asker, limits, form, texts)
        if empty := [n for n, text in enumerate(texts) if not text.strip()]:
            raise Refusal(400, f"text {empty[0]} is empty: leave it out", "input")
        return await asker.gather.ask(items)

    def listed(found) -> dict:
        return {"object": "list", "model": asker.name, "data": [{"index": n} | one for n, one in enumerate(found)]}

    async def texts(form: Texts):
        items = several(form.input)
        return JSONResponse(listed(await ask(form, items, items)))

    async def answers(form: Questions):
        pairs = form.asked()
        if not pairs:
            raise Refusal(400, "an empty list: give at least one question and its context", "input")
        return JSONResponse(listed(await ask(form, [text for pair in pairs for text in pair], pairs)))

    async def embeddings(form: Embedding):
        items = several(form.input)
        if form.dimensions not in (None, asker.trained.model.dim):
            raise Refusal(400, f"{asker.name} has {asker.trained.model.dim} dimensions", "dimensions")
        return JSONResponse(vectors(asker, items, await ask(form, items, items), form.encoding_format == "base64"))

    route = {"answer": answers, "embed": embeddings}.get(asker.does, texts)
    if asker.does != "complete":
        router.add_api_route(PATHS[asker.does], route, methods=["POST"])
    return router


def vectors(asker, texts, found, base: bool) -> dict:
    def one(row):
        row = np.asarray(row, "<f4")
        return base64.b64encode(row.tobytes()).decode() if base else row.tolist()

    count = sum(map(len, asker.trained.tokenizer.encode_lines(texts)))
    data = [{"object": "embedding", "index": n, "embedding": one(row)} for n, row in enumerate(found)]
    return {"object": "list", "model": asker.name, "data": data,
            "usage": {"prompt_tokens": count, "total_tokens": count}}  # fmt: skip


def about(served, seen: Metrics) -> APIRouter:
    """The page, health, metrics and the model."""
    router, created = APIRouter(), int(time.time())
    page = resources.files("lmjax.serve").joinpath("page.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": policy(page), "Referrer-Policy": "no-referrer"}
    model = {"id": served.name, "object": "model", "created": created, "owned_by": "lmjax", "does": abilities(served)}

    @router.get("/", response_class=HTMLResponse)
    def index():
        return HTMLResponse(page, headers=headers)

    @router.get("/healthz")
    def health():
        return {"status": "ok", "model": served.name}

    @router.get("/metrics", response_class=Response)
    def figures():
        return Response(seen.page(), media_type="text/plain; version=0.0.4")

    @router.get("/v1/models")
    def models():
        return {"object": "list", "data": [model]}

    @router.get("/v1/models/{name:path}")
    def one(name: Annotated[str, Field(max_length=256)]):
        if name != served.name:
            raise Refusal(404, f"there is no model {name[:100]!r} here: expected {served.name}", "model",
                          "model_not_found")  # fmt: skip
        return model

    return router


def policy(page: str) -> str:
    """What the page may load: its own style and script, by their hashes, and this server."""

    def hashes(tag):
        for part in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL):
            yield f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {' '.join(hashes('script'))}; style-src {' '.join(hashes('style'))}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
