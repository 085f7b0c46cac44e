"""Token mixing: each operator is declared, has a forward pass in each framework, and computes what its paper says.

One model has a block of each operator. What goes into an operator and what comes out is read from its activations, and
set against a form in NumPy that was written from the paper.
"""

import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import erf, softmax

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset, Program
from backends.models import folds, mixing
from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec
from backends.models.tables import cosines, sines
from backends.plan import StepPlan
from backends.specs import OptimizerSpec, RunSpec
from backends.state import state_shapes
from tests.conftest import Ended, base, records, write_yaml

WITHOUT_MLP = ("pooling", "identity")
C, SIDE, HEADS, GROUPS, B = 8, 4, 2, 2, 3
S = SIDE * SIDE
EACH = MixerSpec(
    8, 1, 3, 2, C, len(TOKEN_MIXING), 5, 12, token_mixing=TOKEN_MIXING, num_heads=HEADS, token_groups=GROUPS
)
# Values of order 1 in float64: the order of sums differs, and torch's fused attention. Seen: 3e-15.
TOLERANCE = 1e-12
PLAN = StepPlan(0, np.full(1, 0.1), np.ones((1, 2)), np.arange(B, dtype=np.int32)[None])


def opened(backend: str, spec: MixerSpec, optimizer: OptimizerSpec, **run: Any) -> tuple[Program, State]:
    """A program in float64 and the random state that it holds, of which no part is zero or one."""
    rng = np.random.default_rng(0)
    shape = (B, spec.image_size, spec.image_size, spec.image_channels)
    dataset = ArrayDataset(rng.integers(0, 256, shape).astype(np.uint8), np.arange(B, dtype=np.int32) % 3)
    program = backends.load(backend).open(spec, optimizer, dataset, RunSpec(precision="float64", **run))
    state = {name: rng.normal(0, 0.5, shape) for name, shape in state_shapes(spec, optimizer).items()}
    state |= {name: x**2 for name, x in state.items() if name.startswith("second_moment/")}
    program.load([state])
    return program, state


@pytest.fixture(scope="module", params=backends.names())
def passed(request: pytest.FixtureRequest) -> tuple[State, State]:
    """The activations of a forward pass through each operator, and the parameters."""
    program, state = opened(request.param, EACH, OptimizerSpec("sgd"))
    return program.activations([PLAN])[0], {name.removeprefix("params/"): x for name, x in state.items()}


# What stands where


@pytest.mark.parametrize("backend", backends.names())
def test_each_value_of_the_field_is_declared_and_has_a_forward_pass(backend: str) -> None:
    own = import_module(f"backends.{backend}.models.mixing").OPERATORS
    assert set(TOKEN_MIXING) == set(mixing.OPERATORS) == set(own) == set(FORMS)
    for name, function in (*mixing.OPERATORS.items(), *own.items()):
        assert function.__name__ == name
        assert function.__module__ in (mixing.__name__, f"backends.{backend}.models.mixing")  # none of their helpers


def test_an_operator_without_an_mlp_costs_nothing_of_one() -> None:
    tied, pooling, identity = (
        MixerSpec(8, 1, 10, 2, 8, 2, 4, 32, token_mixing=name) for name in ("tied", *WITHOUT_MLP)
    )
    mlp = 2 * (16 * 4 + 4 + 4 * 16 + 16)  # blocks x (kernels and biases)
    assert folds.count(tied) - folds.count(pooling) == mlp
    assert folds.count(pooling) == folds.count(identity)
    assert folds.forward_macs(tied) - folds.forward_macs(pooling) == 2 * 2 * 16 * 4 * 8
    assert len(folds.branches(identity)) == len(folds.branches(tied)) == 4
    assert len(folds.dropout_sites(identity)) == 4 and len(folds.dropout_sites(tied)) == 8


def test_a_model_without_a_token_mixing_kernel_trains_to_its_end_and_is_shown(run: Any, tmp_path: Path) -> None:
    grid = {"model.token_mixing": list(WITHOUT_MLP), "backend": backends.names(), "seed": 0}
    write_yaml(tmp_path / "a.yaml", base=base(), grid=grid)
    ended: Ended = run("run", "a.yaml")
    assert ended.code == 0, ended.err
    by_id = records(tmp_path / "runs")
    assert [record["status"] for record in by_id.values()] == ["done"] * 2 * len(backends.names())
    shown: Ended = run("show", next(iter(by_id)))
    assert shown.code == 0 and "MixerBlock_0/LayerNorm_0" in shown.out and "token_mixing/Dense_0" not in shown.out
    assert run("report", "a").code == 0


