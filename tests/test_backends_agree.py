"""Every backend computes what a plain NumPy Mixer computes, and all follow one trajectory, with regularisation on.

The reference below is written for reading and for nothing else: no code of the backends, float64, loops where they
say it best. It covers every option of the model and of a training step but the gradient; gradients are held together
by the trajectories, by finite differences of the reference, and by test_official_fixture.py.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import erf, expit, log_softmax

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset, Program, StepMetrics
from backends.models import folds
from backends.models.mixer_spec import MixerSpec
from backends.plan import StepPlan
from backends.specs import RunSpec
from experiments import data
from experiments.data import Splits
from experiments.spec.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial
from experiments.training.plan import step_plan
from experiments.training.start import initial_state

SOURCE = {"source": "synthetic", "num_examples": 80, "image_size": 12, "image_channels": 3, "num_classes": 5}
AUGMENT = {"flip": True, "crop": 2, "mixup": 0.4}
# 9 tokens, 16 channels, 10 and 24 hidden units: no two sizes are equal, so that no transposition can hide.
MODEL = {"patch_size": 4, "hidden_dim": 16, "num_blocks": 2, "tokens_mlp_dim": 10, "channels_mlp_dim": 24}
CHANCE = {"dropout": 0.1, "stochastic_depth": 0.3}
TRAIN = {"batch_size": 16, "steps": 100, "learning_rate": 3e-3, "warmup_steps": 5, "weight_decay": 0.1}
STEPS = 12  # of the trajectory of each option

# Option: (model, train, data), each on top of the above.
Changes = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
# Each compiles once in JAX, in seconds; so options that do not meet in the code go together.
OPTIONS: dict[str, Changes] = {
    "tied": ({}, {}, {}),
    "rescale": ({"rescale": True, "stochastic_depth": 0.5}, {}, {}),
    "untied, sgd": ({"token_mixing": "untied"}, {"optimizer": "sgd", "learning_rate": 0.05}, {}),
    "grouped, nesterov": (
        {"token_mixing": "grouped", "token_groups": 2},
        {"optimizer": "sgd", "nesterov": True, "learning_rate": 0.05, "clip_norm": 0.0},
        {},
    ),
    "grouped_views, sigmoid": ({"token_mixing": "grouped_views", "token_groups": 4}, {"loss": "sigmoid"}, {}),
    "one view, relu, norms": (
        {
            "token_mixing": "grouped_views",
            "token_groups": 1,
            "activation": "relu",
            "norm_epsilon": 0.1,
            "pre_head_norm": False,
        },
        {},
        {},
    ),
    "channels untied, gelu, ema, smoothing": (
        {"channel_mixing": "untied", "activation": "gelu"},
        {"ema_decay": 0.9, "label_smoothing": 0.1},
        {},
    ),
    "pooling": ({"token_mixing": "pooling"}, {}, {}),
    "identity": ({"token_mixing": "identity"}, {}, {}),
    "share_blocks, decay all": ({"share_blocks": True}, {"decay": "all", "weight_decay": 1.0}, {}),
    "position_embedding, patches": ({"position_embedding": "learned"}, {}, {"permutation": "patches"}),
    "position_embedding, pixels": ({"position_embedding": "learned"}, {}, {"permutation": "pixels"}),
}

# One forward pass in float64, logits of order 1: the order of sums is all that differs. Seen: 2e-15.
FORWARD_TOLERANCE = 1e-12
# 12 or 100 steps in float64, losses relative, states relative to the largest element of each tensor. AdamW divides by
# sqrt(v) + 1e-8, so rounding grows where a gradient is small. Seen: losses 9e-16, states 2e-14.
STEPS_TOLERANCE = 1e-10
# 100 steps in float32, relative loss: the rounding of 6e-8 grows as the above does. Seen: 1.3e-6.
FLOAT32_TOLERANCE = 1e-4
# Central differences of step 1e-5: 1e-10 of truncation and 1e-16 / 1e-5 of cancellation, relative to the loss. Seen:
# 5e-11, of slopes up to 0.4.
SLOPE_TOLERANCE = 1e-7
SLOPE_STEP = 1e-5
NOTHING = 1e-10  # of the largest number of a group


class Case:
    """A trial of an option, its data, and programs of it."""

    def __init__(self, option: str, cache: Path, precision: str = "float64", seed: int = 3, **model: Any):
        changes = OPTIONS[option]
        source = DataConfig(**SOURCE | changes[2], augment=AugmentConfig(**AUGMENT))
        train = TrainConfig(**TRAIN | changes[1], precision=precision)
        config = TrialConfig(ModelConfig(**MODEL | CHANCE | changes[0] | model), source, train, seed=seed)
        self.trial: Trial = resolve(config, data.describe(source, cache, "test"), "test")
        self.splits: Splits = data.load(self.trial.data, self.trial.info, cache)
        model_spec = self.trial.model
        self.order = data.pixel_order(source.permutation, model_spec.image_size, model_spec.patch_size, 0)
        self.dataset = ArrayDataset(np.asarray(self.splits.images), np.asarray(self.splits.labels), self.order)

    def open(self, backend: str) -> Program:
        run = RunSpec(precision=self.trial.train.precision)
        return backends.load(backend).open(self.trial.model, self.trial.optimizer, self.dataset, run)

    def plan(self, first: int, num: int) -> StepPlan:
        return step_plan(self.trial, self.splits.train, first, num)

    def train(self, backend: str, num: int) -> tuple[StepMetrics, State]:
        program = self.open(backend)
        program.load([initial_state(self.trial)])
        return program.train([self.plan(0, num)])[0], program.states()[0]

    def random_state(self) -> State:
        """A state of which no part is zero or one, so that each is seen in the logits."""
        state = initial_state(self.trial)
        generator = np.random.default_rng(5)
        drawn = {name: x + generator.normal(0, 0.2, x.shape) for name, x in state.items() if name.startswith("params/")}
        averages = {name.replace("params/", "average/"): x for name, x in drawn.items()}
        return state | drawn | {name: x for name, x in averages.items() if name in state}


@pytest.fixture(scope="module", params=OPTIONS)
def case(request: pytest.FixtureRequest, cache: Path) -> Iterator[Case]:
    yield Case(request.param, cache)


# The reference


def dropout_mask(shape: tuple[int, ...], site: int, key: int, rate: float) -> Array:
    """Factors of the elements, by the text of dropout.py, in Python's whole numbers."""

    kept = [dropout_element(i, site, key, rate) / (1 - rate) for i in range(math.prod(shape))]
    return np.array(kept).reshape(shape)


