"""launch/plan.py: what it says of a few simulated devices is what XLA compiles for them; it counts what is there."""

import json
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from xla_flags import QUICK

from lmjax import config, param
from lmjax.errors import UserError
from lmjax.models import bert, gpt, lstm_lm
from lmjax.run import flags
from lmjax.run.learner import Twin
from lmjax.run.options import Run, Training
from lmjax.run.plans import collectives, pages, planning
from lmjax.run.plans.chips import CHIPS, Chip
from lmjax.run.plans.collectives import Collective
from lmjax.run.training import Planned, fit, session
from lmjax.train import optim, parallel
from lmjax.train.state import new_state
from lmjax.train.step import Recipe, make_step

ROOT = Path(__file__).resolve().parents[2]
B, T, V = 32, 32, 512


def compiled_text(f, *args, devices=4, in_axes=0):
    return jax.pmap(f, "i", devices=jax.devices()[:devices], in_axes=in_axes).lower(*args).compile().as_text()


X = jnp.zeros((4, 6, 8))  # on each of 4 devices [6,8] float32: 192 bytes


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: jax.lax.psum(x, "i"), ("all-reduce", 1, 192)),
        (lambda x: jax.lax.all_gather(x, "i"), ("all-gather", 1, 768)),
        (lambda x: jax.lax.all_to_all(x.reshape(4, 12), "i", 0, 0), ("all-to-all", 1, 192)),
        (lambda x: jax.lax.ppermute(x, "i", [(0, 1), (1, 2), (2, 3), (3, 0)]), ("collective-permute", 1, 192)),
        (lambda x: jax.lax.scan(lambda c, _: (jax.lax.psum(jnp.sin(c), "i"), None), x, None, 5)[0],
         ("all-reduce", 5, 960)),
    ],
    ids=["psum", "all_gather", "all_to_all", "ppermute", "psum in a scan"],
)  # fmt: skip
def test_what_a_program_says_is_what_its_step_asks_for(f, expected):
    (found,) = collectives.of_program(compiled_text(f, X), 4)
    assert (found.kind, found.count, found.payload, found.group) == (*expected, 4)
    jaxpr = jax.make_jaxpr(jax.pmap(f, "i", devices=jax.devices()[:4]))(X).jaxpr
    said = [one for eqn, times in planning._equations(jaxpr) for one in collectives.asked(eqn, 4) for _ in range(times)]
    assert {one.kind for one in said} == {expected[0]}
    assert (len(said), sum(one.payload for one in said)) == expected[1:]


def test_scans_within_scans_and_a_conditional():
    def inner(c, _):
        return jax.lax.cond(c.sum() > 0, lambda c: jax.lax.psum(c, "i"), lambda c: c + 1, jnp.sin(c)), None

    def f(x):
        return jax.lax.scan(lambda c, _: (jax.lax.scan(inner, c, None, 3)[0], None), x, None, 2)[0]

    (found,) = collectives.of_program(compiled_text(f, X), 4)
    assert (found.kind, found.count, found.payload) == ("all-reduce", 6, 6 * 192)


def test_a_mesh_says_along_which_axis():
    grid = parallel.mesh({"data": 4, "model": 2}, {}).rows(np.zeros((8, 8))).sharding.mesh
    x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(grid, P("data", "model")))

    def summed(axis):
        return jax.jit(lambda x: x.sum(axis), out_shardings=NamedSharding(grid, P(*("data", "model")[1 - axis :][:1])))

    for axis, expected in ((0, ("data", 32)), (1, ("model", 8))):  # [16] over model: 8 floats each; [8] over data: 2
        ((kind, scope), (count, payload)), *more = planning.talk(
            summed(axis).lower(x).compile().as_text(), 8, model=2
        ).items()
        assert (kind, scope, count, payload, more) == ("all-reduce", expected[0], 1, expected[1], [])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("replica_groups={{0,2,4,6},{1,3,5,7}}, use", (4, 2)),
        ("replica_groups=[4,2]<=[8], use", (2, 1)),
        ("replica_groups=[2,4]<=[4,2]T(1,0), use", (4, 2)),
        ("replica_groups=[4,2]<=[2,2,2]T(2,1,0), use", (2, 4)),
        ("replica_groups=mesh['axis_0'=1,'axis_1'=4,'axis_2'=2] {'axis_1'}, use", (4, 2)),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, use", (2, 1)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4], device_ids=([4,2]T(1,0)) {'axis_1'}, use", (4, 2)),
        ("replica_groups={}, use", (8, 1)),
        ("source_target_pairs={{0,0},{1,3},{3,1}}, use", (8, 2)),
    ],
)
def test_groups_are_read_in_every_form(words, expected):
    assert collectives._group(words, 8) == expected


