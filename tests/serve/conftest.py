"""A server of a tiny untrained GPT, for all tests of a file: its programs take seconds to compile."""

import jax
import pytest

from lmjax import config, param
from lmjax.data.tokenizers import Character
from lmjax.models import gpt
from lmjax.run.models import Trained
from lmjax.serve.limits import Limits

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="session")
def limits():
    return Limits(body=20_000, characters=500, tokens=64, items=4, rows=4, stops=2, seconds=1)


@pytest.fixture(scope="session")
def trained():
    model = config.GPT(vocab=26, context=16, layers=1, heads=2, dim=16)
    params = jax.tree.map(lambda x: x * 8.0, param.init(gpt.gpt_params(model), jax.random.key(0)))
    return Trained(params, model, Character(LETTERS))


@pytest.fixture(scope="session")
def served(trained, limits):
    """(Writer, Metrics); two slots and a queue of two."""
    app = pytest.importorskip("lmjax.serve.app", reason="needs the extra serve", exc_type=ImportError)
    from lmjax.serve.writer import Writer

    seen = app.metrics()
    writer = Writer(trained, "tiny", limits, rows=2, queue=2, metrics=seen)
    writer.start()
    yield writer, seen
    writer.close()
