"""Bring up a real Slurm inside one directory: python3 -m slurm.testbed.up [DIR]."""

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from backends.errors import MixlabError, show_chain
from slurm.testbed import config, daemons, network, processes
from slurm.testbed.cluster import SERVERS, Cluster
from slurm.testbed.config import Options, Site
from slurm.testbed.daemons import DaemonFailed, missing
from slurm.testbed.down import down
from slurm.testbed.layout import Layout, default_directory

USER_ERROR, FAILED, STOPPED = 2, 1, 130  # exit codes
DOWN_COMMAND = "python3 -m slurm.testbed.down"


def up(directory: Path | str, options: Options | None = None) -> Cluster:
    """Bring up a cluster and return when all its nodes are idle.

    Raises: MixlabError: a program is missing, the directory cannot be used, or its cluster is up already.
            DaemonFailed: a daemon did not start; those that did are down again.
    """
    options = options or Options()
    layout = Layout.of(directory)
    layout.check(options.node_names)
    if sentence := missing(options.accounting):
        raise MixlabError(sentence)
    user = daemons.user()
    layout.make()
    with _only_start(layout), network.reserved_ports(2 + options.nodes) as sockets:
        _check_down(layout)
        ports = tuple(reserved.getsockname()[1] for reserved in sockets)
        site = Site(layout, user, network.host(), ports, network.communication_parameters(), _first_job_id())
        _write(site, options)
        try:
            _start(layout, options, [reserved.fileno() for reserved in sockets])
        except BaseException:
            down(layout.directory)
            raise
    return Cluster(layout)


@contextmanager
def _only_start(layout: Layout) -> Iterator[None]:
    with layout.marker.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MixlabError(f"{layout.directory}: another start is at work here; wait for it to end") from error
        yield


def _check_down(layout: Layout) -> None:
    if running := processes.daemons(layout):
        raise MixlabError(
            f"{layout.directory}: a cluster is up here ({', '.join(sorted(running))}); "
            f"to take it down: {DOWN_COMMAND} {layout.directory}"
        )
    processes.send(processes.of_cluster(layout), signal.SIGKILL)  # jobs that outlived killed daemons


def _first_job_id() -> int:
    """A start that differs between clusters: %j in the path of a folder would meet an earlier cluster's files."""
    return int(time.time()) % 6_000_000 * 10 + 1


def _write(site: Site, options: Options) -> None:
    layout = site.layout
    if not layout.munge_key.exists():
        layout.munge_key.touch(0o600)
        layout.munge_key.write_bytes(os.urandom(128))
    layout.slurm_conf.write_text(config.slurm_conf(site, options))
    layout.gres_conf.write_text(config.gres_conf(site, options))
    layout.env_sh.write_text(config.env_sh(layout))
    if options.accounting:
        layout.slurmdbd_conf.touch(0o600)  # slurmdbd refuses one that others may read
        layout.slurmdbd_conf.write_text(config.slurmdbd_conf(site))
    for index in range(options.gpus):
        device = layout.directory / f"dev/nvidia{index}"
        if not device.is_symlink():
            device.symlink_to("/dev/null")
    for node in options.node_names:
        (layout.directory / "spool" / node).mkdir(exist_ok=True)


def _start(layout: Layout, options: Options, sockets: Sequence[int]) -> None:
    if options.accounting:
        daemons.create_database(layout)
    for server in SERVERS if options.accounting else ("munged", "slurmctld"):
        # munged lives as long as the cluster does and uses no port: in its hands the reserved ones stay reserved.
        daemons.start(layout, server, sockets if server == "munged" else ())
        daemons.wait_for(layout, server)
    for node in options.node_names:
        daemons.start(layout, node)
    for node in options.node_names:
        daemons.wait_for(layout, node)
    daemons.wait_until_idle(layout)


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring up a cluster and say how to use it; returns the exit code."""
    words = _parser().parse_args(arguments)
    try:
        options = Options(
            nodes=words.nodes,
            cpus=words.cpus,
            memory_mib=words.memory,
            gpus=words.gpus,
            accounting=words.accounting == "on",
            over_memory=words.over_memory,
            ip_names=words.ip_names,
            settings=tuple(words.set),
        )
        cluster = up(words.directory, options)
    except MixlabError as error:
        show_chain(error)
        print(f"slurm-up: {error}", file=sys.stderr)
        return USER_ERROR
    except DaemonFailed as error:
        show_chain(error)
        print(f"slurm-up: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("slurm-up: stopped; what had started is down again", file=sys.stderr)
        return STOPPED
    layout = cluster.layout
    print(f"Slurm is up with {options.nodes} nodes. To use it:  source {layout.env_sh}  and then  sinfo")
    print(f"To take it down:  {DOWN_COMMAND} {layout.directory}")
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = Options()
    parser = argparse.ArgumentParser("slurm-up", description="Bring up a real Slurm inside one directory.")
    parser.add_argument("directory", nargs="?", default=default_directory(), help="default: %(default)s")
    parser.add_argument("--nodes", type=int, default=defaults.nodes)
    parser.add_argument("--cpus", type=int, default=defaults.cpus, help="declared for each node")
    parser.add_argument("--memory", type=int, default=defaults.memory_mib, help="MiB declared for each node")
    parser.add_argument("--gpus", type=int, default=defaults.gpus, help="declared for each node")
    parser.add_argument("--accounting", choices=["on", "off"], default="on", help="with or without sacct")
    parser.add_argument("--over-memory", action="store_true", help="end jobs that use more memory than they asked for")
    parser.add_argument("--ip-names", action="store_true", help="call the nodes 127.0.0.2 and so on, which resolve")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a line of slurm.conf")
    return parser


if __name__ == "__main__":
    sys.exit(main())
