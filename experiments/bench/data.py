"""Images a second that the feed of a trial gives its device, against a framework's own loader and a bare decoder."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import backends
from backends.errors import BackendMissing, MixlabError
from experiments import data
from experiments.bench.reading import DECODER, FEED, LOADER
from experiments.bench.rounds import Spread, ratios, running, take_turns
from experiments.bench.side import READ, Side
from experiments.design.ablation import COMMAND_LINE
from experiments.running import storage
from experiments.spec import fields as config_fields
from experiments.spec.config import AugmentConfig, TrialConfig
from experiments.spec.overrides import read_override
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial, as_tree

TURN_S = 2.0
ON_DEVICE = ("crop", "mixup", "mixup_style", "cutmix")  # what a device does: neither the feed nor the loader does
BOTH = (*ON_DEVICE, "flip", "inception", "inception_area")


@dataclass(frozen=True)
class Reading:
    """What one side reads.  relative: how many times as long as the feed it takes for an image."""

    label: str
    images_per_s: Spread
    relative: Spread
    num_threads: int  # or processes
    spec: dict[str, Any]


def trial(source: str, overrides: Sequence[str], cache: Path) -> Trial:
    """The trial whose images are read, with the storage that is taken.

    Raises: MixlabError: the data cannot be read, or the loader cannot do what is asked.
    """
    settings = dict(read_override(override, COMMAND_LINE, axes=False) for override in overrides)
    typed = config_fields.typed({"data.source": source, **settings}, COMMAND_LINE)
    config = config_fields.set_fields(TrialConfig(), typed)
    augment = config.data.augment
    for field in fields(AugmentConfig):
        if field.name not in BOTH and getattr(augment, field.name) != getattr(AugmentConfig(), field.name):
            raise MixlabError(
                f"bench data: the loader of torch crops and flips alone, and has no data.augment.{field.name}; leave "
                f"it out"
            )
    if config.data.shorter_side is not None and augment.inception is None:
        raise MixlabError("bench data: the loader of torch has no data.shorter_side; give data.augment.inception too")
    asked = resolve(config, data.describe(config.data, cache, COMMAND_LINE), COMMAND_LINE)
    taken = storage.choose(asked, data.load(asked.data, asked.info, cache), None)
    return replace(asked, data=replace(asked.data, storage=taken))


def sides(one: Trial, cache: Path) -> list[Side]:
    """The feed, torch's loader where torch is installed, and the bare decoder."""
    whats = [FEED, LOADER, DECODER]
    try:
        backends.check_installed("torch")
    except BackendMissing:
        whats.remove(LOADER)
    return [Side(one.backend, one, what, cache=cache) for what in whats]


def measure(compared: Sequence[Side], num_rounds: int, say: Callable[[str], None] = lambda text: None) -> list[Reading]:
    """Let the sides take turns, each with as many threads or processes as the trial has cores."""
    with running(compared) as started:
        for one in started:
            say(f"{one.side.label}: first batch")
            one.seconds(READ, 1)
        say(f"{num_rounds} rounds of {len(started)} turns")
        seconds = take_turns([(one, READ) for one in started], num_rounds, TURN_S)
    return [
        Reading(
            side.label,
            Spread.of([side.batch_size / one for one in own]),
            ratios(own, seconds[0]),
            side.trial.run.threads or len(os.sched_getaffinity(0)),
            as_tree(side.trial),
        )
        for side, own in zip(compared, seconds, strict=True)
    ]
