"""Classes and vectors over HTTP, and micro-batches: who shares one, who is bad alone, who has to wait."""

import asyncio
import base64
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lmjax import config, param
from lmjax.data import tokenizers
from lmjax.errors import UserError
from lmjax.models import bert, cnn
from lmjax.run import models
from lmjax.run.tasks import classifying, predicting
from lmjax.serve.gather import Gather
from lmjax.serve.limits import Refusal


def test_items_of_several_requests_are_asked_together_and_a_bad_one_fails_alone():
    asked = []

    def run(items):
        asked.append(list(items))
        if "bad" in items:
            raise UserError("a bad item")
        return [item.upper() for item in items]

    async def main():
        gather = Gather(run, most=4, queue=6, window=0.01)
        found = await asyncio.gather(
            gather.ask(["a", "b"]), gather.ask(["bad"]), gather.ask(["c"]), gather.ask(["d"]), return_exceptions=True
        )
        gather.close()
        return found

    found = asyncio.run(main())
    assert found[0] == ["A", "B"]
    assert isinstance(found[1], UserError)
    assert found[2:] == [["C"], ["D"]]
    assert asked[0] == ["a", "b", "bad", "c"]
    assert asked[-1] == ["d"]


def test_a_full_queue_is_refused_and_who_leaves_is_not_asked():
    asked = []

    def run(items):
        asked.extend(items)
        return items

    async def main():
        gather = Gather(run, most=2, queue=2, window=0.01)
        leaving = asyncio.ensure_future(gather.ask(["left"]))
        waiting = asyncio.ensure_future(gather.ask(["waits"]))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="try again"):
            await gather.ask(["late"])
        leaving.cancel()
        assert await waiting == ["waits"]
        assert await gather.ask(["again"]) == ["again"]
        gather.close()

    asyncio.run(main())
    assert asked == ["waits", "again"]


@pytest.fixture(scope="module")
def classifier():
    model = config.CNN(vocab=4, embed=8, maps=4, windows=(2,))
    words = tokenizers.Word(("<unk>", "good", "bad", "film"))
    params = param.init(cnn.cnn_params(model, 2), jax.random.key(0))
    reading = classifying.Reading(words, "spaces", True, 16)
    return predicting.Able("classify", classifying.Classifier("cnn", params, model, ("no", "yes"), reading), "films")


def client(able, limits, rows=4):
    testclient = pytest.importorskip("starlette.testclient")
    from lmjax.serve import app
    from lmjax.serve.asker import Asker

    seen = app.metrics()
    asker = Asker(able, rows=rows, queue=8, metrics=seen)
    asker.start()
    return testclient.TestClient(app.build(asker, limits, seen, local=False))


def test_classes_are_those_of_the_classifier(classifier, limits):
    some, texts = client(classifier, limits), ["good film", "bad film film"]
    answer = some.post("/v1/classify", json={"input": texts}).json()
    expected = classifying.classify(classifier.trained, texts)
    for n, row in enumerate(answer["data"]):
        assert row["index"] == n
        np.testing.assert_allclose(list(row["probabilities"].values()), expected[n], atol=1e-4)
        assert row["label"] == ("no", "yes")[expected[n].argmax()]
    assert some.post("/v1/classify", json={"input": ["good", " "]}).status_code == 400
    assert some.post("/v1/completions", json={"prompt": "a"}).status_code == 404
    assert some.get("/v1/models").json()["data"][0]["does"] == ["classify"]


def test_vectors_are_those_of_embed_in_both_codings(limits):
    pytest.importorskip("tokenizers")
    tokenizer = tokenizers.wordpiece("the cat sat on the mat . " * 20, 100)
    model = config.BERT(vocab=tokenizer.vocab, context=16, layers=1, heads=2, dim=16)
    params = {"bert": param.init(bert.bert_params(model), jax.random.key(0))}
    trained = models.Trained(params, model, tokenizer)
    some, texts = client(predicting.Able("embed", trained, "small"), limits, rows=1), ["the cat", "the mat sat"]
    expected = models.embed(trained, texts, batch=1)
    for coding in ("float", "base64"):
        answer = some.post("/v1/embeddings", json={"input": texts, "encoding_format": coding}).json()
        found = [row["embedding"] for row in answer["data"]]
        if coding == "base64":
            found = [np.frombuffer(base64.b64decode(row), "<f4") for row in found]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert answer["usage"]["prompt_tokens"] == 5
    assert some.post("/v1/embeddings", json={"input": "a", "dimensions": 3}).status_code == 400


@pytest.mark.parametrize(
    ("does", "name", "body", "asked"),
    [
        ("tag", "tagged", {"input": ["a b", "c"]}, ["a b", "c"]),
        ("translate", "translated", {"input": "a b"}, ["a b"]),
        ("answer", "answered", {"question": "who?", "context": "me"}, [("who?", "me")]),
        ("answer", "answered", {"input": [{"question": "who?", "context": "me"}]}, [("who?", "me")]),
    ],
)
def test_the_other_tasks_are_asked_for_what_came(monkeypatch, limits, does, name, body, asked):
    seen = []

    def answers(trained, items, **settings):
        seen.append(items)
        return ({"said": n} for n, _ in enumerate(items))

    monkeypatch.setattr(predicting, name, answers)
    trained = SimpleNamespace(window=16, known=SimpleNamespace(columns=()))
    some = client(predicting.Able(does, trained, "run"), limits, rows=2)
    assert seen  # compiled before the first request
    answer = some.post(f"/v1/{does}", json=body)
    assert answer.json()["data"] == [{"index": n, "said": n} for n in range(len(asked))]
    assert seen[-1] == asked
    for wrong in ({"input": 3}, {"question": "who?"}, {"input": []}, {}):
        assert some.post(f"/v1/{does}", json=wrong).status_code == 400
