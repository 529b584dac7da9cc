"""Completions over HTTP, in the process: OpenAI's objects, what `models.complete` says, slots that are freed."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

from lmjax.run import models


@pytest.fixture(scope="module")
def client(served, limits):
    from starlette.testclient import TestClient

    from lmjax.serve.app import build

    writer, seen = served
    return TestClient(build(writer, limits, seen, local=False), raise_server_exceptions=False)


def complete(client, prompt="abc", **form):
    return client.post("/v1/completions", json={"prompt": prompt, "temperature": 0, "max_tokens": 8, **form})


def streamed(answer):
    *events, last, end = answer.text.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def idle(writer):
    deadline = time.monotonic() + 5
    while writer.engine.active or writer.engine.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_greedy_completion_is_that_of_complete_past_the_context_too(client, trained):
    """40 tokens in a context of 16: its last half is read again."""
    answer = complete(client, max_tokens=40).json()
    (said,) = models.complete(trained, ["abc"], 40, key=jax.random.key(0), temperature=0.0)
    (choice,) = answer["choices"]
    assert choice == {"index": 0, "text": said, "logprobs": None, "finish_reason": "length"}
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 40, "total_tokens": 43}


def test_a_stream_says_the_same_piece_by_piece(client):
    whole = complete(client, ["abc", "xy"], n=2, echo=True).json()["choices"]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, usage = streamed(complete(client, ["abc", "xy"], n=2, echo=True, **options))
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 32
    for choice in whole:
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in mine) == choice["text"]
        assert [part["finish_reason"] for part in mine if part["finish_reason"]] == ["length"]
    assert whole[0]["text"].startswith("abc")
    assert whole[2]["text"].startswith("xy")


def test_draws_come_again_by_their_seed_whoever_else_is_there(client):
    def draw(seed, prompt="abc"):
        return complete(client, prompt, temperature=1, seed=seed, max_tokens=30).json()["choices"][0]["text"]

    alone = [draw(seed) for seed in (1, 2)]
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(draw, (1, 2, 3, 4), ("abc", "abc", "q", "zzzzzzzz")))
    assert together[:2] == alone


def test_a_stop_text_ends_a_completion(client):
    said = complete(client, max_tokens=20).json()["choices"][0]["text"]
    choice = complete(client, max_tokens=20, stop=said[3:5]).json()["choices"][0]
    assert choice["text"] == said[: said.index(said[3:5])]
    assert choice["finish_reason"] == "stop"


def test_more_than_slots_and_queue_is_429_and_its_retry_is_served(client, served):
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda n: complete(client, max_tokens=60), range(12)))
    assert {answer.status_code for answer in answers} <= {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    idle(served[0])
    assert complete(client).status_code == 200
    assert complete(client, n=5).status_code == 400  # more rows than a request may have


def test_who_leaves_frees_the_slot(served, limits, monkeypatch):
    """The application called as a server does, with a client that is gone after the first piece."""
    import asyncio

    from lmjax.serve.app import build

    writer, seen = served
    app = build(writer, limits, seen, local=False)
    body = json.dumps({"prompt": "a", "max_tokens": 63, "stream": True}).encode()
    scope = {"type": "http", "asgi": {"spec_version": "2.3", "version": "3.0"}, "method": "POST", "query_string": b"",
             "path": "/v1/completions", "headers": [(b"content-type", b"application/json")]}  # fmt: skip

    async def call():
        gone, sent = asyncio.Event(), []

        async def receive():
            if not sent:
                sent.append("body")
                return {"type": "http.request", "body": body}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message.get("body"):
                gone.set()

        await app(scope, receive, send)

    jobs, ask = [], writer.ask
    monkeypatch.setattr(writer, "ask", lambda *given: jobs.append(ask(*given)) or jobs[-1])
    asyncio.run(asyncio.wait_for(call(), 10))
    idle(writer)
    assert 0 < len(jobs[0].rows[0].new) < 63


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"prompt": "ABC"}, "character 'A'"),
        ({"prompt": ""}, "empty prompt"),
        ({"prompt": []}, "empty list"),
        ({"prompt": [26]}, "token 26 is not in the vocabulary"),
        ({"prompt": "a" * 501}, "501 characters: expected at most 500"),
        ({"prompt": ["a"] * 5}, "5 texts: expected at most 4"),
        ({"prompt": "a" * 60, "max_tokens": 5}, "expected at most 64 together"),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"temperature": -1}, "temperature: "),
        ({"temperature": "1"}, "temperature: "),
        ({"stop": ["a", "b", "c"]}, "3 stop texts"),
        ({"logprobs": 3}, "logprobs: is not supported by this server"),
        ({"colour": 3}, "colour: is no field of this route"),
        ({"model": "gpt-9"}, "there is no model 'gpt-9' here"),
        ({"stream_options": {}}, "stream_options"),
    ],
)
def test_what_cannot_be_served_is_one_line(client, form, says):
    answer = complete(client, **form)
    assert answer.status_code == (404 if "model" in form else 400)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert says in answer.json()["error"]["message"]


def test_fields_that_change_nothing_are_taken(client):
    form = {"user": "me", "metadata": {"a": "b"}, "presence_penalty": 0, "logit_bias": {}, "best_of": 1, "suffix": None}
    assert complete(client, **form).status_code == 200


def test_a_route_that_the_model_cannot_do_names_one_that_it_can(client):
    answer = client.post("/v1/classify", json={"input": "a"})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "tiny does not classify: ask /v1/completions"
    assert client.post("/v1/chat/completions", json={"messages": []}).status_code == 404


def test_the_figures_are_told(client):
    complete(client)
    page = client.get("/metrics").text
    assert 'lmjax_requests_total{route="/v1/completions",status="200"}' in page
    assert 'lmjax_tokens_total{kind="completion"}' in page


def test_no_request_compiles(client, served):
    from lmjax.decode import slots

    programs = (slots._read, slots._step, slots._put, slots._fit, slots._empty)
    before = [program._cache_size() for program in programs]
    complete(client, ["abcdefghijklmnop" * 2, "b", "c", "d"], max_tokens=30, temperature=0.7, top_k=3, top_p=0.9)
    assert [program._cache_size() for program in programs] == before
