"""A training step and a forward pass, against the machine's matrix ceiling and against other people's code."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import backends
from backends.bench import PeerInfo, Peers
from backends.errors import BackendMissing, MixlabError, choices
from backends.models import folds
from backends.models.mixer_spec import MixerOptions
from backends.specs import OptimizerSpec
from experiments.bench.limit import product_flops
from experiments.bench.rounds import Running, Spread, ratios, running, take_turns
from experiments.bench.side import PREDICT, PRODUCT, TRAIN, Side, mixer_of
from experiments.design.ablation import COMMAND_LINE
from experiments.spec.trial import Trial, as_tree

TURN_S = 1.0
CEILING_ROWS = 2048
GPU_CEILING_ROWS = 8192
Seconds = dict[str, list[list[float]]]  # by kind of work: those of each side, by round
Tops = dict[str, dict[str, list[float]]]  # by kind of work and precision: GFLOP/s of the fastest product, by round
# Options of a model that need not be those of a peer: they change no time, or act where another is not its default.
FREE = ("activation", "norm_epsilon", "init", "rescale", "cls_position", "kernel_size")
MODEL_OPTIONS = tuple(one.name for one in fields(MixerOptions) if one.name not in FREE)
TRAIN_OPTIONS = ("optimizer", "clip_norm", "loss", "label_smoothing", "ema_decay")
FLOPS_PER_MAC = {TRAIN: 6, PREDICT: 2}


@dataclass(frozen=True)
class Measurement:
    """The figures of one side; `images_per_s` and the others by kind of work: train, predict."""

    label: str
    images_per_s: dict[str, Spread]
    gflops: dict[str, Spread]
    share: dict[str, Spread]  # of the matrix ceiling, measured in the same rounds
    against: str  # the label of the side that it is compared with: of its backend, where it has a setting of its own
    relative: dict[str, Spread]  # how many times as long as that side it takes for an image
    first_step_s: float  # from the import of the framework to the end of the first step, compilation included
    spec: dict[str, Any]
    about: dict[str, Any]  # `peak_memory_bytes`: of the process, training and inference


def peers() -> dict[str, tuple[str, PeerInfo]]:
    """Backend and description of every peer, by its name, of the backends that are installed."""
    return {peer: (name, info) for name, module in _modules().items() for peer, info in module.PEERS.items()}


def _modules() -> dict[str, Peers]:
    """The peers of the backends that are installed, by name."""
    modules: dict[str, Peers] = {}
    for name in backends.names():
        with contextlib.suppress(BackendMissing):
            modules[name] = backends.load_peers(name)
    return modules


def sides(
    trial: Trial,
    ours: Sequence[str],
    peer_names: Sequence[str] = (),
    peer_path: Path | None = None,
    others: Mapping[str, Trial] | None = None,
    num_replicas: int = 1,
) -> list[Side]:
    """The sides: our backends, each with other settings too, then the peers; all have the activation of the peers.

    Args:   others: the same model with other settings, by what to call it.
            num_replicas: where it is more than one, each backend is a side with so many trials as one program too.
    Raises: MixlabError: an unknown peer, peers of different activations, or a trial that a peer has no form of.
    """
    available = peers() if peer_names else {}
    if unknown := [name for name in peer_names if name not in available]:
        raise MixlabError(
            f"{COMMAND_LINE}: --peer: expected a peer, got {unknown[0]!r}; {choices(unknown[0], available)}"
        )
    activations = {available[name][1].activation for name in peer_names}
    if len(activations) > 1:
        raise MixlabError(
            f"{COMMAND_LINE}: --peer: {' and '.join(peer_names)} have different activations; measure them one by one"
        )
    others = dict(others or {})
    if activations:
        activation, own = activations.pop(), mixer_of(trial).activation
        for setting, other in others.items():
            if mixer_of(other).activation == own:
                others[setting] = replace(other, model=replace(mixer_of(other), activation=activation))
        trial = replace(trial, model=replace(mixer_of(trial), activation=activation))
        for name in peer_names:
            _check_plain(trial, name, available[name][1])
    compared = [Side(name, replace(trial, backend=name)) for name in ours]
    if num_replicas > 1:
        compared += [replace(one, setting=f"{num_replicas} replicas", replicas=num_replicas) for one in compared]
    for setting, other in others.items():
        compared += [Side(name, replace(other, backend=name), setting=setting) for name in ours]
    compared += [Side(available[name][0], trial, name, peer_path=peer_path) for name in peer_names]
    return compared


def _check_plain(trial: Trial, peer: str, info: PeerInfo) -> None:
    """Check that a trial is what a peer computes. Raises: MixlabError: names a field that the peer has otherwise."""
    augment = trial.data.augment
    for section, spec, default, names in (
        ("model", trial.model, replace(MixerOptions(), **info.options), MODEL_OPTIONS),  # type: ignore[arg-type]
        ("train", trial.optimizer, OptimizerSpec(clip_norm=0.0), TRAIN_OPTIONS),
        ("data.augment", augment, type(augment)(), [field.name for field in fields(augment)]),
    ):
        for name in names:
            if getattr(spec, name) != getattr(default, name):
                raise MixlabError(
                    f"bench: --peer: {peer} has no {section}.{name}={getattr(spec, name)}, only "
                    f"{getattr(default, name)}; leave one of the two out"
                )


def measure(
    compared: Sequence[Side], num_rounds: int, say: Callable[[str], None] = lambda text: None
) -> list[Measurement]:
    """Let the sides take turns, matrix products of their precisions among them."""
    seconds: Seconds = {}
    tops: Tops = {}
    firsts: list[float] = []
    with running(compared) as started, contextlib.ExitStack() as stack:
        products = _products(compared, started[0].about()["device"] == "cpu")
        ceilings = stack.enter_context(running(products))
        for one in started:
            say(f"{one.side.label}: first step")
            firsts.append(one.seconds(TRAIN, 1) + one.open_s)
            one.seconds(PREDICT, 1)
        for work in (TRAIN, PREDICT):
            say(f"{work}: {num_rounds} rounds of {len(ceilings) + len(started)} turns")
            works: list[tuple[Running, str]] = [
                *((one, PRODUCT) for one in ceilings),
                *((one, work) for one in started),
            ]
            turns = take_turns(works, num_rounds, TURN_S)
            tops[work] = _fastest(products, turns[: len(products)])
            seconds[work] = turns[len(products) :]
        abouts = [one.about() for one in started]
    return [
        _measurement(compared, i, seconds, tops, first_s, about)
        for i, (first_s, about) in enumerate(zip(firsts, abouts, strict=True))
    ]


def _products(compared: Sequence[Side], is_cpu: bool) -> list[Side]:
    """A matrix product for each precision: by each framework on a CPU, which differ there, else by those compared."""
    trial, rows = compared[0].trial, CEILING_ROWS if is_cpu else GPU_CEILING_ROWS
    names = _modules() if is_cpu else {side.backend for side in compared}
    return [
        Side(name, replace(trial, backend=name, train=replace(trial.train, precision=precision)), PRODUCT, rows)
        for precision in {side.trial.train.precision for side in compared}
        for name in names
    ]


def _measurement(
    compared: Sequence[Side], i: int, seconds: Seconds, tops: Tops, first_s: float, about: dict[str, Any]
) -> Measurement:
    """What was measured of the side at place i."""
    side, base = compared[i], _compared_with(compared[i], compared)
    shares = {
        work: [
            _gflop(side, work) / own / top
            for own, top in zip(times[i], tops[work][side.trial.train.precision], strict=True)
        ]
        for work, times in seconds.items()
    }
    return Measurement(
        label=side.label,
        images_per_s=_rates(seconds, i, dict.fromkeys(seconds, side.batch_size)),
        gflops=_rates(seconds, i, {work: _gflop(side, work) for work in seconds}),
        share={work: Spread.of(share) for work, share in shares.items()},
        against=compared[base].label,
        relative={
            work: ratios(_an_image(times[i], side), _an_image(times[base], compared[base]))
            for work, times in seconds.items()
        },
        first_step_s=first_s,
        spec=as_tree(side.trial),
        about=about,
    )


def _fastest(products: Sequence[Side], seconds: Sequence[list[float]]) -> dict[str, list[float]]:
    """The GFLOP/s of the fastest product of each precision, by round."""
    of_precision: dict[str, list[list[float]]] = {}
    for side, own in zip(products, seconds, strict=True):
        rates = [product_flops(side.size) / 1e9 / one for one in own]
        of_precision.setdefault(side.trial.train.precision, []).append(rates)
    return {
        precision: [max(of_round) for of_round in zip(*rates, strict=True)] for precision, rates in of_precision.items()
    }


def _compared_with(side: Side, compared: Sequence[Side]) -> int:
    """The place of the side to compare with: the first; for a side with a setting, its backend without it."""
    if side.setting:
        return next(i for i, one in enumerate(compared) if one.backend == side.backend and not one.setting)
    return 0


def _rates(seconds: Seconds, i: int, amounts: Mapping[str, float]) -> dict[str, Spread]:
    """Amounts per second of side i, by kind of work."""
    return {work: Spread.of([amounts[work] / own for own in times[i]]) for work, times in seconds.items()}


def _an_image(seconds: Sequence[float], side: Side) -> list[float]:
    return [one / side.batch_size for one in seconds]


def _gflop(side: Side, work: str) -> float:
    """The GFLOP of one step, or of the forward pass of one batch."""
    return FLOPS_PER_MAC[work] * folds.forward_macs(side.trial.model) * side.batch_size / 1e9
