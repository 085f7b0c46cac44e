"""The machine: packages, devices, memory, cores, disk and clock."""

from functools import partial

from experiments.doctor import devices, disk, host, packages
from experiments.doctor.check import Asked, Check

# On a network's disk, the first import of a framework takes a minute; a driver wakes a sleeping GPU in half of one.
IMPORT_S, DRIVER_S = 180.0, 60.0


def checks(asked: Asked) -> list[Check]:
    """What a machine must have, before anything is trained on it."""
    return [
        Check("packages", partial(packages.look, "", asked)),
        *(Check(f"{name}: packages", partial(packages.look, name, asked), backend=name) for name in asked.backends),
        *(Check(f"{name}: packages", partial(packages.look_at_absent, name)) for name in asked.absent),
        Check("nvidia-smi", partial(devices.look_at_driver, asked), DRIVER_S),
        *(Check(f"{name}: device", partial(devices.look, name, asked), IMPORT_S, name) for name in asked.backends),
        Check("memory", host.look_at_memory),
        Check("cores", host.look_at_cores),
        Check("disk", partial(disk.look, asked)),
        Check("clock", partial(disk.look_at_clock, asked.folder)),
    ]