def dropout_element(element: int, site: int, key: int, rate: float) -> bool:
    """Whether an element is kept."""
    x = (element * 0x9E3779B9 + key + site * 0x85EBCA6B) % 2**32
    x = (x ^ x >> 16) * 0x21F0AAAD % 2**32
    x = (x ^ x >> 15) * 0xD35A2D97 % 2**32
    x = x ^ x >> 15
    return x >> 8 >= round(rate * 2**24)


Masks = Callable[[tuple[int, ...], int], Array]  # (shape of an activation, site) -> factors


def no_masks(shape: tuple[int, ...], site: int) -> Array:
    return np.ones(shape)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
}


def normalised(x: Array, params: State, name: str, epsilon: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * params[f"{name}/scale"] + params[f"{name}/bias"]


def copies(params: State, name: str, num: int, untied: bool) -> list[tuple[Array, Array]]:
    """(kernel, bias) of each of `num` channels or tokens."""
    kernel, bias = params[f"{name}/kernel"], params[f"{name}/bias"]
    return list(zip(kernel, bias, strict=True)) if untied else [(kernel, bias)] * num


def mix_columns(x_bnm: Array, spec: MixerSpec, params: State, name: str, masks: Masks, site: int) -> Array:
    """The token-mixing MLP on each column: (b, rows, columns) -> the same shape."""
    for layer in range(2):
        weights = copies(params, f"{name}/Dense_{layer}", x_bnm.shape[2], spec.token_mixing == "untied")
        x_bnm = np.stack([x_bnm[:, :, j] @ kernel + bias for j, (kernel, bias) in enumerate(weights)], 2)
        x_bnm = ACTIVATIONS[spec.activation](x_bnm) if layer == 0 else x_bnm
        x_bnm = x_bnm * masks(x_bnm.shape, site + layer)
    return x_bnm


def pooled(x_bsc: Array) -> Array:
    """The mean of each token's neighbours on the grid and itself, minus itself."""
    side = math.isqrt(x_bsc.shape[1])
    out = np.empty_like(x_bsc)
    for row in range(side):
        for column in range(side):
            rows, columns = (range(max(0, at - 1), min(side, at + 2)) for at in (row, column))
            around = [x_bsc[:, r * side + c] for r in rows for c in columns]
            out[:, row * side + column] = sum(around) / len(around) - x_bsc[:, row * side + column]
    return out


WITHOUT_MLP: dict[str, Callable[[Array], Array]] = {"pooling": pooled, "identity": lambda x_bsc: x_bsc}


def token_mixing(x_bsc: Array, spec: MixerSpec, params: State, name: str, masks: Masks, site: int) -> Array:
    """Row s * G + g of column j is channel j * G + g of token s."""
    if spec.token_mixing in WITHOUT_MLP:
        return WITHOUT_MLP[spec.token_mixing](x_bsc)
    b, num_tokens, num_channels = x_bsc.shape
    groups = spec.token_groups
    if spec.token_mixing == "grouped_views":
        x_bsc = np.einsum("bsc,cd->bsd", x_bsc, params[f"{name}/views/kernel"])
    rows = np.empty((b, num_tokens * groups, num_channels // groups))
    for s in range(num_tokens):
        for channel in range(num_channels):
            rows[:, s * groups + channel % groups, channel // groups] = x_bsc[:, s, channel]
    mixed = mix_columns(rows, spec, params, name, masks, site)
    out = np.empty_like(x_bsc)
    for s in range(num_tokens):
        for channel in range(num_channels):
            out[:, s, channel] = mixed[:, s * groups + channel % groups, channel // groups]
    return out


def channel_mixing(x_bsc: Array, spec: MixerSpec, params: State, name: str, masks: Masks, site: int) -> Array:
    for layer in range(2):
        weights = copies(params, f"{name}/Dense_{layer}", x_bsc.shape[1], spec.channel_mixing == "untied")
        x_bsc = np.stack([x_bsc[:, s] @ kernel + bias for s, (kernel, bias) in enumerate(weights)], 1)
        x_bsc = ACTIVATIONS[spec.activation](x_bsc) if layer == 0 else x_bsc
        x_bsc = x_bsc * masks(x_bsc.shape, site + layer)
    return x_bsc


def reference_logits(
    images: Array, spec: MixerSpec, params: State, masks: Masks = no_masks, scales: Array | None = None
) -> Array:
    """Logits (b, k) of images (b, h, w, channels).  Args: scales: (2 num_blocks, b), of the branches."""
    scales = np.ones((2 * spec.num_blocks, len(images))) if scales is None else scales
    tokens, size = [], spec.patch_size
    for row in range(0, spec.image_size, size):
        for column in range(0, spec.image_size, size):
            patch = images[:, row : row + size, column : column + size]
            tokens.append(np.einsum("bhwi,hwic->bc", patch, params["stem/kernel"]) + params["stem/bias"])
    x_bsc = np.stack(tokens, 1)
    if spec.position_embedding == "learned":
        x_bsc = x_bsc + params["position_embedding"]
    site = 0
    for i in range(spec.num_blocks):
        block = f"MixerBlock_{0 if spec.share_blocks else i}"
        for j, mix in enumerate((token_mixing, channel_mixing)):
            y_bsc = normalised(x_bsc, params, f"{block}/LayerNorm_{j}", spec.norm_epsilon)
            y_bsc = mix(y_bsc, spec, params, f"{block}/{mix.__name__}", masks, site)
            site += 0 if mix is token_mixing and spec.token_mixing in WITHOUT_MLP else 2
            x_bsc = x_bsc + y_bsc * scales[2 * i + j][:, None, None]
    if spec.pre_head_norm:
        x_bsc = normalised(x_bsc, params, "pre_head_layer_norm", spec.norm_epsilon)
    return np.asarray(x_bsc.mean(1) @ params["head/kernel"] + params["head/bias"])


def augmented(images: Array, order: Array | None, flips: Array | None, crops: Array | None) -> Array:
    """uint8 images after mirroring, moving over black, and the input permutation, one after the other."""
    out = []
    side = images.shape[1]
    for i, image in enumerate(images):
        image = image[:, ::-1] if flips is not None and flips[i] else image
        if crops is not None:
            down, right = crops[i]
            room = np.pad(image, ((side, side), (side, side), (0, 0)))
            image = room[side + down : 2 * side + down, side + right : 2 * side + right]
        out.append(image if order is None else image.reshape(side * side, -1)[order].reshape(image.shape))
    return np.stack(out)


def scaled(images: Array) -> Array:
    return images.astype(float) / 255 * 2 - 1


def reference_loss(case: Case, params: State, plan: StepPlan) -> float:
    """Loss of the plan's first step."""
    trial, examples = case.trial, plan.examples[0]
    crops, flips, partners, weights = plan.crops, plan.flips, plan.mixup_partners, plan.mixup_weights
    assert crops is not None and flips is not None and partners is not None and weights is not None
    assert plan.dropout_keys is not None and plan.branch_scales is not None and plan.dropout_rate is not None
    images = scaled(augmented(np.asarray(case.splits.images)[examples], case.order, flips[0], crops[0]))
    smoothing, num_classes = trial.train.label_smoothing, trial.model.num_classes
    targets = np.eye(num_classes)[case.splits.labels[examples]] * (1 - smoothing) + smoothing / num_classes
    images, targets = (weights[0] * x + (1 - weights[0]) * x[partners[0]] for x in (images, targets))
    key, rate = int(plan.dropout_keys[0]), plan.dropout_rate
    logits = reference_logits(
        images, trial.model, params, lambda shape, site: dropout_mask(shape, site, key, rate), plan.branch_scales[0]
    )
    if trial.train.loss == "softmax":
        return float(-(targets * log_softmax(logits, axis=1)).sum(1).mean())
    likelihood = targets * np.log(expit(logits)) + (1 - targets) * np.log(expit(-logits))
    return float(-likelihood.sum(1).mean())


def params_of(state: State) -> State:
    return {name.removeprefix("params/"): x for name, x in state.items() if name.startswith("params/")}


# One forward pass


@pytest.mark.parametrize("backend", backends.names())
def test_logits_are_those_of_the_reference(case: Case, backend: str) -> None:
    """Neither dropout nor stochastic depth acts, though both are on in training."""
    program, state = case.open(backend), case.random_state()
    program.load([state])
    images = np.array(case.splits.images[:7])
    expected = reference_logits(scaled(augmented(images, case.order, None, None)), case.trial.model, params_of(state))
    predictions = program.predict(images)[0]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(predictions.logits, expected, rtol=0, atol=FORWARD_TOLERANCE)
    head = predictions.features @ state["params/head/kernel"] + state["params/head/bias"]
    np.testing.assert_allclose(head, expected, rtol=0, atol=FORWARD_TOLERANCE)


@pytest.mark.parametrize("backend", backends.names())
def test_loss_of_a_step_is_that_of_the_reference(case: Case, backend: str) -> None:
    """Crop, flip, permutation, mixup, smoothing, dropout and stochastic depth, each where and as it should act."""
    program, state, plan = case.open(backend), case.random_state(), case.plan(3, 1)
    program.load([state])
    expected = reference_loss(case, params_of(state), plan)
    assert program.train([plan])[0].loss[0] == pytest.approx(expected, abs=FORWARD_TOLERANCE)


@pytest.mark.parametrize("backend", backends.names())
@pytest.mark.parametrize("option", ["grouped_views, sigmoid"])
def test_gradients_are_slopes_of_the_reference(option: str, backend: str, cache: Path) -> None:
    case = Case(option, cache)
    program, state, plan = case.open(backend), case.random_state(), case.plan(3, 1)
    program.load([state])
    params, gradients = params_of(state), program.gradients([plan])[0]
    generator = np.random.default_rng(1)
    for name, gradient in gradients.items():
        direction = generator.normal(size=gradient.shape)
        direction /= np.linalg.norm(direction)
        ends = [
            reference_loss(case, params | {name: params[name] + s * direction}, plan) for s in (-SLOPE_STEP, SLOPE_STEP)
        ]
        slope = (ends[1] - ends[0]) / (2 * SLOPE_STEP)
        assert np.sum(gradient * direction) == pytest.approx(slope, abs=SLOPE_TOLERANCE), name


@pytest.mark.parametrize("backend", backends.names())
def test_predictions_are_those_of_the_average(backend: str, cache: Path) -> None:
    case = Case("channels untied, gelu, ema, smoothing", cache)
    state, images = case.random_state(), np.array(case.splits.images[:7])
    moved = {name: 2 * x if name.startswith("params/") else x for name, x in state.items()}
    logits = []
    for each in (state, moved):
        program = case.open(backend)
        program.load([each])
        logits.append(program.predict(images)[0].logits)
    np.testing.assert_array_equal(*logits)


# Models that are equal by construction


def spread(state: State, spec: MixerSpec) -> State:
    """Parameters of a tied model as those of a model with copies: each copy gets the same weights."""
    params = params_of(state)
    return {f"params/{name}": np.broadcast_to(params[name], shape) for name, shape in folds.shapes(spec).items()}


def unshared(state: State, spec: MixerSpec) -> State:
    """Parameters of shared blocks as those of a model with a set of weights for each block."""
    source = {name: f"MixerBlock_0/{name.partition('/')[2]}" for name in folds.shapes(spec) if "Mixer" in name}
    return {f"params/{name}": state[f"params/{source.get(name, name)}"] for name in folds.shapes(spec)}


def with_unit_views(state: State, spec: MixerSpec) -> State:
    """Parameters of a grouped model as those of one with learned views, each view the channels as they are."""
    units = {f"params/{name}": np.eye(spec.hidden_dim) for name in folds.shapes(spec) if "views" in name}
    return {name: x for name, x in state.items() if name.startswith("params/")} | units


EQUAL_MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[State, MixerSpec], State]]] = {
    "untied tokens": ({}, {"token_mixing": "untied"}, spread),
    "untied channels": ({}, {"channel_mixing": "untied"}, spread),
    "one group": ({}, {"token_mixing": "grouped", "token_groups": 1}, spread),
    "shared blocks": ({"share_blocks": True}, {}, unshared),
    "unit views": (
        {"token_mixing": "grouped", "token_groups": 2},
        {"token_mixing": "grouped_views", "token_groups": 2},
        with_unit_views,
    ),
}


@pytest.mark.parametrize("backend", backends.names())
@pytest.mark.parametrize("name", EQUAL_MODELS)
def test_equal_weights_give_equal_logits(name: str, backend: str, cache: Path) -> None:
    plain, other, convert = EQUAL_MODELS[name]
    one, two = Case("tied", cache, **plain), Case("tied", cache, **other)
    state, images = one.random_state(), np.array(one.splits.images[:7])
    assert name == "one group" or folds.shapes(one.trial.model) != folds.shapes(two.trial.model)
    converted = initial_state(two.trial) | convert(state, two.trial.model)
    logits = []
    for each, values in ((one, state), (two, converted)):
        program = each.open(backend)
        program.load([values])
        logits.append(program.predict(images)[0].logits)
    np.testing.assert_allclose(*logits, rtol=0, atol=FORWARD_TOLERANCE)


# Chance


def backend_dropout(backend: str, x: Array, site: int, key: int, rate: float) -> Array:
    """The backend's own dropout; a new backend has to be added here."""
    sites = tuple(f"site {number}" for number in range(site + 1))
    if backend == "jax":
        import jax.numpy as jnp

        from backends.jax import layers as jax_layers

        numbers = jax_layers.Dropout(jnp.uint32(round(rate * 2**24)), jnp.asarray(1 / (1 - rate), x.dtype))
        chance = jax_layers.Chance(sites, dropout_key=jnp.uint32(key), dropout=numbers)
        return np.asarray(jax_layers.dropout(jnp.asarray(x), sites[site], chance))
    assert backend == "torch"
    import torch

    from backends.torch import layers as torch_layers

    key_bits = torch.from_numpy(np.array(key, np.uint32).view(np.int32))
    chance = torch_layers.Chance(sites, dropout_key=key_bits, dropout_rate=rate)
    return torch_layers.dropout(torch.from_numpy(x), sites[site], chance).numpy()


@pytest.mark.parametrize("backend", backends.names())
@pytest.mark.parametrize("key", [0, 12345, 2**31 - 1, 2**31, 0xDEADBEEF, 2**32 - 1])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_masks_equal_the_hash_bit_for_bit(backend: str, key: int, rate: float) -> None:
    backends.load(backend)
    shape = (5, 7, 11)
    for site in (0, 4 * 31 + 3):
        mask = dropout_mask(shape, site, key, rate)
        np.testing.assert_array_equal(backend_dropout(backend, np.ones(shape), site, key, rate), mask)
        single = backend_dropout(backend, np.ones(shape, np.float32), site, key, rate)
        np.testing.assert_array_equal(single, mask.astype(np.float32))


def test_a_mask_is_the_same_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.torch import layers

    mask = dropout_mask((5, 7, 11), 3, 12345, 0.1)
    for size in (1, 12, 384, 385, 386):
        monkeypatch.setattr(layers, "PART", size)
        np.testing.assert_array_equal(backend_dropout("torch", np.ones(mask.shape), 3, 12345, 0.1), mask)


@pytest.mark.parametrize("first", [2**31 - 3, 2**32 - 3, 2**40 + 5])
def test_elements_beyond_31_bits_are_counted_on(first: int) -> None:
    """An activation may have more than 2^31 elements; the hash counts them modulo 2^32."""
    import torch

    from backends.dropout import ELEMENT, SITE
    from backends.torch import layers

    key = torch.tensor(12345, dtype=torch.int32)
    kept = layers._is_kept_from(3 * SITE + first * ELEMENT, 6, key, layers.Chance(dropout_rate=0.5))
    np.testing.assert_array_equal(kept.numpy(), [dropout_element(first + i, 3, 12345, 0.5) for i in range(6)])


def test_dropout_keeps_a_byte_an_element_for_the_gradient() -> None:
    import torch

    from backends.torch import layers

    chance = layers.Chance(("a",), dropout_key=torch.tensor(1, dtype=torch.int32), dropout_rate=0.5)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes), lambda x: x):
        layers.dropout(torch.ones(1000, requires_grad=True), "a", chance)
    assert 1000 <= sum(kept) < 1010


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_hash_drops_at_its_rate_and_each_site_its_own(rate: float) -> None:
    num = 40_000
    kept = [dropout_mask((num,), site, 0xDEADBEEF, rate) > 0 for site in (0, 1)]
    deviation = math.sqrt(rate * (1 - rate) / num)
    assert all(abs(mask.mean() - (1 - rate)) < 4 * deviation for mask in kept)
    assert abs(np.corrcoef(*kept)[0, 1]) < 4 / math.sqrt(num)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_masks_of_all_sites_are_different(option: str, cache: Path) -> None:
    """A site's number is its place: two of one name would have one mask."""
    sites = folds.dropout_sites(Case(option, cache).trial.model)
    assert sites and len(set(sites)) == len(sites)


