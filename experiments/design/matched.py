"""`matched:` of an ablation: a width is solved, so that each setting has as many parameters, or FLOPs, as its baseline.

    matched: {parameters: model.tokens_mlp_dim}

It may stand in a base, of whatever depth, for all ablations on it; what is nearest to the trial counts, also a null.

The baseline of a setting is that of the report: it has the values of report.baseline, and the setting's own otherwise.
What is counted are the trained parameters, or the multiply-accumulates of the forward pass of one image, of the layers
as they are declared. The trial is the one that has this width written by hand: its id is the same. Where a width must
be a multiple of something (of heads, of groups of channels, of 4), the nearest one that the family takes is solved.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from backends.errors import MixlabError, choices
from backends.models import FAMILIES, folds
from backends.models.config import ModelConfig
from backends.specs import ModelSpec
from experiments.design.asked import asked
from experiments.design.axes import Point
from experiments.design.report_spec import ReportSpec
from experiments.spec import fields
from experiments.spec.config import TrialConfig
from experiments.spec.trial import DataInfo
from experiments.spec.values import shown

WITHIN = 0.01  # of the baseline's number
WIDEST = 2**20
COUNTS: Mapping[str, Callable[[ModelSpec], int]] = {"parameters": folds.count, "flops": folds.forward_macs}
NOUNS = {"parameters": "parameters", "flops": "multiply-accumulates an image"}
NEAR = 1024  # how far from the closest width one is looked for that its family takes
WIDTHS = {
    "model.tokens_mlp_dim": "D_S",
    "model.channels_mlp_dim": "D_C",
    "model.hidden_dim": "C",
    "model.width": "of a ResNet",
}


def read(tree: Any, points: Sequence[Point], report: ReportSpec, where: str) -> dict[str, str]:
    """The quantity and the width that is solved for it; empty where the ablation asks for none.

    Raises: MixlabError: it names no quantity, no width or one that the grid sets, or there is no baseline.
    """
    if tree is None:
        return {}
    named = ", ".join(f"{field} ({letter})" for field, letter in WIDTHS.items())
    if not isinstance(tree, dict) or len(tree) != 1:
        raise MixlabError(
            f"{where}: expected a quantity and the width that is solved for it, such as {{parameters: "
            f"model.tokens_mlp_dim}}, got {shown(tree)}; quantities: {', '.join(COUNTS)}; widths: {named}"
        )
    ((quantity, width),) = tree.items()
    if quantity not in COUNTS:
        raise MixlabError(f"{where}: {shown(quantity)} is not a quantity; {choices(quantity, COUNTS)}")
    if width not in WIDTHS:
        raise MixlabError(f"{where}: {quantity}: expected a width, got {shown(width)}; {choices(width, WIDTHS)}")
    if not report.baseline:
        raise MixlabError(
            f"{where}: settings are matched to a baseline; name it in report.baseline, and leave it in the grid{_BACK}"
        )
    if any(width in point for point in points):
        raise MixlabError(f"{where}: {width} is solved, and the grid sets it too; leave it out of one{_BACK}")
    return {str(quantity): str(width)}


_BACK = " (`matched: null` takes back that of a base)"


def baselines(points: Sequence[Point], base: Point, report: ReportSpec, where: str) -> list[Point | None]:
    """The point that each point is matched to; None: it is a baseline itself.

    Raises: MixlabError: one has no baseline among them.
    """
    by_label = {label(point, base, report, {}): point for point in reversed(points)}
    found: list[Point | None] = []
    for point in points:
        wanted = label(point, base, report, report.baseline)
        if wanted not in by_label:
            words = " ".join(f"{fields.short(name)}={fields.text(value)}" for name, value in point.items())
            raise MixlabError(
                f"{where}: matched: the trial ({words}) has no baseline in the grid; leave it out, as with 'exclude', "
                f"or put its baseline in"
            )
        found.append(None if wanted == label(point, base, report, {}) else by_label[wanted])
    return found


def label(point: Point, base: Point, report: ReportSpec, instead: Mapping[str, Any]) -> tuple[Any, ...]:
    """What names the cell of a point in the table. Args: instead: values that stand in place of the point's own."""
    own = {name: asked(name, point, base) for name in (*report.rows, *report.columns)}
    return tuple((own | dict(instead)).values())


def solved(config: TrialConfig, info: DataInfo, target: ModelSpec, matched: Mapping[str, str], where: str) -> Point:
    """The width with which a config's model has as many as the target; empty where any width gives that.

    Raises: MixlabError: no width comes within WITHIN; says the closest, and another one that does.
    """
    ((quantity, width),) = matched.items()
    wanted = COUNTS[quantity](target)
    best, number = _closest(config.model, info, quantity, width, wanted)
    if abs(number - wanted) > WITHIN * wanted:
        closest = f"the closest, {best}, gives" if best else f"any width gives {_words(config.model)}"
        another = _another(config.model, info, quantity, width, wanted)
        raise MixlabError(
            f"{where}: no {width} gives {wanted:,} {NOUNS[quantity]}, those of the baseline, within {WITHIN:.0%}; "
            f"{closest} {number:,} ({number / wanted - 1:+.2%}); {another}"
        )
    return {width: best} if best else {}


def _another(model: ModelConfig, info: DataInfo, quantity: str, width: str, wanted: int) -> str:
    """The end of an error sentence: the widths that may be solved in place of one."""
    for other in WIDTHS:
        best, number = _closest(model, info, quantity, other, wanted)
        if other != width and best and abs(number - wanted) <= WITHIN * wanted:
            return f"{other} can be solved, and is {best} then"
    return "nor does another width: leave the setting out, as with 'exclude', or change the baseline"


def _words(model: ModelConfig) -> str:
    """What a model is that a width does not change."""
    mixing = f"model.token_mixing {fields.text(model.token_mixing)}"
    return mixing if model.family == "mixer" else f"model.family {model.family}"


@lru_cache(maxsize=1024)
def _closest(model: ModelConfig, info: DataInfo, quantity: str, width: str, wanted: int) -> tuple[int, int]:
    """The width that comes closest, 0 where it changes nothing, and its number, which only rises with the width."""
    family = FAMILIES[model.family]

    def spec_of(size: int) -> tuple[ModelSpec, ModelConfig]:
        own = fields.set_fields(model, {fields.short(width): size})
        return family.make(own, info.image_size, info.image_channels, info.num_classes), own

    def number(size: int) -> int:
        return COUNTS[quantity](family.plain(spec_of(size)[0]))

    def fits(size: int) -> bool:
        return next(iter(family.faults(*spec_of(size))), None) is None

    least = next(filter(fits, range(1, NEAR)), None)
    if least is None:  # something else is wrong with the model, which is told where it is resolved
        return 0, wanted
    if number(least) == number(WIDEST):  # the width changes nothing of this model
        return 0, number(least)
    low, high = least, least
    while number(high) < wanted and high < WIDEST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if number(middle) < wanted else (low, middle)
    around = (range(low, max(0, low - NEAR), -1), range(high, high + NEAR))
    taken = [size for side in around if (size := next(filter(fits, side), None)) is not None]
    best = min(taken or (low, high), key=lambda size: (abs(number(size) - wanted), size))
    return best, number(best)
