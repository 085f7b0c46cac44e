"""A training step and a forward pass, against the machine's matrix ceiling and against other people's code."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import backends
from backends import parameters
from backends.contract import Bench, ModelSpec, PeerInfo
from backends.errors import BackendMissing, MixlabError, choices
from experiments.ablation import COMMAND_LINE
from experiments.bench.limit import product_flops
from experiments.bench.rounds import Running, Spread, ratios, running, take_turns
from experiments.bench.side import PREDICT, PRODUCT, TRAIN, Side
from experiments.spec import Trial

TURN_S = 1.0
CEILING_ROWS = 2048
GPU_CEILING_ROWS = 8192
Seconds = dict[str, list[list[float]]]  # by kind of work: those of the matrix product, then of each side, by round
FLOPS_PER_MAC = {TRAIN: 6, PREDICT: 2}


@dataclass(frozen=True)
class Measurement:
    """One side. `images_per_s` and the others by kind of work: train, predict."""

    label: str
    images_per_s: dict[str, Spread]
    gflops: dict[str, Spread]
    share: dict[str, Spread]  # of the matrix ceiling, measured in the same rounds
    speedup: dict[str, Spread]  # of the first side over this one
    first_step_s: float  # all that comes before the second step: imports and compilation too
    about: dict[str, Any]


def peers() -> dict[str, tuple[str, PeerInfo]]:
    """Backend and description of every peer, by its name, of the backends that are installed."""
    return {peer: (name, info) for name, bench in _benches().items() for peer, info in bench.PEERS.items()}


def _benches() -> dict[str, Bench]:
    """Of the backends that are installed, by name."""
    found: dict[str, Bench] = {}
    for name in backends.names():
        with contextlib.suppress(BackendMissing):
            found[name] = backends.load_bench(name)
    return found


def sides(
    trial: Trial,
    ours: Sequence[str],
    peer_names: Sequence[str] = (),
    peer_path: Path | None = None,
    others: Mapping[str, Trial] | None = None,
) -> list[Side]:
    """Our backends, each with other settings too, then the peers, which have the same function: their activation's.

    Args:   others: the same model with other settings, by what to call it.
    Raises: MixlabError: an unknown peer, peers of different activations, or a model that a peer has no form of.
    """
    known = peers() if peer_names else {}
    if unknown := [name for name in peer_names if name not in known]:
        raise MixlabError(f"{COMMAND_LINE}: --peer: {unknown[0]!r} is not known; {choices(unknown[0], known)}")
    activations = {known[name][1].activation for name in peer_names}
    if len(activations) > 1:
        raise MixlabError(
            f"{COMMAND_LINE}: --peer: {' and '.join(peer_names)} have different activations; measure them one by one"
        )
    if activations:
        trial = replace(trial, model=replace(trial.model, activation=activations.pop()))
        _check_plain(trial.model, peer_names[0])
    found = [Side(name, replace(trial, backend=name)) for name in ours]
    for setting, other in (others or {}).items():
        found += [Side(name, replace(other, backend=name), setting=setting) for name in ours]
    found += [Side(known[name][0], trial, name, peer_path=peer_path) for name in peer_names]
    return found


def _check_plain(model: ModelSpec, peer: str) -> None:
    options = ("token_mixing", "channel_mixing", "share_blocks", "position_embedding", "pre_head_norm")
    plain = ModelSpec(model.image_size, model.image_channels, model.num_classes, model.patch_size, 0, 0, 0, 0)
    for name in options:
        if getattr(model, name) != getattr(plain, name):
            raise MixlabError(f"bench: --peer {peer}: it has no model.{name}={getattr(model, name)}; leave one out")


def measure(
    compared: Sequence[Side], num_rounds: int, say: Callable[[str], None] = lambda text: None
) -> list[Measurement]:
    """Let the sides take turns, matrix products among them; the first side is what the others are compared with."""
    trial = compared[0].trial
    seconds: Seconds = {}
    firsts: list[float] = []
    with running(compared) as started, contextlib.ExitStack() as stack:
        rows = CEILING_ROWS if started[0].about()["device"] == "cpu" else GPU_CEILING_ROWS
        products = [Side(name, replace(trial, backend=name), PRODUCT, rows) for name in _benches()]
        ceilings = stack.enter_context(running(products))
        for one in started:
            say(f"{one.side.label}: first step")
            firsts.append(one.seconds(TRAIN, 1))
            one.seconds(PREDICT, 1)
        for work in (TRAIN, PREDICT):
            say(f"{work}: {num_rounds} rounds of {len(ceilings) + len(started)} turns")
            works: list[tuple[Running, str]] = [
                *((one, PRODUCT) for one in ceilings),
                *((one, work) for one in started),
            ]
            found = take_turns(works, num_rounds, TURN_S)
            fastest = [min(of_round) for of_round in zip(*found[: len(ceilings)], strict=True)]
            seconds[work] = [fastest, *found[len(ceilings) :]]
        abouts = [one.about() for one in started]
    return [
        Measurement(
            label=side.label,
            images_per_s=_rates(seconds, i, dict.fromkeys(seconds, side.trial.train.batch_size)),
            gflops=_rates(seconds, i, {work: _gflop(side.trial, work) for work in seconds}),
            share={
                work: Spread.of(
                    [
                        _gflop(side.trial, work) / own / (product_flops(rows) / 1e9 / top)
                        for own, top in zip(times[i + 1], times[0], strict=True)
                    ]
                )
                for work, times in seconds.items()
            },
            speedup={
                work: ratios(_an_image(times[i + 1], side), _an_image(times[1], compared[0]))
                for work, times in seconds.items()
            },
            first_step_s=firsts[i] + started[i].open_s,
            about=abouts[i],
        )
        for i, side in enumerate(compared)
    ]


def _rates(seconds: Seconds, i: int, amounts: Mapping[str, float]) -> dict[str, Spread]:
    """Amounts per second of side i, by kind of work."""
    return {work: Spread.of([amounts[work] / own for own in times[i + 1]]) for work, times in seconds.items()}


def _an_image(seconds: Sequence[float], side: Side) -> list[float]:
    return [one / side.trial.train.batch_size for one in seconds]


def _gflop(trial: Trial, work: str) -> float:
    """Of one batch."""
    return FLOPS_PER_MAC[work] * parameters.forward_macs(trial.model) * trial.train.batch_size / 1e9
