"""Options of the Mixer's block beside its operators: each computes what it says in both frameworks, or is refused.

The forward pass is called as it is, without a program, and every value is read by its layer's name.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

import backends
from backends.arrays import Array, State
from backends.models import family_of, folds, mixer
from backends.models.config import ModelConfig
from backends.models.mixer_spec import MixerSpec

C, SIDE = 8, 4
S = SIDE * SIDE
SMALL = MixerSpec(8, 2, 3, 2, C, 2, 5, 6)
TOLERANCE = 1e-12  # of values of order 1 in float64. Seen: 4e-15.


def small(**fields: Any) -> MixerSpec:
    return dataclasses.replace(SMALL, **fields)


def drawn(spec: MixerSpec) -> State:
    """Random parameters, none of them zero or one."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.5, shape) for name, shape in folds.shapes(spec).items()}


def images() -> Array:
    return np.random.default_rng(1).normal(size=(2, 8, 8, 2))


def forward(backend: str, spec: MixerSpec, params: State) -> State:
    """Every value of a forward pass in float64, by layer, in its order."""
    values = folds.spread(spec, params)
    if backend == "jax":
        import jax.numpy as jnp
        from flax.traverse_util import unflatten_dict

        from backends.jax import program  # noqa: F401  # it turns float64 on
        from backends.jax.layers import Chance as JaxChance
        from backends.jax.models import make as make_jax

        taps: dict[str, Any] = {}
        variables = {"params": unflatten_dict({name: jnp.asarray(x) for name, x in values.items()}, sep="/")}
        make_jax(spec, remat=False).apply(variables, jnp.asarray(images()), JaxChance(taps=taps), jnp.float64)
        return {name: np.asarray(x) for name, x in taps.items()}
    import torch

    from backends.torch.layers import Chance
    from backends.torch.models import make

    noted: dict[str, torch.Tensor] = {}
    module = make(spec, remat=False)
    named = {name.replace("/", "."): torch.from_numpy(x) for name, x in values.items()}
    arguments = (torch.from_numpy(images()), Chance(taps=noted), torch.float64)
    torch.func.functional_call(module, named, arguments)
    return {name: x.numpy() for name, x in noted.items()}


def assert_equal(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


@pytest.fixture(params=backends.names())
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def block_input(taps: State, i: int) -> Array:
    return taps["stem"] if i == 0 else taps[f"MixerBlock_{i - 1}/channel_mixing"]


# Norms and branches


def normed(x: Array, params: State, name: str, epsilon: float = 1e-6) -> Array:
    if name.endswith(("Affine_0", "pre_head_affine")):
        return np.asarray(x * params[f"{name}/scale"] + params[f"{name}/bias"])
    if name.endswith(("RMSNorm_0", "pre_head_rms_norm")):
        return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * params[f"{name}/scale"])
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return np.asarray(scaled * params[f"{name}/scale"] + params[f"{name}/bias"])


@pytest.mark.parametrize(
    ("norm", "name", "last"),
    [
        ("layer", "LayerNorm_0", "pre_head_layer_norm"),
        ("affine", "Affine_0", "pre_head_affine"),
        ("rms", "RMSNorm_0", "pre_head_rms_norm"),
    ],
)
def test_a_norm_has_its_formula_in_blocks_and_before_the_head(norm: str, name: str, last: str, backend: str) -> None:
    spec = small(norm=norm, norm_epsilon=0.1)
    params = drawn(spec)
    taps = forward(backend, spec, params)
    assert_equal(taps[f"MixerBlock_1/{name}"], normed(block_input(taps, 1), params, f"MixerBlock_1/{name}", 0.1))
    assert_equal(taps[last], normed(taps["MixerBlock_1/channel_mixing"], params, last, 0.1))


def test_a_post_norm_is_of_the_sum_and_feeds_what_follows(backend: str) -> None:
    spec = small(norm_place="post")
    params = drawn(spec)
    taps, block = forward(backend, spec, params), "MixerBlock_0"
    assert_equal(taps[f"{block}/LayerNorm_0"], normed(taps[f"{block}/token_mixing"], params, f"{block}/LayerNorm_0"))
    branch = taps[f"{block}/channel_mixing/Dense_1"]
    assert_equal(taps[f"{block}/channel_mixing"], taps[f"{block}/LayerNorm_0"] + branch)
    order = list(taps)
    assert order == folds.operations(spec, stochastic_depth=False)[2:-1]
    assert order.index(f"{block}/token_mixing") < order.index(f"{block}/LayerNorm_0")