def test_a_site_has_the_number_that_it_always_had(cache: Path) -> None:
    """4 i + 2 j + k: block i, token or channel mixing j, layer k. Another number would be another mask under an id."""
    model = Case("share_blocks, decay all", cache).trial.model
    sites = [
        f"MixerBlock_{i}/{mixing}/dropout_{k}"
        for i in range(model.num_blocks)
        for mixing in ("token_mixing", "channel_mixing")
        for k in range(2)
    ]
    assert list(folds.dropout_sites(model)) == sites


def backend_pixels(backend: str, dataset: ArrayDataset, step: dict[str, Array]) -> Array:
    """What the backend's gather makes of one step; a new backend has to be added here."""
    if backend == "jax":
        import jax
        import jax.numpy as jnp

        from backends.jax import augment as jax_batch
        from backends.jax import device

        arrays = device.place(dataset, jax.devices("cpu")[0])
        return np.asarray(jax_batch.gather(arrays, {name: jnp.asarray(x) for name, x in step.items()}))
    assert backend == "torch"
    import torch

    from backends.torch import augment as torch_batch

    pixels = dataset.images.reshape(len(dataset.images), -1, dataset.images.shape[-1])
    order = None if dataset.pixel_order is None else torch.tensor(dataset.pixel_order).long()
    arrays = torch_batch.Data(torch.tensor(pixels), torch.tensor(dataset.labels), order)
    return torch_batch.gather(arrays, {name: torch.tensor(x) for name, x in step.items()}).numpy()


