"""Speed: ceilings, then training steps with images/s and their share of the ceiling, peers where installed."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import backends
from experiments.bench import config, limit, step
from experiments.doctor.check import Asked, Check, Verdict, differs, not_run, ok
from experiments.spec.trial import Trial

LIMIT_S = 240.0
ROUNDS = 3
CPU_PRECISION, PRECISION = "float32", "bfloat16"  # what models are trained in there
# Images of a step: enough to fill a device, and few enough for two cores.
CPU_BATCHES, BATCHES = {"cifar": 128, "S/16": 8, "B/16": 2}, {"cifar": 1024, "S/16": 512, "B/16": 256}
NUM_REPLICAS = 8
# The peers of backends/*/peers.py that are packages: backend and package. Those modules import a framework.
PEERS = {"timm-compile": ("torch", "timm"), "lucidrains": ("torch", "mlp_mixer_pytorch")}
MOST = 1.05  # of the ceiling: a step that is faster than that was not timed right


def checks(asked: Asked) -> list[Check]:
    """Ceilings and steps of each backend of this project, which has ceilings; the smallest first."""
    names = [name for name in asked.backends if backends.packages(name)]
    steps = [_step(name, "cifar", asked) for name in names]
    if asked.short:
        return steps
    steps += [_step(name, "S/16", asked) for name in names]
    steps += [_step(name, "cifar", asked, replicas=NUM_REPLICAS) for name in names]
    steps += [_step(name, "cifar", asked, setting="model.token_mixing=untied") for name in names]
    steps += [_step(name, "B/16", asked) for name in names]
    return [*(_ceiling(name, asked) for name in names), *steps, *_peers(asked)]


def _peers(asked: Asked) -> list[Check]:
    """A step against other people's models; whether they are installed, the backend's own interpreter knows."""
    return [
        _step(backend, name, asked, peer=peer)
        for peer, (backend, _) in PEERS.items()
        if backend in asked.backends
        for name in ("cifar", "S/16")
    ]


def _ceiling(backend: str, asked: Asked) -> Check:
    return Check(f"{backend}: ceilings", partial(_reach, backend, asked), LIMIT_S, backend)


def _reach(backend: str, asked: Asked) -> Verdict:
    one = limit.limit(_trial(backend, "cifar", asked), ROUNDS)
    gb_per_s = one.copy_gb_per_s.median
    products = f"{one.precision} products {one.gflops / 1e3:,.2f} TFLOP/s at {one.best_rows} rows"
    return ok(f"{products}, copies {gb_per_s:,.0f} GB/s", gflops=one.gflops, rows=one.best_rows, copy_gb_per_s=gb_per_s)


def _step(backend: str, name: str, asked: Asked, *, setting: str = "", replicas: int = 1, peer: str = "") -> Check:
    words = [name, setting, f"{replicas} replicas" if replicas > 1 else "", f"against {peer}" if peer else ""]
    look = partial(_measure, backend, name, asked, setting, replicas, peer)
    return Check(f"{backend}: {' '.join(filter(None, words))}", look, LIMIT_S, backend)


def _measure(backend: str, name: str, asked: Asked, setting: str, replicas: int, peer: str) -> Verdict:
    """Measure a step; with a setting, replicas or a peer, against the plain one in the same rounds."""
    if peer and not find_spec(package := PEERS[peer][1]):
        return not_run(f"the peer's package {package} is not installed; pip install {package.replace('_', '-')}")
    trial = _trial(backend, name, asked)
    others = {setting: _trial(backend, name, asked, [setting])} if setting else None
    sides = step.sides(trial, [backend], [peer] if peer else [], None, others, replicas)
    measured = step.measure(sides, 1 if asked.short else ROUNDS)
    one = measured[-1] if setting or replicas > 1 else measured[0]
    rate, share = one.images_per_s["train"], one.share["train"].median
    size = f"batch {trial.train.batch_size}, {trial.train.precision}"
    text = f"{rate.median:,.0f} [{rate.low:,.0f}, {rate.high:,.0f}] images/s, {share:.0%} of the ceiling; {size}"
    if len(measured) > 1:
        text += f"; {measured[-1].label}'s step takes {measured[-1].relative['train']} times as long for an image"
    figures = {"images_per_s": rate.median, "share": share, "first_step_s": one.first_step_s, "about": one.about}
    return (ok if share <= MOST else differs)(text, **figures)


def _trial(backend: str, name: str, asked: Asked, settings: Sequence[str] = ()) -> Trial:
    precision, batches = (CPU_PRECISION, CPU_BATCHES) if asked.is_cpu else (PRECISION, BATCHES)
    overrides = [f"train.precision={precision}", f"train.batch_size={batches[name]}", f"run.device={asked.device}"]
    return replace(config.trial(name, [*overrides, *settings]), backend=backend)