def test_started_and_finished_collectives_count_once():
    text = """
ENTRY %main (a: bf16[8]) -> bf16[32] {
  %a = bf16[8]{0} parameter(0)
  %s = (bf16[8]{0}, bf16[32]{0}) all-gather-start(%a), replica_groups={{0,1,2,3}}, dimensions={0}
  %g = bf16[32]{0} all-gather-done(%s)
  %r = f32[2]{0} reduce-scatter(%x), replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %t = (f8e4m3fn[3]{0}, pred[5]{0}) all-reduce(%p, %q), replica_groups=[1,4]<=[4], to_apply=%add
}"""
    found = collectives.of_program(text, 4)
    assert found == [Collective("all-gather", 1, 64, 4), Collective("reduce-scatter", 1, 32, 4),
                     Collective("all-reduce", 1, 8, 4)]  # fmt: skip


def tokens():
    return np.zeros((B, T), np.int32), np.ones((B, T), np.float32)


def gpt_family():
    c, (ids, weights) = config.GPT(vocab=V, context=T, layers=1, heads=4, dim=64), tokens()
    loss = lambda p, b, k, s: gpt.gpt_loss(p, c, b, k, s)  # noqa: E731
    return gpt.gpt_params(c), loss, (), {"tokens": ids, "targets": ids, "weights": weights}


def lstm_family():
    c, (ids, weights) = config.LSTM(vocab=V, dim=64, layers=1), tokens()
    loss = lambda p, b, k, s: lstm_lm.lstm_loss(p, c, b, k, s)  # noqa: E731
    batch = {"tokens": ids, "targets": ids, "weights": weights, "start": np.zeros(B, bool)}
    return lstm_lm.lstm_params(c), loss, lstm_lm.lstm_carry(c, B), batch


def bert_family():
    c, (ids, weights) = config.BERT(vocab=V, context=T, layers=1, heads=4, dim=64, dropout=0.0), tokens()
    loss = lambda p, b, k, s: bert.bert_pretrain_loss(p, c, b, k, s)  # noqa: E731
    batch = {"tokens": ids, "valid": weights > 0, "segments": ids, "places": ids[:, :3], "targets": ids[:, :3],
             "weights": weights[:, :3], "next": ids[:, 0], "next_weights": weights[:, 0]}  # fmt: skip
    return bert.pretrain_params(c), loss, (), batch


def twin_of(family):
    specs, loss, carry, batch = family()
    tx, key = optim.adamw(1e-3), jax.random.key(0)
    state = jax.eval_shape(lambda: new_state(param.init(specs, key), tx, carry))
    return Twin(specs, state, make_step(loss, tx, clip=1.0), batch, key, 1, 100, B * T, compiled=None)


def said(talk):
    return sum(payload for _, payload in talk.values())


@pytest.mark.parametrize(
    ("family", "split"),
    [(gpt_family, True), (lstm_family, False), (bert_family, True)],
)
def test_memory_and_collectives_are_within_five_percent_of_what_xla_compiles(family, split, monkeypatch):
    """For 8 devices, from the programs of 2 (pmap), or of 2 and 4 (mesh, told to compile for no more)."""
    monkeypatch.setattr(planning, "MOST", 4)
    if "fusion_emitters" in QUICK:  # a program's scratch is what users get
        ordinary, options = jax.stages.Lowered.compile, {"xla_cpu_use_fusion_emitters": True}
        monkeypatch.setattr(jax.stages.Lowered, "compile", lambda lowered: ordinary(lowered, options))
    twin = twin_of(family)
    plan = planning.plan(twin, (8,), split=split)
    (one,) = plan.estimates
    true = planning.compiled(twin, one, split, grow=False)
    assert not one.compiled
    assert one.memory == pytest.approx(one.state + true.scratch, rel=0.05)
    assert said(one.talk) == pytest.approx(said(true.talk), rel=0.05)
    if not split:  # what every device adds up: a gradient, with the loss, its weight and its metrics
        assert said(one.talk) == pytest.approx(4 * plan.parameters, rel=0.001)
        assert one.talk.keys() == true.talk.keys()


# What does not need a model: a twin of one matrix.


def matrix_twin(rows=8, accumulate=1, dims=(32, 16)):
    """w [32,16], its axes ("embed", "mlp"), plain gradient descent, batches x [rows,32]."""
    specs = {"w": param.Param(dims, ("embed", "mlp"), param.zeros)}

    def loss(params, batch, key, carry):
        return jnp.square(batch["x"] @ params["w"]).sum(), (jnp.float32(len(batch["x"])), {}, carry)

    tx, key, batch = optim.sgd(0.1), jax.random.key(0), {"x": np.zeros((rows, dims[0]), np.float32)}
    state = jax.eval_shape(lambda: new_state(param.init(specs, key), tx))
    step, strategy = make_step(loss, tx, accumulate=accumulate), parallel.local()
    compiled = strategy.compile(step).lower(state, batch, key).compile()
    return Twin(specs, state, step, batch, key, accumulate, 100, rows, compiled)


