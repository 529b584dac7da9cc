"""Where a model multiplies with its matrices: enough to know the norm of an example's gradient without making it.

The gradient of a matrix that x [T,D] is multiplied with is x' dy, of an embedding's table rows of dy; its norm follows
from x x' and dy dy' (Goodfellow 2015; Li et al. 2022, section 4), and the clipped sum of all examples from x and dy
(Bu et al. 2023). A model does not know of this: the places are found in the program that JAX traces of it.

R and C rows and columns of a matrix, T places where an example is multiplied with it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

SHAPES = ("convert_element_type", "reshape", "transpose")  # what may lie between a parameter and its product


class Use(NamedTuple):
    """A place of the program where a parameter, or its other shape, is a matrix that is multiplied or looked up.

    leaf: the parameter's number. equation: of the program. chain: the equations that shape it, from the parameter on.
    table: rows are looked up. x: which operand is its input; along: the input's axis that is summed over; axis: the
    matrix's.
    """

    leaf: int
    equation: int
    chain: tuple
    table: bool
    x: int
    along: int
    axis: int


def uses(jaxpr, count: int) -> dict[int, list[Use]]:
    """Of the first `count` inputs of a program, those that are nothing but matrices: {number: their places}."""
    known = {var: (leaf, ()) for leaf, var in enumerate(jaxpr.invars[:count])}
    found, other = {leaf: [] for leaf in range(count)}, set()
    for number, equation in enumerate(jaxpr.eqns):
        mine = [i for i, var in enumerate(equation.invars) if not isinstance(var, core.Literal) and var in known]
        for i in mine:
            leaf, chain = known[equation.invars[i]]
            if equation.primitive.name in SHAPES:
                known[equation.outvars[0]] = leaf, (*chain, equation)
            elif len(mine) == 1 and (use := _use(equation, i)):
                found[leaf].append(Use(leaf, number, chain, *use))
            else:
                other.add(leaf)
    other |= {known[var][0] for var in jaxpr.outvars if not isinstance(var, core.Literal) and var in known}
    return {
        leaf: places for leaf, places in found.items()
        if places and leaf not in other and (len(places) == 1 or all(map(_only_turned, places)))
    }  # fmt: skip


def _only_turned(use: Use) -> bool:
    return all(equation.primitive.name != "reshape" for equation in use.chain)


def _use(equation, i: int):
    """(table, x, along, axis) where operand i of the equation is a matrix in a product or a table; None otherwise."""
    name, params, matrix = equation.primitive.name, equation.params, equation.invars[i].aval
    if matrix.ndim != 2:
        return None
    if name == "gather" and i == 0:
        d, indices = params["dimension_numbers"], equation.invars[1].aval
        whole = params["slice_sizes"] == (1, matrix.shape[1]) and d.offset_dims == (indices.ndim - 1,)
        rows = d.collapsed_slice_dims == d.start_index_map == (0,) and not d.operand_batching_dims
        return (True, 1, 0, 0) if whole and rows else None
    if name == "custom_vjp_call":  # nn.linear.product
        inner = params["call_jaxpr"].jaxpr
        if len(inner.eqns) != 1 or len(inner.invars) != 2 or inner.eqns[0].invars != inner.invars:
            return None
        name, params = inner.eqns[0].primitive.name, inner.eqns[0].params
    if name != "dot_general":
        return None
    summed, batched = params["dimension_numbers"]
    if any(map(len, batched)) or len(summed[0]) != 1:
        return None
    return False, 1 - i, summed[1 - i][0], summed[i][0]


def evaluate(closed, places: list[Use], given: list, taps: list):
    """(outputs, inputs of `places`): the program, with taps[n], zeros, added to what comes out of the n-th place.

    The gradient of a tap is that of what came out.
    """
    values, at, inputs = {}, {use.equation: n for n, use in enumerate(places)}, [None] * len(places)

    def read(var):
        return var.val if isinstance(var, core.Literal) else values[var]

    values.update(zip(closed.jaxpr.constvars, closed.consts))
    values.update(zip(closed.jaxpr.invars, given))
    for number, equation in enumerate(closed.jaxpr.eqns):
        operands = [read(var) for var in equation.invars]
        n = at.get(number)
        if n is None:
            out = _bind(equation, operands)
        else:
            inputs[n] = operands[places[n].x]
            inner = equation.params["call_jaxpr"].jaxpr.eqns[0] if "call_jaxpr" in equation.params else equation
            out = [_bind(inner, operands)[0] + taps[n]]
        values.update(zip(equation.outvars, out))
    return [read(var) for var in closed.jaxpr.outvars], inputs


def _bind(equation, operands) -> list:
    with equation.ctx.manager:
        out = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))
    return out if equation.primitive.multiple_results else [out]


def tap_shapes(closed, places: list[Use]) -> list:
    return [closed.jaxpr.eqns[use.equation].outvars[0].aval for use in places]


def factors(use: Use, x, dy):
    """(u [T,R], v [T,C]) of one example, the sum of whose outer products is the gradient of the matrix; u int [T] where
    it is one of R rows. x: the place's input, dy: the gradient of what came out."""
    if use.table:
        return x.reshape(-1), dy.reshape(-1, dy.shape[-1])
    columns = dy if use.x == 0 else jnp.moveaxis(dy, 0, -1)
    x = jnp.moveaxis(x, use.along, -1)
    x, columns = x.reshape(-1, x.shape[-1]), columns.reshape(-1, columns.shape[-1])
    return (x, columns) if use.axis == 0 else (columns, x)


