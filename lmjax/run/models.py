"""A trained model from its workdir or as published, ready to be asked: what generate.py and the end of a run need."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax import config
from lmjax.data import tokenizers
from lmjax.decode.sample import Decoder, bucket, generate, pad
from lmjax.decode.slots import Apart
from lmjax.errors import UserError
from lmjax.interop.chat import END, chatml
from lmjax.interop.published import load as read_published
from lmjax.models import bert, gpt, lstm_lm
from lmjax.nn.xla import written
from lmjax.run.settings import from_json
from lmjax.run.weights import trained
from lmjax.run.workdir import stored


class Trained(NamedTuple):
    """A model's parameters, its config, its tokenizer, and of a chat model the template of its conversations."""

    params: Any
    model: Any
    tokenizer: Any
    template: str | None = None


# By the experiment's name: what its config holds as `model`, and that model's parameters.
WRITERS = {"gpt_char": (config.GPT, gpt.gpt_params), "lstm_ptb": (config.LSTM, lstm_lm.lstm_params)}
ENCODERS = {"bert_pretrain": (config.BERT, bert.pretrain_params)}


def load(workdir: str, which="best", kinds=WRITERS, flag="--workdir") -> Trained:
    """The model of a run of one of `kinds`; `which` checkpoint: "best" by validation loss, or "last".

    flag: what named the folder, for the line that says what is wrong with it.
    """
    run = stored(workdir)
    if run["experiment"] not in kinds:
        raise UserError(f"{flag}={workdir} is a run of {run['experiment']}: expected one of {', '.join(kinds)}")
    kind, specs = kinds[run["experiment"]]
    model = from_json(kind, run["config"].get("model"), f"{workdir}/config.json")
    tokenizer = tokenizers.load(Path(workdir) / "tokenizer.json")
    model = config.sized(model, tokenizer.vocab)
    return Trained(trained(workdir, specs(model), which, flag), model, tokenizer)


def published(where: str) -> Trained:
    """A GPT of others: a Hugging Face folder, a GGUF file, or a package with weights; see interop/published.py."""
    found = read_published(where)
    if not isinstance(found.model, config.GPT):
        raise UserError(f"--model={where} is a {type(found.model).__name__}, which writes no text: expected a GPT")
    if found.tokenizer is None:
        raise UserError(f"--model={where} has no tokenizer that lmjax can read: expected tokenizer.json, or vocab.json "
                        "and merges.txt, or in a GGUF file GPT-2's or SmolLM's")
    return Trained(*found)


def encoder(start: str, flag="--start") -> tuple[Any, config.BERT, Any]:
    """(params, config.BERT, tokenizer) of a run of bert_pretrain.py, a Hugging Face folder or a package."""
    if (Path(start).expanduser() / "checkpoints").is_dir():
        return load(str(Path(start).expanduser()), "last", ENCODERS, flag=flag)[:3]
    found = read_published(start)
    if not isinstance(found.model, config.BERT) or found.tokenizer is None:
        raise UserError(f"{flag}={start} is no BERT with a tokenizer: expected one, or a run of bert_pretrain.py")
    return found.params, found.model, found.tokenizer


@functools.cache  # the compiled programs hang on its identity
def decoder(model) -> Decoder:
    """How to decode with a model of this config."""
    return gpt_decoder(model) if isinstance(model, config.GPT) else lstm_decoder(model)


def gpt_logits(params, x):
    """Of the last layer x [B,D], [B,V]. The table as it lies, times the few rows: XLA on CPU would transpose the table
    for every token."""
    return written(gpt.head(params).astype(x.dtype) @ written(x.T)).T


def gpt_decoder(model: config.GPT) -> Decoder:
    def head(params, x):
        return gpt_logits(params, x[:, -1])

    def prefill(params, tokens, valid, room):
        cache = gpt.gpt_cache(model, *tokens.shape[:1], tokens.shape[1] + room)
        x, cache = gpt.hidden(params, model, tokens, cache=cache, valid=valid)
        return head(params, x), cache

    def step(params, cache, token):
        x, cache = gpt.hidden(params, model, token[:, None], cache=cache)
        return head(params, x), cache

    return Decoder(prefill, step, model.context, gpt.grow_cache)


def lstm_decoder(model: config.LSTM) -> Decoder:
    def step(params, carry, token):
        logits, carry = lstm_lm.lstm_lm(params, model, token[:, None], carry)
        return logits[:, -1], carry

    def prefill(params, tokens, valid, room):
        """Token by token: the state of a row begins with its first token that counts."""
        B = tokens.shape[0]

        def read(state, column):
            token, counts = column
            logits, carry = step(params, state[1], token)
            return jax.tree.map(lambda new, old: jnp.where(counts[:, None], new, old), (logits, carry), state), None

        state = (jnp.zeros((B, model.vocab), model.dtype), lstm_lm.lstm_carry(model, B))
        return lax.scan(read, state, (tokens.T, valid.T))[0]

    return Decoder(prefill, step)


@functools.cache
def apart(model) -> Apart:
    """How to decode rows that come and go, see decode/slots.py. Of a GPT whose blocks are not stacked (`unstacked`)."""
    return gpt_apart(model) if isinstance(model, config.GPT) else lstm_apart(model)