def test_what_the_state_takes_is_what_xla_lays_down():
    twin = matrix_twin()
    for n, model in ((8, 1), (8, 2), (4, 4)):
        strategy = parallel.mesh({"data": n // model, "model": model}, param.axes(twin.specs))
        batch = strategy.batch(twin.batch)
        compiled = strategy.compile(twin.step).lower(strategy.plan(twin.state), batch, twin.key).compile()
        mine, whole = planning.Mesh(twin, {}, model, False).state(n, planning.Fraction(model, n))
        xlas = compiled.memory_analysis().argument_size_in_bytes
        assert (abs(mine - xlas) <= 16, whole) == (True, 0)  # the step's key is not in it


def test_parameters_that_stop_dividing_are_named():
    one, two = planning.plan(matrix_twin(128), (8, 64), split=True).estimates
    assert (one.whole, two.whole) == (0, 1)
    assert two.state > one.state - 128 * 32 * 4 / 8


def test_flops_and_traffic_are_a_devices():
    one, two, eight = planning.plan(matrix_twin(), (1, 2, 8)).estimates
    products = 2 * 32 * 16 * 2  # a row's, forwards and for w's gradient
    assert [e.work.flops["float32"] for e in (one, two, eight)] == [8 * products, 4 * products, products]
    assert eight.rows == one.rows == 8
    grown = planning.plan(matrix_twin(), (1, 512), grow=True).estimates[1]
    assert (grown.rows, grown.work.flops["float32"]) == (4096, 8 * products)


def test_what_two_devices_say_is_said_by_eight():
    gathered, summed = ("all-gather", "data"), ("all-reduce", "data")
    asked = {gathered: (2, 100.0), summed: (3, 10.0)}
    assert planning.said_by(asked, {summed: (1, 9.0)}, 8) == {gathered: (2, 400.0), summed: (1, 10.0)}


@pytest.mark.parametrize("along", [(2, 4), (2, 4, 8)])
def test_beyond_what_was_compiled(along):
    """Numbers that are 5 + 3 / d (+ 2 d where the batch grows) stay so."""
    kind, mesh = ("all-gather", "data"), object.__new__(planning.Mesh)

    def of(d):
        return 5 + 3 / d + (2 * d if len(along) == 3 else 0)

    mesh.known = {d: planning.Measured(of(d), {kind: (7.0, 10 * of(d))}) for d in along}
    far = mesh.beyond(512)
    assert far.scratch == pytest.approx(of(512))
    assert far.talk[kind] == pytest.approx((7, 10 * of(512)))


def test_what_does_not_divide_says_so():
    plan = planning.plan(matrix_twin(12, accumulate=2), (2, 4, 5, 8))
    two, *others = plan.estimates
    assert two.devices == 2
    assert others == [
        (4, "3 rows a device are no multiple of accumulate=2"), (5, "12 rows do not divide over 5 devices"),
        (8, "12 rows do not divide over 8 devices"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="3 devices are no multiple of 2 along the model axis"):
        planning.plan(matrix_twin(12), (3,), split=True, model=2)


CHIP = Chip(bf16=2e12, f32=1e12, memory=1e9, bandwidth=1e11, link=1e10, island=4, network=1e9, source="")


def estimate(devices=16, model=1, flops=1e12, talk=()):
    work = planning.Work({"float32": flops}, 0.0)
    return planning.Estimate(devices, model, 1, 0.0, 0.0, work, dict(talk), 0, True)


def test_a_step_is_products_and_links():
    time = planning.timed(estimate(), CHIP, 0.5, 1.0, 0.0)
    assert (time.step, time.bound, time.utilisation) == (2.0, "products", 0.5)
    # 4 GB summed over 4 islands of 4: 2 x 3/4 of them by link, then a quarter of them 2 x 3/4 by network.
    sums = {("all-reduce", "data"): (1, 4e9)}
    time = planning.timed(estimate(talk=sums), CHIP, 1.0, 1.0, 0.0)
    assert time.links == pytest.approx(6e9 / 1e10 + 1.5e9 / 1e9)
    assert (time.step, time.bound) == (pytest.approx(1 + time.links), "links")
    hidden = planning.timed(estimate(talk=sums), CHIP, 1.0, 1.0, 1.0)
    assert hidden.step == pytest.approx(time.links)  # a second of it hides behind the products
    half = planning.timed(estimate()._replace(work=planning.Work({"bfloat16": 1e12}, 0.0)), CHIP, 0.5, 1.0, 0.0)
    assert half.step == 1.0


@pytest.mark.parametrize(
    ("kind", "scope", "expected"),
    [
        ("all-reduce", "model", (8.0, 0.0)),  # the 2 of a model axis lie in one island: 2 x 1/2
        ("all-gather", "data", (4.0, 3.0)),  # of 8 along data 2 lie in an island: 1/2, then of a half 3/4
        ("all-to-all", "data", (1.0, 6.0)),  # a part for each of 8: one of them near
        ("reduce-scatter", "all", (6.0, 1.5)),  # 3/4 within, of a quarter 3/4 without
        ("collective-permute", "model", (8.0, 0.0)),
        ("collective-permute", "all", (0.0, 8.0)),
    ],
)
def test_what_stays_in_an_island(kind, scope, expected):
    assert planning.across(kind, 8.0, scope, estimate(16, 2), island=4) == pytest.approx(expected)


# The command.


def test_a_dry_run_hands_over_its_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    specs = {"w": param.Param((4, 4), ("embed", None), param.zeros)}
    loss = lambda p, b, k, c: (jnp.square(b["x"] @ p["w"]).sum(), (jnp.float32(8), {}, c))  # noqa: E731
    config = Training(workdir="run", dry_run=True, strategy="local")
    with session("twin", config) as run, pytest.raises(Planned) as ended:
        fit(run, specs=specs, recipe=lambda config: Recipe(optim.sgd(0.1), loss, accumulate=2), steps=10,
            evaluate_every=5, tokens_per_step=8, evaluate=lambda params: {},
            batches=lambda seed: lambda step: {"x": np.ones((8, 4), np.float32)})  # fmt: skip
    twin = ended.value.twin
    assert (ended.value.code, twin.accumulate, twin.steps, twin.tokens) == (0, 2, 10, 8)
    assert [one.devices for one in planning.plan(twin, (1, 2, 4)).estimates] == [1, 2, 4]


def command():
    return runpy.run_path(str(ROOT / "launch" / "plan.py"), run_name="launch_plan")


def test_page_json_and_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pages, "trains", lambda script: type("Module", (), {"Config": Run}))
    monkeypatch.setattr(pages, "twin_of", lambda *_: matrix_twin())
    monkeypatch.setenv("XLA_FLAGS", "")
    Config = command()["Config"]
    for rest in ([], ["--strategy=mesh"]):
        settings = Config(devices=(1, 2, 3, 8), exact=8, json=str(tmp_path / "plan.json"))
        pages.run(settings, "x.py", rest)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"512 parameters, batches of 8 rows, {'mesh' if rest else 'pmap'}; h100: 80 GB"
        assert [line.split()[0] for line in lines[2:6]] == ["1", "2", "3", "8"]
        assert lines[4].strip() == "3 8 rows do not divide over 3 devices"
        # On a mesh 8 devices are compiled for in any case.
        assert ("8 estimated against compiled: memory " in lines[-1]) == (not rest)
        record = json.loads((tmp_path / "plan.json").read_text())
        row = record["devices"][-1]
        assert row["memory_bytes"] == row["state_bytes"] + row["scratch_bytes"]
        assert rest or abs(row["missed"]["memory"]) < 0.05
    pytest.importorskip("matplotlib", reason="the plot extra")
    pages.draw(record, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "no experiment is given"),
        ("experiments/nope.py", "there is no script experiments/nope.py"),
        ("experiments/generate.py", "has no --dry_run"),
        ("experiments/gpt_char.py --chip=h10", "did you mean h100?"),
        ("experiments/gpt_char.py --devices=8192", "expected at most 4096"),
        ("experiments/gpt_char.py --devices=1,0", "at least 1"),
        ("experiments/gpt_char.py -- --presett=gpt2", "unknown flag --presett"),
        ("experiments/gpt_char.py --devices=2 -- --strategy=local", "--strategy=local has one device"),
        ("experiments/gpt_char.py -- --seeds=3", "a plan is of one training"),
    ],
)
def test_one_line_for_what_a_user_gets_wrong(words, says, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(sys, "argv", ["plan.py", *words.split()])
    module = command()
    monkeypatch.setitem(sys.modules, "launch_plan", type(sys)("launch_plan", ""))
    with pytest.raises(SystemExit) as ended:
        flags.run(module["main"], module["Config"], starts=True)
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert says in err
    assert err.count("\n") == 1


def test_devices_of_a_mesh():
    Config, theirs = command()["Config"], Run(strategy="mesh", mesh=(4, 2))
    assert pages.asked(Config(), theirs) == (True, 2, [8])
    assert pages.asked(Config(devices=(16, 2)), theirs) == (True, 2, [2, 16])
    assert pages.asked(Config(), Run()) == (False, 1, [1, 2, 4, 8])


def test_every_chip_has_a_source_and_numbers_that_can_be():
    for chip in CHIPS.values():
        assert chip.source
        assert chip.bf16 >= chip.f32 > 0
        assert chip.bandwidth >= chip.link >= chip.network > 0
