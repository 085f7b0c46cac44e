"""Each axis of the block follows a formula in NumPy that is written from its source: norms, their place, skips, stems.

The parity ladder does not see what two backends read wrongly alike; here it is seen. Operators: test_operators.py.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset
from backends.models import folds
from backends.models.mixer_spec import MixerSpec
from backends.plan import StepPlan
from backends.specs import OptimizerSpec, RunSpec
from backends.state import draw_state

SIDE, C, BATCH = 4, 16, 3
SIZES: dict[str, Any] = {
    "image_size": 16,
    "image_channels": 3,
    "num_classes": 5,
    "patch_size": 4,
    "hidden_dim": C,
    "tokens_mlp_dim": 10,
    "channels_mlp_dim": 24,
}
MODELS: dict[str, dict[str, Any]] = {
    "sincos2d, layer scale, representation": {
        "position_embedding": "sincos2d",
        "layer_scale": 0.5,
        "representation": True,
        "num_blocks": 1,
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


Get = Callable[[str], Computed]


def test_layer_scale_is_a_factor_of_the_branch_and_not_of_the_skip(computed: Get) -> None:
    of = computed("sincos2d, layer scale, representation")
    before = of["position_embedding"]
    for part in ("MixerBlock_0/token_mixing", "MixerBlock_0/channel_mixing"):
        close(of[part], before + of[f"{part}/Dense_1"] * of.params[f"{part}/layer_scale/scale"])
        before = of[part]


def test_sincos2d_is_added_column_first(computed: Get) -> None:
    of = computed("sincos2d, layer scale, representation")
    rates = 10_000.0 ** (-np.arange(C // 4) / (C // 4 - 1))
    table = [
        np.concatenate([np.sin(x * rates), np.cos(x * rates), np.sin(y * rates), np.cos(y * rates)])
        for y in range(SIDE)
        for x in range(SIDE)
    ]
    close(of["position_embedding"], of["stem"] + np.stack(table))


def test_the_representation_is_a_tanh_of_a_dense(computed: Get) -> None:
    of = computed("sincos2d, layer scale, representation")
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
