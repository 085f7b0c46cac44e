"""Names of devices, as run.device has them."""

import re
from collections.abc import Sequence
from textwrap import shorten

from backends.errors import MixlabError, choices, listed

NAMES = ("auto", "cpu", "cuda", "cuda:1", "gpu", "gpu:0", "tpu", "tpu:0")  # each form once, and where it counts from
WHERE = "run.device"


def read(name: str, where: str = WHERE) -> tuple[str, int]:
    """What a name stands for; `gpu` is another word for `cuda`. Whether it is there is checked where a program runs.

    Returns: auto (the first device that the framework has), cpu, cuda or tpu; and the place among the devices of that
             kind that the process sees.
    Raises:  MixlabError: no device has a name of this form.
    """
    match = re.fullmatch(r"(auto|cpu)|(cuda|gpu|tpu)(?::([0-9]+))?", name)
    if not match:
        raise MixlabError(f"{where}: expected a device, got {name[:60]!r}; {choices(name, NAMES)}")
    alone, counted, index = match.groups()
    return alone or counted.replace("gpu", "cuda"), int(index or 0)


def missing(name: str, there: Sequence[str], reason: str = "") -> MixlabError:
    """The error of a device that this machine, or what a process sees of it, does not have.

    Args: there: the names that it has.    reason: what the framework says of it.
    """
    text = f"{WHERE}: expected a device of this machine ({listed(['auto', 'cpu', *there])}), got {name!r}"
    return MixlabError(f"{text}: {shorten(reason, 150, placeholder=' ...')}" if reason else text)


def check_backend(name: str, backend: str, where: str = WHERE) -> None:
    """Check that a backend may have code for a device; needs no framework.

    Args:   name: of the device.    backend: one of this project's; of another package's nothing is known.
    Raises: MixlabError.
    """
    if read(name, where)[0] == "tpu" and backend == "torch":
        raise MixlabError(f"{where}: {name!r} needs backend jax, got torch; set backend=jax")