def gpt_apart(model: config.GPT) -> Apart:
    def empty(rows, length):
        return gpt.gpt_cache(model, rows, length, apart=True)

    def read(params, tokens, count):
        """Prompts stand at the left: what fills up behind them lies in slots that the next tokens take."""
        valid = jnp.arange(tokens.shape[1])[None] < count
        x, cache = gpt.hidden(params, model, tokens, cache=empty(*tokens.shape), valid=valid)
        last = lax.dynamic_slice_in_dim(x, count - 1, 1, axis=1)[:, 0]
        return gpt_logits(params, last), cache | {"slot": cache["position"]}

    def step(params, cache, token):
        x, cache = gpt.hidden(params, model, token[:, None], cache=cache)
        return gpt_logits(params, x[:, 0]), cache

    return Apart(empty, read, step, model.context)


def lstm_apart(model: config.LSTM) -> Apart:
    def read(params, tokens, count):
        carry, lengths = lstm_lm.lstm_carry(model, 1), jnp.reshape(count, (1,))
        logits, carry = lstm_lm.lstm_lm(params, model, tokens, carry, lengths=lengths)
        return lax.dynamic_slice_in_dim(logits, count - 1, 1, axis=1)[:, 0], carry

    return Apart(lambda rows, length: lstm_lm.lstm_carry(model, rows), read, lstm_decoder(model).step)


def unstacked(trained: Trained) -> Trained:
    """A GPT whose blocks were stacked for a scan (config.GPT.scan) with each by itself; others as they are."""
    if not getattr(trained.model, "scan", False):
        return trained
    blocks = [jax.tree.map(lambda x, i=i: x[i], trained.params["blocks"]) for i in range(trained.model.layers)]
    return trained._replace(params=trained.params | {"blocks": blocks}, model=replace(trained.model, scan=False))


def complete(
    trained: Trained, prompts: list[str], count: int, *, key, temperature=1.0, top_k=0, top_p=1.0, end=None
) -> list[str]:
    """`count` tokens of continuation for each prompt, as text; fewer where the token `end` comes before."""
    model, tokenizer = trained.model, trained.tokenizer
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    if min(map(len, encoded)) == 0:
        raise UserError("an empty prompt: give at least one token to go on from, such as --prompt='\\n'")
    program = decoder(model)
    # At least one new token must fit beside the prompt.
    tokens, valid = pad(encoded, program.context and program.context - 1)
    new = generate(
        program, trained.params, tokens, valid, key,
        room=bucket(count), count=count, temperature=temperature, top_k=top_k, top_p=top_p,
        end=-1 if end is None else end,
    )  # fmt: skip

    def behind(prompt, row):
        row = row if end is None else row[: np.flatnonzero(np.append(row, end) == end)[0]]
        # Decoded together: between words stands a space, and a byte pair may be half a character.
        return tokenizer.decode([*prompt, *row])[len(tokenizer.decode(prompt)) :]

    return [behind(prompt, row) for prompt, row in zip(encoded, jax.device_get(new)[:, :count], strict=True)]


def answer(trained: Trained, messages: list[tuple[str, str]], count: int, *, samples: int = 1, **settings) -> list[str]:
    """What a chat model says to messages (role, text): `samples` answers of at most `count` tokens.

    settings: as of `complete`. UserError where the model has no chat template of the ChatML kind.
    """
    prompt = chatml(messages, trained.template)
    return complete(trained, [prompt] * samples, count, end=trained.tokenizer.id(END), **settings)


def embed(trained: Trained, texts: list[str], *, limit: int = 256, batch: int = 32) -> np.ndarray:
    """Unit vectors float32 [N,D] of texts by a BERT such as MiniLM; of a text its first `limit` tokens.

    UserError where the model is no BERT, or its tokenizer has no [CLS] and [SEP].
    """
    model, tokenizer = trained.model, trained.tokenizer
    first, last = (tokenizer.id(word) if tokenizer else None for word in ("[CLS]", "[SEP]"))
    if not isinstance(model, config.BERT) or first is None or last is None:
        raise UserError(f"a {type(model).__name__} gives no vectors of texts: expected a BERT with its tokenizer")
    limit = min(limit, model.context)
    rows = [[first, *ids[: limit - 2], last] for ids in tokenizer.encode_lines(texts)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of like length share a batch
    vectors = np.zeros((len(rows), model.dim), np.float32)
    for start in range(0, len(rows), batch):
        now = order[start : start + batch]
        width = min(bucket(len(rows[now[-1]])), limit)
        tokens, valid = np.zeros((batch, width), np.int32), np.zeros((batch, width), bool)
        for at, i in enumerate(now):
            tokens[at, : len(rows[i])], valid[at, : len(rows[i])] = rows[i], True
        vectors[now] = sentences(trained.params["bert"], model, tokens, valid)[: len(now)]
    return vectors


@functools.partial(jax.jit, static_argnums=1)
def sentences(params, model, tokens, valid):
    return bert.sentence_embedding(params, model, tokens, valid)