@pytest.mark.parametrize("backend", backends.names())
@pytest.mark.parametrize("option", ["tied", "position_embedding, patches", "position_embedding, pixels"])
@pytest.mark.parametrize("parts", [(), ("flips",), ("crops",), ("crops", "flips")])
def test_pixels_of_a_batch_are_exact(backend: str, option: str, parts: tuple[str, ...], cache: Path) -> None:
    case = Case(option, cache)
    plan = case.plan(0, 1).arrays()
    step = {name: plan[name][0] for name in ("examples", *parts)}
    images = np.asarray(case.splits.images)[step["examples"]]
    assert not parts or step["flips" if "flips" in parts else "crops"].any()
    expected = augmented(images, case.order, step.get("flips"), step.get("crops"))
    pixels = backend_pixels(backend, case.dataset, step)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.reshape(images.shape), expected)


# Trajectories


def largest_difference(one: State, two: State) -> float:
    """Over all tensors, relative to each tensor's largest element.

    A tensor that is nothing beside the others of its group on both sides is the rounding of a zero, such as the
    gradient of the bias in front of pooling, which takes a constant away from itself.
    """
    assert set(one) == set(two)
    differences, most = [], dict[str, float]()
    for name in one:
        group = name.partition("/")[0]
        most[group] = max(most.get(group, 0.0), size(one[name]), size(two[name]))
    for name in one:
        assert one[name].shape == two[name].shape, name
        if max(size(one[name]), size(two[name])) > NOTHING * most[name.partition("/")[0]]:
            differences.append(size(one[name] - two[name]) / size(two[name]))
    return float(max(differences))