@pytest.mark.parametrize("part", ["token_mixing", "channel_mixing"])
def test_layer_scale_is_a_factor_for_each_channel_at_the_end_of_a_branch(part: str, backend: str) -> None:
    spec = small(layer_scale=1e-4)
    params = drawn(spec)
    taps, name = forward(backend, spec, params), f"MixerBlock_1/{part}"
    before = block_input(taps, 1) if part == "token_mixing" else taps["MixerBlock_1/token_mixing"]
    scaled = taps[f"{name}/Dense_1"] * params[f"{name}/layer_scale/scale"]
    assert_equal(taps[name], before + scaled)
    assert folds.params(spec)[f"{name}/layer_scale/scale"].init.draw("", (2,), np.zeros).tolist() == [1e-4] * 2  # type: ignore[arg-type]


def test_without_channel_mixing_a_block_is_its_token_mixing(backend: str) -> None:
    spec = small(channel_mixing="none")
    taps = forward(backend, spec, drawn(spec))
    assert not [name for name in taps if "channel_mixing" in name or "_1/LayerNorm_1" in name]
    assert len(folds.branches(spec)) == 2 and len(folds.branch_depths(spec)) == 2
    assert_equal(
        taps["MixerBlock_1/token_mixing"] - taps["MixerBlock_1/token_mixing/Dense_1"], taps["MixerBlock_0/token_mixing"]
    )


# Tokens


def test_an_overlapping_stem_reads_windows_around_its_patches(backend: str) -> None:
    spec = small(stem="overlap", patch_size=4)
    params, size, stride = drawn(spec), 7, 4
    taps, room = forward(backend, spec, params), np.pad(images(), [(0, 0), (2, 8), (2, 8), (0, 0)])
    windows = [
        room[:, row * stride : row * stride + size, column * stride : column * stride + size]
        for row in range(2)
        for column in range(2)
    ]
    kernel, bias = params["stem/kernel"], params["stem/bias"]
    assert kernel.shape == (size, size, 2, C)
    assert_equal(taps["stem"], np.stack([np.einsum("bhwi,hwic->bc", x, kernel) + bias for x in windows], 1))


def test_a_stem_of_single_pixels_has_nothing_to_overlap(backend: str) -> None:
    plain, overlap = small(patch_size=1), small(patch_size=1, stem="overlap")
    assert_equal(forward(backend, overlap, drawn(plain))["head"], forward(backend, plain, drawn(plain))["head"])


