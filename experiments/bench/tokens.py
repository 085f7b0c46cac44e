"""Step time and memory over image sizes at one patch size: what each token mixing costs as there are more tokens.

The paper holds that a Mixer is linear in the number of tokens, as D_S does not depend on it (arXiv 2105.01601, section
2), where attention is quadratic. An exponent is the slope of a line through the logarithms: 1 is linear.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import linear_regression
from typing import Any

from backends.errors import MixlabError
from backends.models import folds
from backends.models.mixer_spec import TOKEN_MIXING
from experiments.bench import config
from experiments.bench.rounds import Spread, running, take_turns
from experiments.bench.side import TRAIN, Side
from experiments.design.ablation import COMMAND_LINE
from experiments.spec.trial import Trial, as_tree

MIXINGS = ("tied", "attention", "untied")
SIZES = (32, 48, 64, 96, 128)  # pixels a side
# 64 to 1,024 tokens at four pixels a side; few blocks and images, as the untied form has C kernels of S x D_S numbers.
SETTINGS = ("model.num_blocks=4", "train.batch_size=16")
TURN_S = 0.5
FLOPS_PER_MAC = 6  # of a step


@dataclass(frozen=True)
class Scaling:
    """One token mixing of one backend. Lists have an entry for each image size.

    memory_bytes: the peak, less that of the same model on an image of four tokens; of the process, on a GPU of its
    arrays. time, memory, work: exponents of the step's seconds (in each round), its memory and its FLOPs; None: the
    memory does not grow. time_at_end: of the seconds between the two largest sizes, where a quadratic term is most.
    """

    backend: str
    mixing: str
    image_sizes: list[int]
    tokens: list[int]
    step_s: list[Spread]
    memory_bytes: list[int]
    gflops: list[float]
    time: Spread
    time_at_end: Spread
    memory: float | None
    work: float
    spec: dict[str, Any]  # of the smallest size
    about: dict[str, Any]


def plan(
    names: Sequence[str], mixings: Sequence[str], sizes: Sequence[int], settings: Sequence[str]
) -> list[list[Side]]:
    """The sides of each backend and mixing: that of four tokens, then one for each image size.

    Raises: MixlabError: no such mixing, a size that is no whole number of patches, or fewer than two sizes.
    """
    if strange := [one for one in mixings if one not in TOKEN_MIXING]:
        raise MixlabError(f"{COMMAND_LINE}: --mixing: expected some of {', '.join(TOKEN_MIXING)}, got {strange[0]!r}")
    if len(set(sizes)) < 2:
        raise MixlabError(f"{COMMAND_LINE}: --sizes: expected two image sizes or more, such as 32,64,128")
    groups = []
    for name in names:
        for mixing in mixings:
            patch = _trial(mixing, min(sizes), settings).model.patch_size
            trials = [_trial(mixing, size, settings) for size in (2 * patch, *sorted(set(sizes)))]
            groups.append(
                [
                    Side(name, replace(trial, backend=name), setting=f"{mixing}, {trial.model.image_size} px")
                    for trial in trials
                ]
            )
    return groups


def measure(
    groups: Sequence[Sequence[Side]], num_rounds: int, say: Callable[[str], None] = lambda text: None
) -> list[Scaling]:
    """Measure group by group, the sizes of each in turns.  Args: groups: of `plan`."""
    return [_scaling(group, num_rounds, say) for group in groups]


def _scaling(group: Sequence[Side], num_rounds: int, say: Callable[[str], None]) -> Scaling:
    say(f"{group[1].label.partition(',')[0]}: {num_rounds} rounds of {len(group) - 1} image sizes")
    with running(group) as started:
        for one in started:
            one.seconds(TRAIN, 1)
        seconds = take_turns([(one, TRAIN) for one in started[1:]], num_rounds, TURN_S)
        abouts = [one.about() for one in started]
    models = [side.trial.model for side in group[1:]]
    tokens = [(model.image_size // model.patch_size) ** 2 for model in models]
    smallest, *peaks = (int(about["peak_memory_bytes"]) for about in abouts)
    memory = [peak - smallest for peak in peaks]
    batch = group[0].trial.train.batch_size
    gflops = [FLOPS_PER_MAC * folds.forward_macs(model) * batch / 1e9 for model in models]
    return Scaling(
        backend=group[0].backend,
        mixing=group[0].setting.partition(",")[0],
        image_sizes=[model.image_size for model in models],
        tokens=tokens,
        step_s=[Spread.of(own) for own in seconds],
        memory_bytes=memory,
        gflops=gflops,
        time=_exponents(tokens, seconds),
        time_at_end=_exponents(tokens[-2:], seconds[-2:]),
        memory=exponent(tokens, memory) if min(memory) > 0 else None,
        work=exponent(tokens, gflops),
        spec=as_tree(group[1].trial),
        about=abouts[1],
    )


def _exponents(tokens: Sequence[int], seconds: Sequence[Sequence[float]]) -> Spread:
    """The exponent in each round.  Args: seconds: for each size, by round."""
    return Spread.of([exponent(tokens, of_round) for of_round in zip(*seconds, strict=True)])


def exponent(tokens: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the line of least squares through the logarithms."""
    return float(linear_regression([math.log(one) for one in tokens], [math.log(one) for one in values]).slope)


def _trial(mixing: str, size: int, settings: Sequence[str]) -> Trial:
    return config.trial("cifar", [*SETTINGS, f"model.token_mixing={mixing}", *settings, f"data.image_size={size}"])
