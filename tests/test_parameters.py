"""Names, shapes, counts and initial weights are those of the paper and of the authors' checkpoints."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

import backends
from backends.arrays import Array
from backends.contract import ArrayDataset
from backends.models import folds
from backends.models.mixer_spec import MixerSpec
from backends.models.summary import model_summary
from backends.models.variants import MIXER
from backends.plan import StepPlan
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from backends.state import decayed_params, draw_state, state_shapes
from experiments import streams

# Variant at 224 pixels and 1000 classes: (parameters without the head, with it, multiply-accumulates of one image).
# Source: counts of the authors' code; those without the head are Table 1 of arXiv 2105.01601, in millions there.
PUBLISHED = {
    "S/32": (18_591_624, 19_104_624, 1.0024e9),
    "S/16": (18_015_264, 18_528_264, 3.7770e9),
    "B/32": (59_524_428, 60_293_428, 3.2377e9),
    "B/16": (59_111_472, 59_880_472, 12.6018e9),
    "L/32": (205_914_264, 206_939_264, 11.2533e9),
    "L/16": (207_171_168, 208_196_168, 44.5477e9),
    "H/14": (431_069_952, 432_350_952, 120.99e9),
}
TABLE_1_MILLIONS = {"S/32": 19, "S/16": 18, "B/32": 60, "B/16": 59, "L/32": 206, "L/16": 207, "H/14": 431}
# The multiply-accumulates are given to five figures.
MACS_TOLERANCE = 5e-5

SMALL = {
    "image_size": 12,
    "image_channels": 3,
    "num_classes": 5,
    "patch_size": 4,
    "hidden_dim": 16,
    "num_blocks": 2,
    "tokens_mlp_dim": 10,
    "channels_mlp_dim": 24,
}
S, C, D_S, D_C = 9, 16, 10, 24
TOKEN_MLP, CHANNEL_MLP = 2 * S * D_S + D_S + S, 2 * C * D_C + D_C + C

OPTIONS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"token_mixing": "untied"},
    "grouped": {"token_mixing": "grouped", "token_groups": 2},
    "grouped_views": {"token_mixing": "grouped_views", "token_groups": 2},
    "channels untied": {"channel_mixing": "untied"},
    "both untied": {"token_mixing": "untied", "channel_mixing": "untied"},
    "share_blocks": {"share_blocks": True},
    "position_embedding": {"position_embedding": "learned"},
    "no pre_head_norm": {"pre_head_norm": False},
}


def variant(name: str) -> MixerSpec:
    return MixerSpec(224, 3, 1000, *MIXER[name])


def small(**fields: Any) -> MixerSpec:
    return MixerSpec(**SMALL | fields)


def uniforms(name: str, shape: tuple[int, ...]) -> Array:
    return streams.uniforms(0, f"weights/{name}", 0, 1, shape)[0]


# Counts


def test_every_variant_is_counted_here() -> None:
    assert set(PUBLISHED) == set(MIXER) == set(TABLE_1_MILLIONS)


@pytest.mark.parametrize("name", MIXER)
def test_parameters_are_as_many_as_published(name: str) -> None:
    spec = variant(name)
    head = spec.hidden_dim * 1000 + 1000
    without_head, with_head, _ = PUBLISHED[name]
    assert folds.count(spec) == with_head
    assert folds.count(spec) - head == without_head
    assert round(without_head / 1e6) == TABLE_1_MILLIONS[name]


@pytest.mark.parametrize("name", MIXER)
def test_multiply_accumulates_are_as_many_as_published(name: str) -> None:
    assert folds.forward_macs(variant(name)) == pytest.approx(PUBLISHED[name][2], rel=MACS_TOLERANCE)


def test_parts_of_s_16_are_of_their_published_sizes() -> None:
    shapes = folds.shapes(variant("S/16"))

    def size(name: str) -> int:
        return math.prod(shapes[f"{name}/kernel"]) + math.prod(shapes[f"{name}/bias"])

    assert size("stem") == 393_728
    assert size("MixerBlock_0/token_mixing/Dense_0") == 50_432
    assert size("MixerBlock_0/token_mixing/Dense_1") == 50_372


@pytest.mark.parametrize(
    ("option", "more"),
    [
        ("untied", 2 * (C - 1) * TOKEN_MLP),
        ("channels untied", 2 * (S - 1) * CHANNEL_MLP),
        ("both untied", 2 * (C - 1) * TOKEN_MLP + 2 * (S - 1) * CHANNEL_MLP),
        ("grouped", 2 * (2 * S * D_S + S)),
        ("grouped_views", 2 * (2 * S * D_S + S) + 2 * C * C),
        ("share_blocks", -(4 * C + TOKEN_MLP + CHANNEL_MLP)),
        ("position_embedding", S * C),
        ("no pre_head_norm", -2 * C),
    ],
)
def test_an_option_adds_what_its_formula_says(option: str, more: int) -> None:
    assert folds.count(small(**OPTIONS[option])) - folds.count(small()) == more


def test_tying_and_grouping_cost_no_multiplication_and_views_their_own() -> None:
    macs = {name: folds.forward_macs(small(**fields)) for name, fields in OPTIONS.items()}
    views = macs.pop("grouped_views")
    assert len(set(macs.values())) == 1
    assert views - macs["tied"] == 2 * S * C * C


# Names and shapes


def test_names_are_those_of_the_official_checkpoints_in_the_order_of_the_forward_pass() -> None:
    shapes = folds.shapes(small(num_blocks=1))
    assert shapes == {
        "stem/kernel": (4, 4, 3, C),
        "stem/bias": (C,),
        "MixerBlock_0/LayerNorm_0/scale": (C,),
        "MixerBlock_0/LayerNorm_0/bias": (C,),
        "MixerBlock_0/token_mixing/Dense_0/kernel": (S, D_S),
        "MixerBlock_0/token_mixing/Dense_0/bias": (D_S,),
        "MixerBlock_0/token_mixing/Dense_1/kernel": (D_S, S),
        "MixerBlock_0/token_mixing/Dense_1/bias": (S,),
        "MixerBlock_0/LayerNorm_1/scale": (C,),
        "MixerBlock_0/LayerNorm_1/bias": (C,),
        "MixerBlock_0/channel_mixing/Dense_0/kernel": (C, D_C),
        "MixerBlock_0/channel_mixing/Dense_0/bias": (D_C,),
        "MixerBlock_0/channel_mixing/Dense_1/kernel": (D_C, C),
        "MixerBlock_0/channel_mixing/Dense_1/bias": (C,),
        "pre_head_layer_norm/scale": (C,),
        "pre_head_layer_norm/bias": (C,),
        "head/kernel": (C, 5),
        "head/bias": (5,),
    }
    names = list(shapes)
    assert names[0] == "stem/kernel" and names[-1] == "head/bias"
    assert names.index("MixerBlock_0/token_mixing/Dense_0/kernel") < names.index("MixerBlock_0/LayerNorm_1/scale")


@pytest.mark.parametrize("optimizer", [OptimizerSpec(), OptimizerSpec("sgd"), OptimizerSpec(ema_decay=0.9)], ids=str)
def test_a_state_has_each_slot_of_each_parameter(optimizer: OptimizerSpec) -> None:
    shapes, model = state_shapes(small(), optimizer), small()
    slots = {"params", "momentum"} if optimizer.optimizer == "sgd" else {"params", "first_moment", "second_moment"}
    slots |= {"average"} if optimizer.ema_decay else set()
    expected = {f"{slot}/{name}": shape for slot in slots for name, shape in folds.shapes(model).items()}
    assert shapes == expected
    assert {name: x.shape for name, x in draw_state(model, optimizer, uniforms).items()} == expected


@pytest.mark.parametrize("backend", backends.names())
@pytest.mark.parametrize("option", OPTIONS)
def test_backends_hold_exactly_the_parameters(backend: str, option: str) -> None:
    """The model built by the framework itself names and shapes what it reads as the tables do."""
    model = small(**OPTIONS[option])
    assert own_shapes(backend, model) == folds.spread(model, folds.shapes(model))


@pytest.mark.parametrize("backend", backends.names())
def test_what_is_loaded_comes_back(backend: str) -> None:
    model, optimizer = small(**OPTIONS["both untied"]), OptimizerSpec(ema_decay=0.5)
    generator = np.random.default_rng(0)
    shapes = state_shapes(model, optimizer)
    state = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    dataset = ArrayDataset(np.zeros((2, 12, 12, 3), np.uint8), np.zeros(2, np.int32))
    program = backends.load(backend).open(model, optimizer, dataset, RunSpec(precision="float64"))
    program.load([state])
    held = program.states()[0]
    assert set(held) == set(shapes)
    for name, array in state.items():
        np.testing.assert_array_equal(held[name], array, err_msg=name)


def own_shapes(backend: str, model: ModelSpec) -> dict[str, tuple[int, ...]]:
    """What the backend's module itself makes; a new backend has to be added here."""
    images = (1, model.image_size, model.image_size, model.image_channels)
    if backend == "jax":
        import jax
        import jax.numpy as jnp
        from flax.traverse_util import flatten_dict

        from backends.jax.layers import Chance
        from backends.jax.models import make

        module, key = make(model, remat=False), jax.random.key(0)
        made = jax.eval_shape(lambda: module.init(key, jnp.zeros(images), Chance(), jnp.float32))
        return {name: leaf.shape for name, leaf in flatten_dict(made["params"], sep="/").items()}
    assert backend == "torch"
    from backends.torch.models import make as make_torch

    named = make_torch(model, remat=False).named_parameters()
    return {name.replace(".", "/"): tuple(parameter.shape) for name, parameter in named}


