"""Each layer of the block follows a formula in NumPy that is written from its paper: of what came in, what goes out.

One model has all operators, a block each, so that each backend compiles once. What two backends read wrongly alike, the
parity ladder cannot see; here it is seen.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy import ndimage, special

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset
from backends.models import folds
from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec
from backends.plan import StepPlan
from backends.specs import OptimizerSpec, RunSpec
from backends.state import draw_state

SIDE, S, C, D_C, HEADS, BATCH = 4, 16, 16, 24, 4, 3
SIZES: dict[str, Any] = {
    "image_size": 16,
    "image_channels": 3,
    "num_classes": 5,
    "patch_size": 4,
    "hidden_dim": C,
    "tokens_mlp_dim": 10,
    "channels_mlp_dim": D_C,
    "num_heads": HEADS,
}
MODELS: dict[str, dict[str, Any]] = {
    "all operators": {
        "token_mixing": TOKEN_MIXING,
        "num_blocks": len(TOKEN_MIXING),
        "token_groups": 2,
        "kernel_size": 5,
        "position_embedding": "sincos2d",
        "layer_scale": 0.5,
        "representation": True,
    },
    "rms, post, overlap, cls": {
        "norm": "rms",
        "norm_place": "post",
        "stem": "overlap",
        "pool": "cls",
        "position_embedding": "learned",
        "num_blocks": 1,
        "norm_epsilon": 0.1,
    },
    "affine, pyramid": {
        "norm": "affine",
        "pyramid": (0, 1),
        "num_blocks": 2,
        "token_mixing": ("linear", "tied"),
    },
}
# Both sides compute in float64, of numbers of order 1 to 100; what is left is the order of sums.
TOLERANCE = 1e-12


class Computed:
    """What a backend computed of a model: its parameters, and the value of each layer."""

    def __init__(self, backend: str, model: str) -> None:
        generator = np.random.default_rng(7)
        self.spec = MixerSpec(**{**SIZES, **MODELS[model]})
        optimizer = OptimizerSpec("sgd")
        state = draw_state(self.spec, optimizer, lambda name, shape: generator.random(shape))
        self.params = {name: generator.normal(0, 0.5, shape) for name, shape in folds.shapes(self.spec).items()}
        self.images = generator.normal(size=(BATCH, 16, 16, 3))
        dataset = ArrayDataset(self.images, np.zeros(BATCH, np.int32))
        program = backends.load(backend).open(self.spec, optimizer, dataset, RunSpec(precision="float64"))
        program.load([state | {f"params/{name}": value for name, value in self.params.items()}])
        plan = StepPlan(0, np.ones(1), np.ones((1, 2)), np.arange(BATCH, dtype=np.int32)[None])
        self.taps: State = program.activations([plan])[0]

    def __getitem__(self, name: str) -> Array:
        return self.taps[name]

    def dense(self, name: str, x: Array) -> Array:
        """A Dense over the last axis."""
        return x @ self.params[f"{name}/kernel"] + self.params[f"{name}/bias"]

    def block(self, operator: str) -> tuple[str, Array]:
        """The name of an operator's token mixing, and what comes into it."""
        name = f"MixerBlock_{self.spec.operators.index(operator)}"
        return f"{name}/token_mixing", self[f"{name}/LayerNorm_0"]


@pytest.fixture(scope="module", params=backends.names())
def computed(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Computed]]:
    kept: dict[str, Computed] = {}

    def get(model: str) -> Computed:
        if model not in kept:
            kept[model] = Computed(request.param, model)
        return kept[model]

    yield get


def close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


def gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def softmax(x: Array) -> Array:
    return np.asarray(special.softmax(x, axis=-1))


def normed(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * scale + bias)


def as_grid(x: Array) -> Array:
    return x.reshape(len(x), SIDE, SIDE, -1)


Get = Callable[[str], Computed]


def test_attention_is_that_of_vaswani_head_by_head(computed: Get) -> None:
    of = computed("all operators")
    name, x = of.block("attention")
    query, key, value = (of.dense(f"{name}/{part}", x) for part in ("query", "key", "value"))
    width = C // HEADS
    heads = [slice(h * width, (h + 1) * width) for h in range(HEADS)]  # a head is a slice of neighbouring channels
    mixed = [softmax(query[..., h] @ key[..., h].transpose(0, 2, 1) / np.sqrt(width)) @ value[..., h] for h in heads]
    close(of[f"{name}/heads"], np.concatenate(mixed, axis=-1))
    close(of[f"{name}/out"], of.dense(f"{name}/out", of[f"{name}/heads"]))


