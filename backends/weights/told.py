"""What arrays do not tell of a model: said by the user, or taken as public models have it, and then told aloud."""

from collections.abc import Mapping
from typing import Any

from backends.errors import nearest
from backends.models.shared_config import ACTIVATION
from backends.models.variants import VIT
from backends.weights.form import NotAModel, Reading

USUAL_SIDE = 224  # pixels, of public models
HEAD_DIM = 64  # channels of a head, of public ViTs of other widths than those of big_vision


def option(name: str) -> str:
    """How the user says a field of the spec: `--num-heads`."""
    return f"--{name.replace('_', '-')}"


def in_words(value: Any) -> str:
    """A value as the user says it: the words of a list with commas."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_told(told: Mapping[str, Any]) -> None:
    """Check what is said for itself. Raises: NotAModel: it is no number or word that any model has."""
    for name in ("num_heads", "image_size"):
        if told.get(name, 1) < 1:
            raise NotAModel(f"{option(name)}: expected 1 or more, got {told[name]}")
    if (activation := told.get("activation", ACTIVATION[0])) not in ACTIVATION:
        near = nearest(activation, ACTIVATION)
        raise NotAModel(f"--activation: expected one of {', '.join(ACTIVATION)}, got {activation!r}{near}")


def image_side(reading: Reading, patch: int) -> tuple[int, dict[str, str]]:
    """Pixels a side of the images, where no array depends on them, and why, where nobody says it.

    Raises: NotAModel: what is said is no multiple of the patch.
    """
    if side := reading.told.get("image_size"):
        if side % patch:
            raise NotAModel(f"--image-size: expected a multiple of its patches of {patch} pixels, got {side}")
        return side, {}
    return max(1, round(USUAL_SIDE / patch)) * patch, {"image_size": "no array tells it; --image-size N says another"}


def heads(reading: Reading) -> tuple[int, dict[str, str]]:
    """The number of heads where query, key and value are one array, and why it is that where nobody says it.

    Raises: NotAModel: nothing tells it.
    """
    hidden = reading.params["stem/kernel"].shape[3]
    if told := reading.told.get("num_heads"):
        if hidden % told:
            raise NotAModel(f"--num-heads: expected a divisor of its {hidden} channels, got {told}")
        return told, {}
    published = {sizes[0]: (name, sizes[3]) for name, sizes in VIT.items()}
    if hidden in published:
        name, number = published[hidden]
        return number, {"num_heads": f"as ViT-{name}, of this width, has them; --num-heads N says another"}
    if hidden % HEAD_DIM:
        raise NotAModel(
            f"its arrays do not tell the number of heads, and {HEAD_DIM} channels a head, as in public models, do not "
            f"divide its {hidden} channels; say it with --num-heads N"
        )
    why = f"{HEAD_DIM} channels a head, as in public models; --num-heads N says another"
    return hidden // HEAD_DIM, {"num_heads": why}