# Initial weights


@pytest.fixture(scope="module")
def initial() -> dict[str, Array]:
    """A model with enough weights in each kernel to measure: at least 10,000."""
    model = MixerSpec(32, 3, 10, 8, 128, 1, 700, 512, token_mixing="grouped_views", position_embedding="learned")
    return draw_state(model, OptimizerSpec(ema_decay=0.9), uniforms)


KERNELS = {
    "stem/kernel": 8 * 8 * 3,
    "MixerBlock_0/token_mixing/views/kernel": 128,
    "MixerBlock_0/token_mixing/Dense_0/kernel": 16,
    "MixerBlock_0/token_mixing/Dense_1/kernel": 700,
    "MixerBlock_0/channel_mixing/Dense_0/kernel": 128,
    "MixerBlock_0/channel_mixing/Dense_1/kernel": 512,
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_normal_cut_at_two_sigma_with_variance_one_over_fan_in(
    name: str, initial: dict[str, Array]
) -> None:
    kernel, fan_in = initial[f"params/{name}"].ravel(), KERNELS[name]
    sigma = math.sqrt(1 / fan_in) / 0.87962566103423978
    assert kernel.var() * fan_in == pytest.approx(1, abs=6 / math.sqrt(kernel.size))  # its deviation is 1.1 / sqrt(n)
    assert abs(kernel.mean()) < 4 * math.sqrt(1 / fan_in / kernel.size)
    assert np.abs(kernel).max() < 2 * sigma
    assert np.abs(kernel).max() > 1.98 * sigma
    assert stats.kstest(kernel / sigma, stats.truncnorm(-2, 2).cdf).pvalue > 1e-3


def test_untied_copies_are_drawn_apart_with_the_variance_of_one() -> None:
    model = small(token_mixing="untied", channel_mixing="untied", hidden_dim=64, channels_mlp_dim=80)
    state = draw_state(model, OptimizerSpec(), uniforms)
    for name, fan_in in {"token_mixing/Dense_0": 9, "token_mixing/Dense_1": 10, "channel_mixing/Dense_0": 64}.items():
        kernel = state[f"params/MixerBlock_0/{name}/kernel"]
        assert len(np.unique(kernel)) == kernel.size
        assert kernel.var() * fan_in == pytest.approx(1, abs=6 / math.sqrt(kernel.size))


def test_head_and_biases_are_zero_and_scales_one(initial: dict[str, Array]) -> None:
    params = {name: x for name, x in initial.items() if name.startswith("params/")}
    assert not params["params/head/kernel"].any()
    for name, array in params.items():
        assert not (name.endswith("bias") and array.any()), name
        assert not (name.endswith("scale") and (array != 1).any()), name


def test_position_embedding_is_as_vit_draws_it(initial: dict[str, Array]) -> None:
    embedding = initial["params/position_embedding"]
    assert np.abs(embedding).max() <= 0.04
    assert stats.kstest(embedding.ravel() / 0.02, stats.truncnorm(-2, 2).cdf).pvalue > 1e-3


def test_moments_begin_at_zero_and_the_average_at_the_parameters(initial: dict[str, Array]) -> None:
    for name in (name.removeprefix("params/") for name in initial if name.startswith("params/")):
        assert not initial[f"first_moment/{name}"].any() and not initial[f"second_moment/{name}"].any()
        np.testing.assert_array_equal(initial[f"average/{name}"], initial[f"params/{name}"])


def test_kernels_decay_and_nothing_else_unless_all_do() -> None:
    model = small(position_embedding="learned", token_mixing="grouped_views")
    kernels = {name: name.split("/")[-1] == "kernel" for name in folds.shapes(model)}
    assert decayed_params(model, "kernels") == kernels
    assert decayed_params(model, "all") == dict.fromkeys(kernels, True)


# Layer by layer

SGD = OptimizerSpec(optimizer="sgd")
WITH_PARAMETERS = ("stem", "position_embedding", "LayerNorm_0", "views", "Dense_0", "Dense_1", "LayerNorm_1")
WITH_PARAMETERS += ("pre_head_layer_norm", "head")


def test_summary_of_s16_has_the_counts_of_the_paper_and_sums_to_the_total() -> None:
    layers = {layer.name: layer for layer in model_summary(variant("S/16"))}
    assert (layers["stem"].shape, layers["stem"].parameters) == ((196, 512), 393_728)
    for i in range(8):
        first, second = (layers[f"MixerBlock_{i}/token_mixing/Dense_{j}"] for j in range(2))
        assert (first.shape, first.parameters) == ((256, 512), 50_432)
        assert (second.shape, second.parameters) == ((196, 512), 50_372)
        assert layers[f"MixerBlock_{i}/channel_mixing/Dense_0"].shape == (196, 2048)
    assert (layers["head"].shape, layers["head"].parameters) == ((1000,), 513_000)
    assert sum(layer.parameters for layer in layers.values()) == 18_528_264
    assert len(layers) == 1 + 8 * 6 + 2


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("backend", backends.names())
def test_summary_has_the_outputs_that_the_backends_compute(backend: str, options: dict[str, Any]) -> None:
    spec = small(**options)
    layers = model_summary(spec)
    assert sum(layer.parameters for layer in layers) == folds.count(spec)
    images = np.zeros((2, 12, 12, 3))
    dataset = ArrayDataset(images, np.zeros(2, np.int32))
    program = backends.load(backend).open(spec, SGD, dataset, RunSpec(precision="float64"))
    program.load([draw_state(spec, SGD, uniforms)])
    plan = StepPlan(0, np.ones(1), np.ones((1, 2)), np.array([[0, 1]], np.int32))
    computed = program.activations([plan])[0]
    names = {name for name in computed if not name.endswith(("mixing", "activation", "0", "1"))}
    assert {layer.name for layer in layers} >= names - {"images", "targets", "patches", "features", "loss"}
    for layer in layers:
        assert computed[layer.name].shape[1:] == layer.shape, layer.name
