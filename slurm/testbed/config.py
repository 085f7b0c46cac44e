"""Slurm's configuration as text: pure functions of the options and of the machine."""

import shlex
from dataclasses import dataclass

from backends.errors import MixlabError
from slurm.testbed.layout import Layout
from slurm.testbed.network import LOOPBACK

REQUEUE_DELAY_S = 8  # below 5 Slurm takes 120; a restart sooner than a stubborn task's end would meet it on its node
GRACE_S = 10  # time to write a checkpoint; with 0, Slurm kills a job while Submitit is requeueing it


@dataclass(frozen=True)
class Options:
    """Options of a cluster; cpus, memory and gpus are declared for each node, and need not exist."""

    nodes: int = 4
    cpus: int = 4
    memory_mib: int = 4000
    gpus: int = 2
    accounting: bool = True
    over_memory: bool = False  # end jobs that use more memory than they asked for, looking each second
    ip_names: bool = False  # call the nodes 127.0.0.2 and so on, names that every program can resolve
    settings: tuple[str, ...] = ()  # lines KEY=VALUE that replace lines of slurm.conf or come on top

    def __post_init__(self) -> None:
        for name, value, least in [("nodes", self.nodes, 1), ("cpus", self.cpus, 1), ("gpus", self.gpus, 0)]:
            if not least <= value <= 250:
                raise MixlabError(f"{name}: expected a number from {least} to 250, got {value}")
        if self.memory_mib < 1:
            raise MixlabError(f"memory: expected 1 MiB or more, got {self.memory_mib}")
        for line in self.settings:
            key, equals, _ = line.partition("=")
            if not equals or not key.isidentifier() or "\n" in line:
                raise MixlabError(f"set: expected Key=Value, such as MaxArraySize=11, got {line!r}")
            if key.lower() == "nodename":
                raise MixlabError(
                    f"set: {line!r}: --nodes, --cpus, --memory and --gpus set the nodes; leave this line out"
                )

    @property
    def node_names(self) -> tuple[str, ...]:
        numbers = range(1, self.nodes + 1)
        return tuple(f"127.0.0.{number + 1}" if self.ip_names else f"n{number}" for number in numbers)


@dataclass(frozen=True)
class Site:
    """The machine of a cluster; ports are those of slurmctld, slurmdbd and each node's slurmd."""

    layout: Layout
    user: str
    host: str
    ports: tuple[int, ...]
    communication: str
    first_job_id: int


def slurm_conf(site: Site, options: Options) -> str:
    lines = [*_daemon_lines(site), *_job_lines(options), *_preemption_lines(), *_accounting_lines(site, options)]
    for name, port in zip(options.node_names, site.ports[2:], strict=True):
        gres = f" Gres=gpu:{options.gpus}" if options.gpus else ""
        lines.append(
            f"NodeName={name} NodeHostname={site.host} NodeAddr={LOOPBACK} Port={port} "
            f"CPUs={options.cpus} RealMemory={options.memory_mib}{gres}"
        )
    limits = "DefaultTime=5 MaxTime=INFINITE"
    lines.append(
        f"PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={GRACE_S} {limits}"
    )
    lines.append(f"PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF {limits}")
    # A dict keeps the place of a key that is set again, so a replaced line stands where the first one stood.
    text = {_identity(line): line for line in [*lines, *options.settings]}
    return "\n".join(text.values()) + "\n"


def _identity(line: str) -> str:
    """The part that two lines share if the second replaces the first: the key, with the name of a node or partition."""
    first_word = line.split()[0].lower()
    return first_word if first_word.startswith(("nodename=", "partitionname=")) else first_word.partition("=")[0]