def test_layers_are_noted_in_the_order_in_which_they_are_declared() -> None:
    """In PyTorch: JAX gives them by name."""
    program, _ = opened("torch", EACH, OptimizerSpec("sgd"))
    assert list(program.activations([PLAN])[0]) == folds.operations(EACH, stochastic_depth=False)


# What each computes: forms (x_bsc, weights of the operator by name, x again where it is a whole block) -> y_bsc


def dense(w: State, name: str, x: Array) -> Array:
    return np.asarray(x @ w[f"{name}/kernel"] + w[f"{name}/bias"])


def gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def token_mlp(w: State, x_brc: Array) -> Array:
    """W2 gelu(W1 x) on each column.  Source: arXiv 2105.01601, eq. 1."""
    hidden = gelu_tanh(dense(w, "Dense_0", x_brc.swapaxes(1, 2)))
    return dense(w, "Dense_1", hidden).swapaxes(1, 2)


def tied(x: Array, w: State) -> Array:
    return token_mlp(w, x)


def untied(x: Array, w: State) -> Array:
    each = [token_mlp({name: array[c] for name, array in w.items()}, x[:, :, [c]]) for c in range(C)]
    return np.concatenate(each, 2)


def grouped(x: Array, w: State) -> Array:
    """Row s G + g of column j is channel j G + g of token s."""
    rows = np.stack([x[:, s, np.arange(0, C, GROUPS) + g] for s in range(S) for g in range(GROUPS)], 1)
    mixed, out = token_mlp(w, rows), np.empty_like(x)
    for s in range(S):
        for g in range(GROUPS):
            out[:, s, np.arange(0, C, GROUPS) + g] = mixed[:, s * GROUPS + g]
    return out


def grouped_views(x: Array, w: State) -> Array:
    return grouped(x @ w["views/kernel"], w)


def attention(x: Array, w: State) -> Array:
    """softmax(q k / sqrt(D)) v, head by head.  Source: arXiv 2010.11929, eq. 5 to 8."""
    q, k, v = (dense(w, part, x) for part in ("query", "key", "value"))
    heads, width = np.empty_like(x), C // HEADS
    for h in range(HEADS):
        own = slice(h * width, (h + 1) * width)
        for b in range(B):
            scores = q[b, :, own] @ k[b, :, own].T / math.sqrt(width)
            heads[b, :, own] = softmax(scores, axis=1) @ v[b, :, own]
    return dense(w, "out", heads)


def gating(x: Array, w: State) -> Array:
    """U (s(Z1) = Z1 * (W Z2 + b)) V, with Z2 normed, epsilon 1e-5.  Source: arXiv 2105.08050, eq. 1 to 4."""
    z = gelu_tanh(dense(w, "Dense_0", x))
    z1, z2 = z[..., :6], z[..., 6:]
    centred = z2 - z2.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    normed = normed * w["gate_norm/scale"] + w["gate_norm/bias"]
    gate = np.einsum("bsc,st->btc", normed, w["gate/kernel"]) + w["gate/bias"][:, None]
    return dense(w, "Dense_1", z1 * gate)


def linear(x: Array, w: State) -> Array:
    return dense(w, "Dense_0", x.swapaxes(1, 2)).swapaxes(1, 2)


