"""The machine: packages, devices, memory, cores, disk and clock."""

from functools import partial

import backends
from experiments.doctor import devices, disk, host, packages
from experiments.doctor.check import Asked, Check

# On a network's disk, the first import of a framework takes a minute; a driver wakes a sleeping GPU in half of one.
IMPORT_S, DRIVER_S = 180.0, 60.0
ENOUGH_S = 15.0  # for an import from a disk of the machine itself, and a small product


def checks(asked: Asked) -> list[Check]:
    """What a machine must have, before anything is trained on it."""
    return [
        Check("packages", partial(packages.look, "", asked)),
        *(Check(f"{name}: packages", partial(packages.look, name, asked), backend=name) for name in asked.backends),
        *(Check(f"{name}: packages", partial(packages.look_at_absent, name)) for name in asked.absent),
        Check("memory", host.look_at_memory),
        Check("cores", host.look_at_cores),
        Check("disk", partial(disk.look, asked)),
        Check("clock", partial(disk.look_at_clock, asked.folder)),
        # Last, since a driver that hangs takes the time of what comes after it.
        Check("nvidia-smi", partial(devices.look_at_driver, asked), DRIVER_S),
        *(_device(name, asked) for name in asked.backends if backends.packages(name)),
    ]


def _device(name: str, asked: Asked) -> Check:
    """What a backend of this project sees; one of another package has no module that says so."""
    return Check(f"{name}: device", partial(devices.look, name, asked), IMPORT_S, name, ENOUGH_S, unlocks=name)