def size(array: Array) -> float:
    return float(np.abs(array).max())


def assert_same_trajectory(case: Case, num: int, tolerance: float) -> None:
    """Loss and gradient norm at every step, and every tensor of the state after the last."""
    reference, *others = backends.names()
    metrics, state = case.train(reference, num)
    assert np.isfinite(metrics.loss).all() and len(metrics.loss) == num
    for backend in others:
        other_metrics, other_state = case.train(backend, num)
        np.testing.assert_allclose(other_metrics.loss, metrics.loss, rtol=tolerance, atol=0)
        np.testing.assert_allclose(other_metrics.gradient_norm, metrics.gradient_norm, rtol=tolerance, atol=0)
        assert largest_difference(other_state, state) < tolerance


def test_backends_follow_one_trajectory(case: Case) -> None:
    assert_same_trajectory(case, STEPS, STEPS_TOLERANCE)


def test_backends_follow_one_trajectory_for_100_steps(cache: Path) -> None:
    case = Case("tied", cache)
    assert_same_trajectory(case, 100, STEPS_TOLERANCE)
    losses = case.train("torch", 100)[0].loss
    assert losses[-10:].mean() < losses[:10].mean()  # something was learned, so the gradients mattered


def test_float32_losses_agree_at_each_of_100_steps(cache: Path) -> None:
    case = Case("tied", cache, precision="float32")
    reference, *others = (case.train(backend, 100)[0].loss for backend in backends.names())
    for losses in others:
        np.testing.assert_allclose(losses, reference, rtol=FLOAT32_TOLERANCE, atol=0)