def pooling(x: Array, w: State) -> Array:
    grid, out = x.reshape(B, SIDE, SIDE, C), np.empty((B, SIDE, SIDE, C))
    for i in range(SIDE):
        for j in range(SIDE):
            out[:, i, j] = grid[:, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean((1, 2)) - grid[:, i, j]
    return out.reshape(x.shape)


def identity(x: Array, w: State) -> Array:
    return x


def fourier(x: Array, w: State) -> Array:
    """The library's transform; ours is a product with two matrices.  Source: arXiv 2105.03824, eq. 3."""
    return np.asarray(np.fft.fft2(x, axes=(1, 2)).real)


def random(x: Array, w: State) -> Array:
    return np.einsum("ts,bsc->btc", w["random/matrix"], x)


def depthwise(x: Array, w: State) -> Array:
    """The sum of the shifted image times the kernel's number, zeros outside.  Source: arXiv 2201.09792, section 2."""
    room = np.pad(x.reshape(B, SIDE, SIDE, C), [(0, 0), (1, 1), (1, 1), (0, 0)])
    kernel = w["depthwise/kernel"]
    out = sum(kernel[i, j, 0] * room[:, i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3))
    return np.asarray(out + w["depthwise/bias"]).reshape(x.shape)


def shift(x: Array, w: State) -> Array:
    """Source: arXiv 2106.07477, algorithm 1, with its groups' directions down, up, right and left."""
    grid, part = x.reshape(B, SIDE, SIDE, C), C // 4
    out = grid.copy()
    out[:, 1:, :, :part] = grid[:, :-1, :, :part]
    out[:, :-1, :, part : 2 * part] = grid[:, 1:, :, part : 2 * part]
    out[:, :, 1:, 2 * part : 3 * part] = grid[:, :, :-1, 2 * part : 3 * part]
    out[:, :, :-1, 3 * part :] = grid[:, :, 1:, 3 * part :]
    return out.reshape(x.shape)


FORMS: dict[str, Callable[[Array, State], Array]] = {
    form.__name__: form
    for form in (
        *(tied, untied, grouped, grouped_views, attention, gating, linear),
        *(pooling, identity, fourier, random, depthwise, shift),
    )
}


@pytest.mark.parametrize("operator", TOKEN_MIXING)
def test_an_operator_computes_what_its_paper_says(operator: str, passed: tuple[State, State]) -> None:
    taps, params = passed
    i = TOKEN_MIXING.index(operator)
    before = f"MixerBlock_{i - 1}/channel_mixing" if i else "stem"
    if before not in taps:  # a whole block has no channel mixing
        before = f"MixerBlock_{i - 1}/token_mixing"
    prefix = f"MixerBlock_{i}/token_mixing/"
    weights = {name.removeprefix(prefix): x for name, x in params.items() if name.startswith(prefix)}
    expected = FORMS[operator](taps[f"MixerBlock_{i}/LayerNorm_0"], weights)
    found = taps[f"MixerBlock_{i}/token_mixing"] - taps[before]
    scale = max(np.abs(expected).max(), np.abs(taps[before]).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * scale)


@pytest.mark.parametrize("precision", ["bfloat16", "float32", "float64"])
def test_pooling_stays_in_the_precision_of_its_tokens(precision: str) -> None:
    import jax.numpy as jnp
    import torch

    from backends.jax.models.mixing import neighbours as in_jax
    from backends.torch.models.mixing import neighbours as in_torch

    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    jax_x, torch_x = jnp.asarray(x, precision), torch.from_numpy(x).to(getattr(torch, precision))
    ours, theirs = in_jax(jax_x), in_torch(torch_x)
    assert ours.dtype == jax_x.dtype and theirs.dtype == torch_x.dtype
    tolerance = {"bfloat16": 0.03, "float32": 1e-6, "float64": 1e-14}[precision]  # some roundings of numbers below 4
    np.testing.assert_allclose(np.asarray(ours, float), theirs.double().numpy(), rtol=0, atol=tolerance)


def test_the_tables_of_fourier_are_the_transform_also_for_many_tokens() -> None:
    for size in (1, 2, 7, 196):
        transform = np.fft.fft(np.eye(size))
        np.testing.assert_allclose(cosines(size), transform.real, rtol=0, atol=1e-13)
        np.testing.assert_allclose(sines(size), -transform.imag, rtol=0, atol=1e-13)


def test_the_gate_of_gmlp_begins_as_one_and_its_activation_may_be_exact() -> None:
    spec = MixerSpec(8, 1, 3, 2, C, 1, 5, 12, token_mixing="gating", activation="gelu")
    params = folds.params(spec)
    kernel = params["MixerBlock_0/token_mixing/gate/kernel"].init.draw("", (S, S), lambda _, s: np.full(s, 0.9))
    assert 0 < np.abs(kernel).max() < 1e-5
    bias = params["MixerBlock_0/token_mixing/gate/bias"].init.draw("", (S,), lambda _, s: np.zeros(s))
    np.testing.assert_array_equal(bias, 1)
    program, _ = opened("torch", spec, OptimizerSpec("sgd"))
    taps = program.activations([PLAN])[0]
    x, y = (taps[f"MixerBlock_0/token_mixing/{name}"] for name in ("Dense_0", "activation"))
    np.testing.assert_allclose(y, 0.5 * x * (1 + erf(x / math.sqrt(2))), rtol=0, atol=TOLERANCE)


# Gradients


@pytest.fixture(scope="module")
def gradient() -> State:
    """In PyTorch, of all blocks as one graph."""
    return opened("torch", EACH, OptimizerSpec("sgd"))[0].gradients([PLAN])[0]


def assert_near(found: State, expected: State) -> None:
    assert set(found) == set(expected)
    largest = max(np.abs(x).max() for x in expected.values())
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, rtol=0, atol=TOLERANCE * largest, err_msg=name)


