"""The pre-flight line: FLOPs counted by hand, memory, and the warning."""

import jax
import jax.numpy as jnp
import pytest

from lmjax.run import preflight


def products(x, ws):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, ws)[0].sum()


X, WS = jnp.ones((8, 16)), jnp.ones((5, 16, 16))


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (lambda x: x @ x.T, (X,), 2 * 8 * 8 * 16),
        (lambda x: jnp.einsum("bsd,btd->bst", x, x), (jnp.ones((3, 4, 5)),), 2 * 3 * 4 * 4 * 5),
        (products, (X, WS), 5 * 2 * 8 * 16 * 16),
        (jax.jit(jax.grad(products, 1)), (X, WS), 3 * 5 * 2 * 8 * 16 * 16),
        (lambda x: jax.lax.cond(x.sum() > 0, lambda y: y @ y.T, lambda y: y @ y.T @ y @ y.T, x), (X,),
         2 * 8 * 8 * 16 + 2 * 8 * 8 * 16 + 2 * 8 * 16 * 8),
        (jax.grad(lambda x: jax.checkpoint(lambda y: jnp.sin(y @ y))(x).sum()), (jnp.ones((4, 4)),), 4 * 2 * 4**3),
        (lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME"),
         (jnp.ones((2, 3, 8, 8)), jnp.ones((5, 3, 3, 3))), 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)),
        (lambda x: x + x, (X,), 0),
    ],
)  # fmt: skip
def test_flops_of_products(function, args, expected):
    assert preflight.flops(function, *args) == expected


def test_flops_over_all_devices():
    n = jax.device_count()
    step = jax.pmap(lambda x: jax.lax.psum(x @ x.T, "data"), axis_name="data")
    assert preflight.flops(step, jnp.ones((n, 8, 16))) == n * 2 * 8 * 8 * 16


def test_the_line_says_what_is_to_come(monkeypatch):
    compiled = jax.jit(jax.grad(products, 1)).lower(X, WS).compile()
    need = preflight.memory(compiled)
    assert need >= X.nbytes + 2 * WS.nbytes
    line = preflight.preflight(compiled, 4_641_234, jax.devices(), "pmap", 1.26, 61440)
    assert line.startswith("4,641,234 parameters, 61.4 kFLOP a step, ")
    assert line.endswith(f"pmap on 8 x {jax.devices()[0].device_kind}, compiled in 1.3 s")
    monkeypatch.setattr(preflight, "device_memory", lambda devices: need - 1)
    line, warning = preflight.preflight(compiled, 1, jax.devices(), "pmap", 1.0).splitlines()
    assert warning.startswith("warning: a step needs ")
    assert "smaller batch" in warning
    # Sixteen trainings side by side, of which fifteen wait: what fits at a time is proposed.
    monkeypatch.setattr(preflight, "device_memory", lambda devices: (need + 15 * need) // 4 + 1)
    line, warning = preflight.preflight(
        compiled, 1, jax.devices(), "local", 1.0, lanes=16, beside=15 * need
    ).splitlines()
    assert line.startswith("16 lanes of 1 parameters")
    assert "train the 16 lanes in 4 starts of 4, " in warning


def test_simulated_devices_share_the_machine():
    all_of_it = preflight.device_memory(jax.devices()[:1])
    assert all_of_it > 1e8
    assert preflight.device_memory(jax.devices()) == all_of_it // jax.device_count()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1.5e6, "1.5 MB"), (25.3e9, "25.3 GB"), (1e18, "1e+03 PB")],
)
def test_units(number, expected):
    assert preflight._unit(number, "B") == expected