def squared_norm(places: list[Use], found: list):
    """|gradient|^2 of one example's parameter, of the factors of all its places."""
    if len(places) == 1:
        u, v = found[0]
        direct = u.ndim == 2 and u.shape[0] * (u.shape[1] + v.shape[1]) > u.shape[1] * v.shape[1]
        if direct:  # so many places that the gradient itself is the smaller
            return (_float(jnp.einsum("tr,tc->rc", u, v)) ** 2).sum()
    turned = [pair[::-1] if _turns(use) else pair for use, pair in zip(places, found)]
    return sum((_products(a[0], b[0]) * _products(a[1], b[1])).sum() for a in turned for b in turned)


def _turns(use: Use) -> bool:
    """Whether the matrix is the parameter's transpose."""
    return sum(equation.primitive.name == "transpose" for equation in use.chain) % 2 == 1


def _products(a, b):
    """Every row of a with every row of b [S,T], where a row may be the number of the one that is not 0."""
    if a.ndim == b.ndim == 1:
        return (a[:, None] == b[None]).astype(jnp.float32)
    if a.ndim == 1:
        return _float(b[:, a].T)
    return _float(a[:, b]) if b.ndim == 1 else jnp.einsum("sr,tr->st", a, b, preferred_element_type=jnp.float32)


def _float(x):
    return x.astype(jnp.float32)


def weighted_sum(use: Use, u, v, share, parameter):
    """The parameter's gradient, summed over examples of the factors u [B,T,R] or int [B,T] and v [B,T,C] with weights
    `share` [B]."""
    v = v * share[:, None, None].astype(v.dtype)
    matrix = parameter
    for equation in use.chain:
        matrix = jax.eval_shape(lambda x, e=equation: _bind(e, [x])[0], matrix)
    if use.table:
        summed = jnp.zeros(matrix.shape, jnp.float32).at[u.reshape(-1)].add(_float(v.reshape(-1, v.shape[-1])))
    else:
        summed = lax.dot_general(u, v, (((0, 1), (0, 1)), ((), ())), preferred_element_type=jnp.float32)
    if not use.chain:
        return summed.astype(parameter.dtype)

    def shape(x):
        for equation in use.chain:
            x = _bind(equation, [x])[0]
        return x

    return jax.linear_transpose(shape, parameter)(summed.astype(matrix.dtype))[0]