@pytest.mark.parametrize("backend", backends.names())
def test_each_framework_has_the_gradient_through_every_operator_also_of_blocks_computed_again(
    gradient: State, backend: str
) -> None:
    assert_near(opened(backend, EACH, OptimizerSpec("sgd"), remat=True)[0].gradients([PLAN])[0], gradient)
    kernels = [name for name in gradient if "/token_mixing/" in name and name.endswith("/kernel")]
    assert all(np.abs(gradient[name]).max() > 1e-6 for name in kernels)


def test_replicas_computed_together_have_the_gradients_that_they_have_alone(gradient: State) -> None:
    """In PyTorch, where attention has another form then."""
    program, state = opened("torch", EACH, OptimizerSpec("sgd"))
    program.load([{name: 0.9 * x for name, x in state.items()}, state])
    assert_near(program.gradients([PLAN, PLAN])[1], gradient)


# Constants

FROZEN = "MixerBlock_0/token_mixing/random/matrix"
RANDOM = MixerSpec(8, 1, 3, 2, 4, 1, 5, 8, token_mixing="random")


def test_a_constant_is_no_trained_parameter_and_has_no_slots() -> None:
    optimizer = OptimizerSpec(ema_decay=0.9)
    assert FROZEN in folds.shapes(RANDOM) and FROZEN not in folds.trained_shapes(RANDOM)
    assert folds.constant_shapes(RANDOM) == {FROZEN: (S, S)}
    plain = MixerSpec(8, 1, 3, 2, 4, 1, 5, 8, token_mixing="identity")
    assert folds.count(RANDOM) == folds.count(plain)
    more = set(state_shapes(RANDOM, optimizer)) - set(state_shapes(plain, optimizer))
    assert more == {f"params/{FROZEN}"}


@pytest.mark.parametrize(("backend", "name"), [("torch", "adamw"), ("torch", "sgd"), ("jax", "adamw")])
def test_nothing_moves_a_constant_and_it_is_in_no_norm(backend: str, name: str) -> None:
    """With epsilon 0 Adam would divide 0 by 0; decay, clipping and the average act on all that is trained."""
    optimizer = OptimizerSpec(name, epsilon=0.0, weight_decay=0.3, decay="all", clip_norm=0.1, ema_decay=0.9)
    program, state = opened(backend, RANDOM, optimizer)
    gradient = program.gradients([PLAN])[0]
    norm, after = program.train([PLAN])[0].gradient_norm[0], program.states()[0]
    assert norm == pytest.approx(math.sqrt(sum((x**2).sum() for x in gradient.values())), rel=1e-12)
    assert set(after) == set(state) and set(gradient) == set(folds.trained_shapes(RANDOM))
    np.testing.assert_array_equal(after[f"params/{FROZEN}"], state[f"params/{FROZEN}"])
    moved = [key for key in state if key.startswith("params/") and (after[key] != state[key]).all()]
    assert len(moved) == len(folds.trained_shapes(RANDOM))
    assert all(np.isfinite(x).all() for x in after.values())


def test_a_prediction_by_the_average_reads_the_constant() -> None:
    """In both frameworks the same, and other than with another constant."""
    logits = []
    for name in backends.names():
        program, state = opened(name, RANDOM, OptimizerSpec(ema_decay=0.9))
        images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 1)).astype(np.uint8)
        logits.append(program.predict(images)[0].logits)
        program.load([state | {f"params/{FROZEN}": 2 * state[f"params/{FROZEN}"]}])
        assert np.abs(program.predict(images)[0].logits - logits[-1]).max() > 1e-3
    np.testing.assert_allclose(logits[1], logits[0], rtol=0, atol=TOLERANCE * 10)


def test_the_rows_of_the_random_matrix_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    matrix = folds.params(RANDOM)[FROZEN].init.draw(FROZEN, (S, S), lambda _, shape: rng.random(shape))
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-14)
    assert (matrix > 0).all() and matrix.std() > 0.001 and np.abs(matrix.sum(0) - 1).max() > 0.01