def test_a_changed_plan_changes_the_trajectory(cache: Path) -> None:
    """The comparison would see each part of the plan: the smallest change of any moves the losses."""
    case = Case("tied", cache)
    plan = case.plan(0, 3)
    for name, array in plan.arrays().items():
        changed = array.copy()
        changed[0] = ~array[0] if array.dtype == bool else np.roll(array[0], 1) if array[0].ndim else array[0] / 2
        program = case.open("torch")
        program.load([case.random_state()])
        before = program.train([plan])[0].loss
        program.load([case.random_state()])
        after = program.train([dataclasses.replace(plan, **{name: changed})])[0].loss
        assert not np.allclose(before, after, rtol=1e-6), name


# bfloat16


def rounding_bound(spec: MixerSpec) -> float:
    """Worst relative error of the logits against float32, to first order: one half unit for each rounding.

    A block rounds, in each MLP: the normalised input, two kernels, two products, two sums with a bias, the
    activation, and the sum with the residual. The stem rounds pixels, kernel, product and sum; mean, norm and head
    are in float32. bfloat16 has 8 bits, so a rounding is at most 2^-9 of the number. Seen: 0.013
    under a bound of 0.078, as roundings of either sign mostly cancel.
    """
    return (2 * 9 * spec.num_blocks + 4) * 2.0**-9


@pytest.mark.parametrize("backend", backends.names())
def test_bfloat16_stays_within_its_rounding_of_float32(backend: str, cache: Path) -> None:
    cases = [Case("tied", cache, precision=precision) for precision in ("float32", "bfloat16")]
    logits, losses = [], []
    for case in cases:
        program = case.open(backend)
        program.load([case.random_state()])
        logits.append(program.predict(np.array(case.splits.images[:32]))[0].logits)
        losses.append(program.train([case.plan(0, STEPS)])[0].loss)
    assert logits[1].dtype == np.float32
    error = np.abs(logits[1] - logits[0]).max() / np.abs(logits[0]).max()
    assert 2.0**-12 < error < rounding_bound(cases[0].trial.model)  # not float32 under another name
    np.testing.assert_allclose(losses[1], losses[0], rtol=rounding_bound(cases[0].trial.model))