def test_a_gate_multiplies_the_first_half_by_what_the_second_half_says_of_all_tokens(computed: Get) -> None:
    of = computed("all operators")
    name, x = of.block("gating")
    hidden = gelu_tanh(of.dense(f"{name}/Dense_0", x))
    u, v = hidden[..., : D_C // 2], hidden[..., D_C // 2 :]
    v = normed(v, of.params[f"{name}/gate_norm/scale"], of.params[f"{name}/gate_norm/bias"], 1e-5)
    kernel, bias = of.params[f"{name}/gate/kernel"], of.params[f"{name}/gate/bias"]
    gate = np.einsum("bsc,st->btc", v, kernel) + bias[:, None]  # a bias for each token
    close(of[f"{name}/gate"], gate)
    close(of[f"{name}/Dense_1"], of.dense(f"{name}/Dense_1", u * gate))


def test_linear_is_one_product_over_tokens(computed: Get) -> None:
    of = computed("all operators")
    name, x = of.block("linear")
    kernel, bias = of.params[f"{name}/Dense_0/kernel"], of.params[f"{name}/Dense_0/bias"]
    close(of[f"{name}/Dense_0"], np.einsum("bsc,st->btc", x, kernel) + bias[:, None])


def test_pooling_is_the_mean_of_the_neighbours_inside_minus_the_token(computed: Get) -> None:
    of = computed("all operators")
    name, x = of.block("pooling")
    ones = np.ones((1, 3, 3, 1))
    sums = ndimage.convolve(as_grid(x), ones, mode="constant")
    counts = ndimage.convolve(np.ones((1, SIDE, SIDE, 1)), ones, mode="constant")
    assert set(counts.ravel()) == {4, 6, 9}
    close(of[f"{name}/pooling"], (sums / counts - as_grid(x)).reshape(x.shape))


def test_fourier_is_the_real_part_of_the_transform_over_tokens_and_channels(computed: Get) -> None:
    of = computed("all operators")
    name, x = of.block("fourier")
    close(of[f"{name}/fourier"], np.fft.fft2(x, axes=(1, 2)).real)


def test_random_mixes_by_the_rows_of_its_matrix(computed: Get) -> None:
    of = computed("all operators")
    name, x = of.block("random")
    close(of[f"{name}/random"], np.einsum("ts,bsc->btc", of.params[f"{name}/random/matrix"], x))


def test_depthwise_slides_a_kernel_that_is_not_turned_and_zeros_lie_outside(computed: Get) -> None:
    of = computed("all operators")
    name, x = of.block("depthwise")
    kernel, bias = of.params[f"{name}/depthwise/kernel"][:, :, 0], of.params[f"{name}/depthwise/bias"]
    grid = as_grid(x)
    expected = np.stack(
        [ndimage.correlate(grid[..., c], kernel[None, :, :, c], mode="constant") + bias[c] for c in range(C)],
        axis=-1,
    )
    close(of[f"{name}/depthwise"], expected.reshape(x.shape))


def test_shift_moves_each_quarter_of_the_channels_by_a_token_and_the_edge_keeps_its_own(computed: Get) -> None:
    of = computed("all operators")
    name, x = of.block("shift")
    grid, quarter = as_grid(x), C // 4
    expected = grid.copy()
    expected[:, 1:, :, :quarter] = grid[:, :-1, :, :quarter]
    expected[:, :-1, :, quarter : 2 * quarter] = grid[:, 1:, :, quarter : 2 * quarter]
    expected[:, :, 1:, 2 * quarter : 3 * quarter] = grid[:, :, :-1, 2 * quarter : 3 * quarter]
    expected[:, :, :-1, 3 * quarter :] = grid[:, :, 1:, 3 * quarter :]
    close(of[f"{name}/shift"], expected.reshape(x.shape))


@pytest.mark.parametrize("operator", TOKEN_MIXING)
def test_layer_scale_is_a_factor_of_the_branch_and_not_of_the_skip(operator: str, computed: Get) -> None:
    of = computed("all operators")
    i = of.spec.operators.index(operator)
    name, y = of.block(operator)
    inner = [layer.name for layer in folds.layers(of.spec) if layer.name.startswith(f"{name}/") and not layer.branch]
    last = [one for one in inner if not one.endswith("layer_scale")][-1:]
    y = of[last[0]] if last else y
    if operator.startswith("grouped"):  # row s G + g of column j is channel j G + g of token s
        groups = of.spec.token_groups
        y = y.reshape(BATCH, S, groups, C // groups).transpose(0, 1, 3, 2).reshape(BATCH, S, C)
    close(of[name], of[_before(of, i)] + y * of.params[f"{name}/layer_scale/scale"])


def _before(of: Computed, i: int) -> str:
    """The layer whose value comes into block i."""
    names = [layer.name for layer in folds.layers(of.spec)]
    return names[names.index(f"MixerBlock_{i}/LayerNorm_0") - 1]


def test_sincos2d_is_added_column_first(computed: Get) -> None:
    of = computed("all operators")
    rates = 10_000.0 ** (-np.arange(C // 4) / (C // 4 - 1))
    table = [
        np.concatenate([np.sin(x * rates), np.cos(x * rates), np.sin(y * rates), np.cos(y * rates)])
        for y in range(SIDE)
        for x in range(SIDE)
    ]
    close(of["position_embedding"], of["stem"] + np.stack(table))


def test_the_representation_is_a_tanh_of_a_dense(computed: Get) -> None:
    of = computed("all operators")
    close(of["pooled"], of["pre_head_layer_norm"].mean(1))
    close(of["features"], np.tanh(of.dense("representation", of["pooled"])))
    close(of["head"], of.dense("head", of["features"]))


def test_an_overlapping_stem_sees_half_a_patch_around_it(computed: Get) -> None:
    """7 pixels a side every 4, from 2 pixels outside on: of each patch its middle is the window's."""
    of = computed("rms, post, overlap, cls")
    padded = np.pad(of.images, ((0, 0), (2, 1), (2, 1), (0, 0)))
    windows = [
        padded[:, 4 * row : 4 * row + 7, 4 * column : 4 * column + 7].reshape(BATCH, -1)
        for row in range(SIDE)
        for column in range(SIDE)
    ]
    x = np.stack(windows, axis=1)
    close(of["stem"], x @ of.params["stem/kernel"].reshape(-1, C) + of.params["stem/bias"])


def test_a_class_token_comes_first_and_is_all_that_the_head_sees(computed: Get) -> None:
    of = computed("rms, post, overlap, cls")
    tokens = np.broadcast_to(of.params["cls_token"], (BATCH, 1, C))
    x = np.concatenate([tokens, of["stem"]], axis=1)
    close(of["cls_token"], x)
    close(of["position_embedding"], x + of.params["position_embedding"])
    close(of["features"], of["pre_head_rms_norm"][:, 0])


def rms(of: Computed, name: str, x: Array) -> Array:
    return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + of.spec.norm_epsilon) * of.params[f"{name}/scale"])


def test_a_post_norm_takes_the_sum_and_an_rms_norm_takes_off_no_mean(computed: Get) -> None:
    of = computed("rms, post, overlap, cls")
    x = of["position_embedding"]
    mixed = x + of["MixerBlock_0/token_mixing/Dense_1"]
    close(of["MixerBlock_0/token_mixing"], mixed)
    first = rms(of, "MixerBlock_0/RMSNorm_0", mixed)
    close(of["MixerBlock_0/RMSNorm_0"], first)
    close(of["MixerBlock_0/channel_mixing/Dense_0"], of.dense("MixerBlock_0/channel_mixing/Dense_0", first))
    second = rms(of, "MixerBlock_0/RMSNorm_1", first + of["MixerBlock_0/channel_mixing/Dense_1"])
    close(of["MixerBlock_0/RMSNorm_1"], second)
    close(of["pre_head_rms_norm"], rms(of, "pre_head_rms_norm", second))


def test_an_affine_has_no_statistics(computed: Get) -> None:
    of = computed("affine, pyramid")
    scale, bias = (of.params[f"MixerBlock_0/Affine_0/{part}"] for part in ("scale", "bias"))
    close(of["MixerBlock_0/Affine_0"], of["stem"] * scale + bias)


def test_a_pyramid_skips_by_the_mean_over_two_by_two_tokens(computed: Get) -> None:
    of = computed("affine, pyramid")
    x, name = of["stem"], "MixerBlock_0/token_mixing"
    skip = x.reshape(BATCH, 2, 2, 2, 2, C).mean((2, 4)).reshape(BATCH, 4, C)
    close(of[f"{name}/skip"], skip)
    close(of[name], skip + of[f"{name}/Dense_0"])
    assert of["MixerBlock_1/token_mixing"].shape == (BATCH, 1, C)
    assert of["features"].shape == (BATCH, C)
