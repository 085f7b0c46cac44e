"""Initial values of the operators: each is drawn from the distribution that its source names, and constants stay apart.

A kernel is tested as a whole by the test of Kolmogorov and Smirnov, whose p-value is that of one fixed seed.
"""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from backends.arrays import Array
from backends.models.convmixer_spec import ConvMixerSpec
from backends.models.metaformer_spec import MetaFormerSpec
from backends.models.mixer_spec import MixerSpec
from backends.models.resnet_spec import ResnetSpec
from backends.specs import ModelSpec, OptimizerSpec
from backends.state import draw_state
from experiments import streams

C, D_C, S = 64, 96, 64
LEAST_P = 1e-3


def uniforms(name: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    return streams.uniforms(seed, f"weights/{name}", 0, 1, shape)[0]


def initial(**fields: Any) -> dict[str, Array]:
    """Initial parameters of a model of 64 tokens and 64 channels, by name."""
    return initial_of(MixerSpec(**{**SIZES, **fields}))


def initial_of(spec: ModelSpec) -> dict[str, Array]:
    """Initial parameters of a model, by name."""
    state = draw_state(spec, OptimizerSpec(), uniforms)
    return {name.removeprefix("params/"): x for name, x in state.items() if name.startswith("params/")}


SIZES: dict[str, Any] = {
    "image_size": 32,
    "image_channels": 3,
    "num_classes": 10,
    "patch_size": 4,
    "hidden_dim": C,
    "num_blocks": 2,
    "tokens_mlp_dim": 32,
    "channels_mlp_dim": D_C,
}


@pytest.fixture(scope="module")
def vit() -> dict[str, Array]:
    return initial(token_mixing="attention", num_heads=4, position_embedding="learned", init="vit", representation=True)


def drawn_from(values: Array, distribution: Any) -> float:
    """The p-value of the values' being drawn from a distribution."""
    return float(stats.kstest(values.ravel(), distribution.cdf).pvalue)


def uniform(limit: float) -> Any:
    return stats.uniform(-limit, 2 * limit)


@pytest.mark.parametrize(
    ("name", "fans"),
    [
        *((f"MixerBlock_1/token_mixing/{part}/kernel", (C, C)) for part in ("query", "key", "value", "out")),
        ("MixerBlock_0/channel_mixing/Dense_0/kernel", (C, D_C)),
        ("MixerBlock_0/channel_mixing/Dense_1/kernel", (D_C, C)),
        ("representation/kernel", (C, C)),
    ],
)
def test_kernels_of_a_vit_are_xavier_uniform(name: str, fans: tuple[int, int], vit: dict[str, Array]) -> None:
    """On the whole C x C kernel; torch's fused in_proj has C x 3 C, and a bound that is smaller by the root of 2."""
    limit = math.sqrt(6 / sum(fans))
    assert drawn_from(vit[name], uniform(limit)) > LEAST_P
    assert drawn_from(vit[name], uniform(math.sqrt(6 / (C + 3 * C)))) < 1e-9
    assert 0.99 * limit < np.abs(vit[name]).max() <= limit


def test_biases_of_a_vit_are_tiny_in_the_mlp_and_zero_elsewhere(vit: dict[str, Array]) -> None:
    for name, value in vit.items():
        if name.endswith("bias") and "channel_mixing" in name:
            assert value.all() and drawn_from(value, stats.norm(0, 1e-6)) > LEAST_P, name
        elif name.endswith("bias"):
            assert not value.any(), name


def test_the_position_embedding_of_a_vit_has_the_variance_of_its_width(vit: dict[str, Array]) -> None:
    assert drawn_from(vit["position_embedding"], stats.norm(0, 1 / math.sqrt(C))) > LEAST_P
    usual = initial(position_embedding="learned")["position_embedding"]
    assert drawn_from(usual / 0.02, stats.truncnorm(-2, 2)) > LEAST_P


def test_a_gate_begins_almost_open() -> None:
    """Its kernel is nearly nothing and its bias is one, so that the block begins as an MLP."""
    params = initial(token_mixing="gating")
    assert drawn_from(params["MixerBlock_0/token_mixing/gate/kernel"], stats.norm(0, 1e-6)) > LEAST_P
    assert (params["MixerBlock_0/token_mixing/gate/bias"] == 1).all()
    assert (params["MixerBlock_0/token_mixing/gate_norm/scale"] == 1).all()


def test_a_random_matrix_has_softmax_rows_and_is_drawn_for_each_block() -> None:
    params = initial(token_mixing="random")
    first, second = (params[f"MixerBlock_{i}/token_mixing/random/matrix"] for i in range(2))
    assert first.shape == (S, S)
    np.testing.assert_allclose(first.sum(1), 1, rtol=0, atol=1e-12)
    assert np.abs(first.sum(0) - 1).max() > 0.01  # columns do not sum to 1
    assert not np.array_equal(first, second)
    # The softmax of uniform numbers: their logarithms are uniform, but for a number that each row has of its own.
    logarithms = np.log(first) - np.log(first).max(1, keepdims=True)
    assert -1 < logarithms.min() < -0.97 and drawn_from(logarithms[logarithms < 0], stats.uniform(-1, 1)) > LEAST_P


def test_a_random_matrix_is_that_of_the_trial_seed() -> None:
    spec = MixerSpec(**SIZES, token_mixing="random")
    name = "params/MixerBlock_0/token_mixing/random/matrix"
    matrices = [
        draw_state(spec, OptimizerSpec(), lambda n, shape, seed=seed: uniforms(n, shape, seed))[name]
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(matrices[0], matrices[1]) and not np.array_equal(matrices[0], matrices[2])


def test_a_depthwise_kernel_has_the_variance_of_the_tokens_that_it_sees() -> None:
    kernel = initial(token_mixing="depthwise", kernel_size=7)["MixerBlock_0/token_mixing/depthwise/kernel"]
    sigma = math.sqrt(1 / 49) / 0.87962566103423978
    assert kernel.shape == (7, 7, 1, C) and drawn_from(kernel / sigma, stats.truncnorm(-2, 2)) > LEAST_P


def test_an_overlapping_stem_has_the_variance_of_its_own_pixels() -> None:
    kernel = initial(stem="overlap")["stem/kernel"]
    sigma = math.sqrt(1 / (7 * 7 * 3)) / 0.87962566103423978
    assert kernel.shape == (7, 7, 3, C) and drawn_from(kernel / sigma, stats.truncnorm(-2, 2)) > LEAST_P


@pytest.mark.parametrize("value", [0.1, 1e-5])
def test_factors_of_branches_begin_where_the_spec_says(value: float) -> None:
    params = initial(layer_scale=value, norm="affine", token_mixing="linear")
    scales = {name: x for name, x in params.items() if name.endswith("layer_scale/scale")}
    assert len(scales) == 4 and all((x == value).all() for x in scales.values())


def test_blocks_that_share_begin_with_one_set_of_weights() -> None:
    usual, shared = set(initial()), set(initial(share_token_mixing=True))
    assert usual - shared == {
        f"MixerBlock_1/token_mixing/Dense_{i}/{part}" for i in (0, 1) for part in ("kernel", "bias")
    }


def test_a_class_token_begins_at_zero() -> None:
    params = initial(pool="cls", position_embedding="learned")
    assert not params["cls_token"].any() and params["position_embedding"].shape == (S + 1, C)


@pytest.mark.parametrize("metaformer", ["poolformer", "baseline"])
def test_every_kernel_of_a_metaformer_begins_normal_with_one_deviation(metaformer: str) -> None:
    """Source: timm, models/metaformer.py, _init_weights."""
    params = initial_of(MetaFormerSpec(32, 3, 10, 4, metaformer=metaformer, depths=(1, 1), dims=(16, 32)))
    kernels = {name: x for name, x in params.items() if name.endswith("/kernel")}
    assert len(kernels) == 7
    assert all(drawn_from(x / 0.02, stats.norm) > LEAST_P for x in kernels.values())


@pytest.mark.parametrize(
    "spec",
    [
        ConvMixerSpec(16, 3, 10, 4, 16, 1, 3),
        ResnetSpec(16, 3, 10, 4, (1,), 16, "cifar", "basic", 16),
        MixerSpec(**SIZES),
    ],
    ids=["convmixer", "resnet", "mixer"],
)
def test_a_head_begins_at_zero_and_other_kernels_do_not(spec: ModelSpec) -> None:
    kernels = {name: x for name, x in initial_of(spec).items() if name.endswith("/kernel")}
    assert [name for name, x in kernels.items() if not x.any()] == ["head/kernel"]
