"""The generator of SeqGAN, an LSTM over sequences of one length.

Yu et al. 2017, "SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient":

    G(y_t | Y_{1:t-1}) = softmax(c + V h_t),   h_t = LSTM(y_{t-1}, h_{t-1}),   y_0 the start token, h_0 = 0   (eq. 9-10)

Teacher-forced it has a likelihood (`nll`), left alone it samples (`sample`), and from the state behind each prefix of a
sequence it completes it (`rollout`, the paper's Monte-Carlo search, eq. 4). All are one scan over time.

A row's random draws depend on the key and on the row's number alone, so rows spread over devices draw what they draw on
one.

B rows, T tokens of a sequence, N roll-outs, E width of a token's vector, H cells, V vocabulary.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.losses import blocked_cross_entropy
from lmjax.nn.linear import embedding
from lmjax.nn.recurrent import lstm_layer, lstm_layer_params
from lmjax.nn.xla import one_by_one, row_blocks
from lmjax.param import Param, normal


def generator_params(config) -> dict:
    """A tree of Param for a config.Generator; all start normal, as in the published code, biases too."""
    E, H, V, init = config.embed, config.cells, config.vocab, normal(config.init)
    return {
        "embed": Param((V, E), ("vocab", "embed"), init),
        "lstm": lstm_layer_params(E, H, init, init),
        "softmax": {"w": Param((H, V), ("embed", "vocab"), init), "b": Param((V,), ("vocab",), init)},
    }


def nll(params, config, tokens, weights=None, inputs=None):
    """Negative log-likelihood in nats of tokens int [B,T]: (sum over the tokens, their number).

    weights [B,T]: factors on each token's, summed in place of the number; REINFORCE's rewards stand here. inputs int
    [B,T]: what is read in place of the token before (scheduled sampling).
    """
    inputs = shifted(config, tokens) if inputs is None else inputs
    zero = jnp.zeros((len(tokens), config.cells))
    with jax.named_scope("lstm"):
        y, _ = lstm_layer(params["lstm"], embedding(params["embed"], inputs.T), (zero, zero))
    with jax.named_scope("softmax"):
        return blocked_cross_entropy(
            y.swapaxes(0, 1), params["softmax"]["w"], params["softmax"]["b"], tokens, weights
        )


def shifted(config, tokens):
    """What is read to predict `tokens` [B,T]: the start token and all but the last."""
    return jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=config.start)


def sample(params, config, key, rows, temperature=1.0):
    """Sequences int32 [B,T] drawn token by token from softmax(scores / temperature), as one scan.

    rows: how many, or the rows' numbers int [B], of which with the key each row's draws are a function.
    """
    u = uniforms(key, rows, config.length).T
    softmax = drawer(params, temperature)

    def step(carry, u):
        token, state = carry
        state = _advance(params, token, state)
        token = softmax(state[0], u)
        return (token, state), token

    zero = jnp.zeros((u.shape[1], config.cells))
    first = jnp.full(u.shape[1:], config.start, jnp.int32)
    with jax.named_scope("sample"):
        return jax.lax.scan(step, (first, (zero, zero)), u)[1].T


def rollout(params, config, key, tokens, rows, count: int):
    """Completions of every prefix of `tokens` [B,T]: int32 [T-1,count,B,T], the first axis the prefix's length less 1.

    The state behind each prefix is computed once. To finish a prefix of t tokens takes T - t steps and one of T - t
    takes t: the two share a lane, one after the other, so that all lanes of the one scan work at all T steps.
    """
    (B, T), pairs = tokens.shape, config.length // 2
    if T < 2:
        return jnp.zeros((0, count, B, T), jnp.int32)
    u = uniforms(key, rows, count * pairs * T).reshape(B, count, pairs, T).transpose(3, 2, 1, 0)  # [T,pairs,N,B]
    softmax = drawer(params, 1.0)
    states = _states(params, config, tokens)  # after reading t tokens, at t: (h, c), each [T,B,H]
    short = np.arange(1, pairs + 1)

    def behind(lengths):
        return jax.tree.map(lambda s: _repeat(s[lengths], count), states)

    first, second, change = behind(short), behind(T - short), jnp.asarray(np.repeat(T - short, count * B))

    def step(carry, now):
        token, state = carry
        s, u = now
        on = _advance(params, token, state)
        state = jax.tree.map(
            lambda on, second: jnp.where((s == change)[:, None], second, on), on, second
        )
        state = jax.tree.map(lambda on, first: jnp.where(s == 0, first, on), state, first)
        token = softmax(state[0], u)
        return (token, state), token

    start = (jnp.zeros(pairs * count * B, jnp.int32), first)
    with jax.named_scope("rollout"):
        drawn = jax.lax.scan(step, start, (jnp.arange(T), u.reshape(T, -1)))[1].reshape(T, pairs, count, B)
    lengths, at = np.arange(1, T)[:, None], np.arange(T)[None]
    moment = np.where(lengths <= pairs, np.maximum(at - lengths, 0), at)
    lane = np.broadcast_to(np.where(lengths <= pairs, lengths, T - lengths) - 1, moment.shape)
    completed = drawn[moment, lane].transpose(0, 2, 3, 1)  # [T-1,N,B,T]
    return jnp.where((at >= lengths)[:, None, None], completed, tokens[None, None])


def scheduled_inputs(params, config, key, tokens, rows, probability):
    """What scheduled sampling reads to predict `tokens` [B,T] (Bengio et al. 2015, section 2.4): with `probability`, in
    each place anew, the token that the model itself draws there in place of the true one. No gradient passes."""
    params = jax.lax.stop_gradient(params)
    draws, coins = jnp.split(uniforms(key, rows, 2 * config.length).T, 2)
    softmax = drawer(params, 1.0)

    def step(carry, now):
        token, state = carry
        true, u, coin = now
        state = _advance(params, token, state)
        after = jnp.where(coin < probability, softmax(state[0], u), true)
        return (after, state), token

    zero = jnp.zeros((len(tokens), config.cells))
    first = jnp.full(len(tokens), config.start, tokens.dtype)
    return jax.lax.scan(step, (first, (zero, zero)), (tokens.T, draws, coins))[1].T


def uniforms(key, rows, count: int):
    """Numbers in [0,1) for each of the rows (how many, or their numbers int [B]): [B,count]."""
    rows = jnp.arange(rows) if isinstance(rows, int) else rows
    return jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row), (count,)))(rows)


def _advance(params, token, state):
    """The state (h, c) after one more token [B]."""
    return lstm_layer(params["lstm"], embedding(params["embed"], token)[None], state)[1]


def _states(params, config, tokens):
    """(h, c) after the start token and the first t tokens of each row, at t: each [T,B,H]."""

    def step(state, token):
        state = _advance(params, token, state)
        return state, state

    zero = jnp.zeros((len(tokens), config.cells))
    return jax.lax.scan(step, (zero, zero), shifted(config, tokens).T)[1]


def _repeat(x, count):
    """[pairs,B,H] -> [pairs*count*B,H]: each row `count` times."""
    return jnp.broadcast_to(x[:, None], (len(x), count, *x.shape[1:])).reshape(-1, x.shape[-1])


def drawer(params, temperature):
    """A function (h [R,H], u [R]) -> tokens int32 [R] from softmax((h w + b) / temperature), by inverting its
    cumulative distribution at u: one random number a token, where Gumbel's trick takes V and their logarithms.

    The distribution is summed in groups of about sqrt(V); only the group that u falls into is summed token by token.
    """
    w, b = params["softmax"]["w"], params["softmax"]["b"]
    V = len(b)
    size = int(np.ceil(np.sqrt(V)))
    groups = -(-V // size)
    w = jnp.pad(w / temperature, ((0, 0), (0, groups * size - V))).T
    b = jnp.pad(b / temperature, (0, groups * size - V), constant_values=-jnp.inf)[:, None]

    def draw(w, b, h, u):
        scores = w @ h.T + b  # [V,R]: what is summed lies along the first axis, the processor's lanes along the last
        mass = jnp.exp(scores - scores.max(0, keepdims=True)).reshape(groups, size, len(u))
        until = jnp.cumsum(mass.sum(1), axis=0)
        aim = u * until[-1]
        group = jnp.minimum((until <= aim[None]).sum(0), groups - 1)
        before = jnp.where(group > 0, jnp.take_along_axis(until, jnp.maximum(group - 1, 0)[None], 0)[0], 0.0)
        inside = jnp.take_along_axis(mass, group[None, None], 0)[0]
        place = (jnp.cumsum(inside, axis=0) <= (aim - before)[None]).sum(0)
        return jnp.minimum(group * size + jnp.minimum(place, size - 1), V - 1).astype(jnp.int32)

    @one_by_one
    def blocks(w, b, h, u):
        return row_blocks(lambda part: draw(w, b, *part), (h, u))

    return lambda h, u: blocks(w, b, h, u)