def test_sincos2d_has_waves_of_the_column_then_of_the_row(backend: str) -> None:
    """The rates are 10000^(-j / (q - 1)), which a divisor q would miss by 4e-2 in the logits of a ViT."""
    spec = small(position_embedding="sincos2d")
    taps = forward(backend, spec, drawn(spec))
    expected = np.empty((S, C))
    for row in range(SIDE):
        for column in range(SIDE):
            rates = [10000 ** (-j / (C // 4 - 1)) for j in range(C // 4)]
            angles = [place * rate for place in (column, row) for rate in rates]
            own = np.array(angles).reshape(2, -1)
            expected[row * SIDE + column] = np.concatenate(
                [np.sin(own[0]), np.cos(own[0]), np.sin(own[1]), np.cos(own[1])]
            )
    assert_equal(taps["position_embedding"] - taps["stem"], np.broadcast_to(expected, (2, S, C)))
    assert "position_embedding" not in folds.shapes(spec)


@pytest.mark.parametrize("own_place", [True, False])
def test_a_class_token_comes_first_and_is_what_the_head_sees(own_place: bool, backend: str) -> None:
    spec = small(pool="cls", position_embedding="learned", cls_position=own_place, token_mixing="attention")
    params = drawn(spec)
    taps = forward(backend, spec, params)
    token, table = params["cls_token"], params["position_embedding"]
    assert table.shape == (S + own_place, C)
    first = token + table[0] if own_place else token
    rest = taps["stem"] + table[1:] if own_place else taps["stem"] + table
    entering = taps["position_embedding"] if own_place else taps["cls_token"]
    assert_equal(entering, np.concatenate([np.broadcast_to(first, (2, 1, C)), rest], 1))
    assert_equal(taps["features"], taps["pre_head_layer_norm"][:, 0])


def test_a_class_token_is_one_token_more_to_every_operator_over_tokens(backend: str) -> None:
    spec = small(pool="cls", token_mixing="attention", num_blocks=1)
    params = drawn(spec)
    taps = forward(backend, spec, params)
    x, name = taps["MixerBlock_0/LayerNorm_0"], "MixerBlock_0/token_mixing"
    q, k, v = (x @ params[f"{name}/{p}/kernel"] + params[f"{name}/{p}/bias"] for p in ("query", "key", "value"))
    assert x.shape == (2, S + 1, C)
    assert_equal(taps[f"{name}/heads"], softmax(q @ k.swapaxes(1, 2) / np.sqrt(C), -1) @ v)
    for operator in ("tied", "linear", "random", "fourier", "gating"):
        taps = forward(
            backend, small(pool="cls", token_mixing=operator), drawn(small(pool="cls", token_mixing=operator))
        )
        assert taps["MixerBlock_0/token_mixing"].shape == (2, S + 1, C)


def test_a_representation_is_a_dense_layer_and_tanh_before_the_head(backend: str) -> None:
    spec = small(representation=True)
    params = drawn(spec)
    taps = forward(backend, spec, params)
    pooled = taps["pre_head_layer_norm"].mean(1)
    features = np.tanh(pooled @ params["representation/kernel"] + params["representation/bias"])
    assert_equal(taps["pooled"], pooled)
    assert_equal(taps["features"], features)
    assert_equal(taps["head"], features @ params["head/kernel"] + params["head/bias"])


@pytest.mark.parametrize("operator", ["tied", "untied", "grouped", "linear"])
def test_a_block_of_a_pyramid_halves_the_side_and_its_skip_is_the_mean_of_four(operator: str, backend: str) -> None:
    spec = small(pyramid=(0,), token_mixing=operator, token_groups=2 if operator == "grouped" else 1)
    taps = forward(backend, spec, drawn(spec))
    grid = taps["stem"].reshape(2, SIDE, SIDE, C)
    skip = np.stack([grid[:, i : i + 2, j : j + 2].mean((1, 2)) for i in (0, 2) for j in (0, 2)], 1)
    assert_equal(taps["MixerBlock_0/token_mixing/skip"], skip)
    if operator != "grouped":  # whose last layer has G rows for a token
        last = "Dense_0" if operator == "linear" else "Dense_1"
        assert_equal(taps["MixerBlock_0/token_mixing"], skip + taps[f"MixerBlock_0/token_mixing/{last}"])
    assert taps["MixerBlock_0/token_mixing"].shape == taps["MixerBlock_1/channel_mixing"].shape == (2, S // 4, C)
    own = {layer.name: layer.output for layer in folds.layers(spec)}
    assert all(own[name] == x.shape[1:] for name, x in taps.items())


# Sharing


@pytest.mark.parametrize("part", ["token_mixing", "channel_mixing"])
def test_a_shared_part_is_the_first_block_s_and_norms_and_layer_scale_are_own(part: str, backend: str) -> None:
    shared, apart = small(layer_scale=0.1, **{f"share_{part}": True}), small(layer_scale=0.1)
    params = drawn(shared)
    own = {f"MixerBlock_1/{name}" for name in ("LayerNorm_0/scale", f"{part}/layer_scale/scale")}
    assert own <= set(params)
    assert not [name for name in params if name.startswith(f"MixerBlock_1/{part}/Dense")]
    copied = {name: params.get(name, params.get(name.replace("_1/", "_0/", 1))) for name in folds.shapes(apart)}
    assert_equal(forward(backend, shared, params)["head"], forward(backend, apart, copied)["head"])  # type: ignore[arg-type]


def test_the_order_and_names_of_values_are_the_declared_ones(backend: str) -> None:
    several = small(
        token_mixing=("attention", "gating"),
        pool="cls",
        position_embedding="learned",
        cls_position=False,
        norm="rms",
        norm_place="post",
        layer_scale=0.1,
        representation=True,
        stem="overlap",
    )
    for spec in (several, small(pyramid=(0, 1), share_channel_mixing=True, norm="affine")):
        taps = forward(backend, spec, drawn(spec))
        assert list(taps) == folds.operations(spec, stochastic_depth=False)[2:-1]


# What does not fit


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"token_mixing": ("tied",)}, "model.token_mixing: a list names the mixing of each block; expected 2"),
        ({"token_mixing": "attention", "num_heads": 3}, "model.num_heads: 3 heads do not divide model.hidden_dim 8"),
        ({"token_mixing": "gating", "channels_mlp_dim": 7}, "model.channels_mlp_dim: gating splits it into two halves"),
        ({"token_mixing": "shift", "hidden_dim": 6}, "model.hidden_dim: shift makes four groups of channels"),
        ({"token_mixing": "depthwise", "kernel_size": 4}, "model.kernel_size: expected an odd number"),
        ({"position_embedding": "sincos2d", "hidden_dim": 6}, "model.hidden_dim: sincos2d needs a multiple of 4"),
        ({"pool": "cls", "token_mixing": "pooling"}, "model.pool: a class token has no place in the grid"),
        ({"pool": "cls", "pyramid": (0,)}, "model.pool: the pyramid takes means over neighbours"),
        ({"pool": "cls", "position_embedding": "sincos2d"}, "model.cls_position: sincos2d has positions of patches"),
        ({"pyramid": (2,)}, "model.pyramid: expected numbers of blocks from 0 to 1, each once, got [2]"),
        ({"pyramid": (1, 1)}, "model.pyramid: expected numbers of blocks from 0 to 1, each once, got [1, 1]"),
        ({"patch_size": 4, "pyramid": (0, 1)}, "model.pyramid: 2 blocks halve the grid's side, and 2^2 does not"),
        ({"pyramid": (0,), "token_mixing": "attention"}, "model.pyramid: block 0 has model.token_mixing 'attention'"),
        ({"share_token_mixing": True, "token_mixing": ("tied", "linear")}, "model.share_token_mixing: the blocks have"),
        ({"share_blocks": True, "pyramid": (0,)}, "model.share_blocks: the blocks of a pyramid have kernels"),
        (
            {"share_channel_mixing": True, "channel_mixing": "untied", "pyramid": (0,)},
            "model.share_channel_mixing: the blocks of a pyramid have kernels",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    sizes = {"patch_size": 2, "hidden_dim": C, "num_blocks": 2, "channels_mlp_dim": 6}
    config = ModelConfig(**sizes | fields)
    found = list(mixer.faults(mixer.make(config, 8, 2, 3), config))
    assert len(found) == 1 and found[0].startswith(sentence), found


@pytest.mark.parametrize("hidden", [6, 64, 96, 100, 192, 768])
def test_heads_that_are_left_out_divide_the_channels(hidden: int) -> None:
    config = ModelConfig(token_mixing="attention", hidden_dim=hidden)
    spec = mixer.make(config, 8, 2, 3)
    assert hidden % spec.num_heads == 0 and family_of(spec) is mixer
    assert spec.num_heads == max(1, hidden // 64) or hidden in (96, 100)


def test_the_plain_words_of_a_class_token_without_a_position_fit_each_other() -> None:
    for position in ("learned", "sincos2d"):
        spec = small(pool="cls", position_embedding=position, cls_position=False)
        assert mixer.plain(spec).cls_position is False and not list(mixer.faults(mixer.plain(spec), ModelConfig()))


def test_a_model_is_no_mixer_of_a_published_size_by_its_size_alone() -> None:
    sizes = {"patch_size": 32, "hidden_dim": 512, "num_blocks": 8}
    named = {
        operator: mixer.variant_of(mixer.make(ModelConfig(token_mixing=operator, **sizes), 224, 3, 10))
        for operator in ("tied", "untied", "attention", "linear", "pooling")
    }
    assert named == {"tied": "S/32", "untied": "S/32", "attention": None, "linear": None, "pooling": None}