def _daemon_lines(site: Site) -> list[str]:
    layout = site.layout
    lines = [
        "ClusterName=mixlab",
        f"FirstJobId={site.first_job_id}",
        f"SlurmctldHost={site.host}({LOOPBACK})",
        f"SlurmctldPort={site.ports[0]}",
        f"SlurmUser={site.user}",
        f"SlurmdUser={site.user}",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        f"AuthInfo=socket={layout.munge_socket},cred_expire={REQUEUE_DELAY_S}",
        f"StateSaveLocation={layout.directory}/state",
        f"SlurmdSpoolDir={layout.directory}/spool/%n",
        f"SlurmctldPidFile={layout.directory}/run/slurmctld.pid",
        f"SlurmdPidFile={layout.directory}/run/%n.pid",
        f"SlurmctldLogFile={layout.directory}/log/slurmctld.log",
        f"SlurmdLogFile={layout.directory}/log/%n.log",
        "SlurmdParameters=config_overrides",
        "MailProg=/bin/true",
        "SlurmctldTimeout=30",
        "SlurmdTimeout=60",
        "MessageTimeout=20",
        "TCPTimeout=2",
        "ReturnToService=2",
    ]
    return lines + [f"CommunicationParameters={site.communication}"] * bool(site.communication)


def _job_lines(options: Options) -> list[str]:
    lines = [
        "MpiDefault=none",
        "SwitchType=switch/none",
        # Neither control groups nor binding: they need privileges and processors that the machine may lack.
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "DefMemPerCPU=100",
        "GresTypes=gpu",
        "SchedulerType=sched/backfill",
        # A second, not a minute: else a requeued job starts long after its waiting time, at random.
        "SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0",
        "KillWait=3",
        "MinJobAge=600",
        "InactiveLimit=0",
        "Waittime=0",
        "EnforcePartLimits=ALL",
        "MaxArraySize=10001",
        "MaxJobCount=20000",
        "JobRequeue=1",
    ]
    if not options.over_memory:
        return [*lines, "JobAcctGatherType=jobacct_gather/none"]
    gather = ["Type=jobacct_gather/linux", "Frequency=task=1", "Params=OverMemoryKill"]
    return lines + [f"JobAcctGather{line}" for line in gather]


def _preemption_lines() -> list[str]:
    return [
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        # Else a preempted job gets SIGTERM only, which Submitit passes over, and writes no checkpoint.
        "SlurmctldParameters=preempt_send_user_signal",
    ]


def _accounting_lines(site: Site, options: Options) -> list[str]:
    if not options.accounting:
        return ["AccountingStorageType=accounting_storage/none", "JobCompType=jobcomp/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={LOOPBACK}",
        f"AccountingStoragePort={site.ports[1]}",
        f"AccountingStoragePass={site.layout.munge_socket}",  # connections to slurmdbd do not read AuthInfo
        "AccountingStorageTRES=gres/gpu",
    ]


def slurmdbd_conf(site: Site) -> str:
    layout = site.layout
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket}",
        "DbdHost=localhost",
        f"DbdAddr={LOOPBACK}",
        f"DbdPort={site.ports[1]}",
        f"SlurmUser={site.user}",
        f"LogFile={layout.directory}/log/slurmdbd.log",
        f"PidFile={layout.directory}/run/slurmdbd.pid",
        "StorageType=accounting_storage/mysql",
        "StorageHost=localhost",
        f"StorageUser={site.user}",
        "StorageLoc=slurm_acct_db",
        "CommitDelay=1",
    ]
    if "EnableIPv6" in site.communication:
        lines.append("CommunicationParameters=EnableIPv6")
    return "\n".join(lines) + "\n"


def gres_conf(site: Site, options: Options) -> str:
    """The declared GPUs: links to /dev/null, as slurmd takes only a device for one, and a link needs no privilege."""
    lines = ["AutoDetect=off"]
    for name in options.node_names if options.gpus else ():
        devices = ",".join(f"{site.layout.directory}/dev/nvidia{index}" for index in range(options.gpus))
        lines.append(f"NodeName={name} Name=gpu File={devices}")
    return "\n".join(lines) + "\n"


def env_sh(layout: Layout) -> str:
    return f'export SLURM_CONF={shlex.quote(str(layout.slurm_conf))}\nexport PATH="$PATH:/usr/sbin"\n'
