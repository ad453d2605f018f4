"""What each process is told at its start, as plain structs that cross a pipe as msgpack.

Owns: the start-up words of hub, provider and worker, and the timings all rooms share. Must never:
read the environment or the disk (``home.py`` does), or be shown in argv or a log: two fields are
secrets.
"""

from __future__ import annotations

import hashlib

from msgspec import Struct

from guactors.messages import Endpoint


class Timing(Struct, frozen=True):
    """Seconds. One place, so that the simulation and the processes agree."""

    heartbeat: float = 1.0
    """Between two pings on an otherwise silent control lane."""
    silent_after: float = 2.5
    """Nothing heard for so long: shown as silent."""
    lost_after: float = 10.0
    """Nothing heard for so long: treated as gone."""
    relink_grace: float = 0.4
    """A broken link may be replaced by a new one of the same peer for so long."""
    rejoin_grace: float = 10.0
    """After a hub restart: how long reported leases and sessions wait for their caller."""
    linger: float = 0.5
    """An idle lease is kept so long by its caller."""
    redial_first: float = 0.05
    redial_most: float = 2.0
    """Bounds of the jittered exponential back-off between two dials."""
    sample: float = 2.0
    """Between two Samples of a provider."""


class Identity(Struct, frozen=True):
    """A process's keys for TCP. Public keys and secrets are z85 text of Curve25519 keys.

    ``client_*``: the pair it dials with, by which listeners know it. ``server_*``: its pair as a
    listener (empty: it makes a fresh one)."""

    client_public: str = ""
    client_secret: str = ""
    server_public: str = ""
    server_secret: str = ""

    def __repr__(self) -> str:
        return (
            f"Identity(client_public={self.client_public!r}, server_public={self.server_public!r})"
        )


class Seal(Struct, frozen=True):
    """A principal's signing key in its own process: ``key`` the public text, ``secret`` the secret
    text, ``successions`` the envelopes that lead to it from older keys. Empty: a local process."""

    key: str = ""
    secret: str = ""
    successions: list[bytes] = []

    def __repr__(self) -> str:
        return f"Seal(key={self.key!r})"


class HubConfig(Struct, frozen=True):
    """``hub``: its id. ``listen``: addresses to bind (ipc and/or tcp). ``run_dir``: 0700 directory
    for sockets. ``owners``: the owners' public keys, whose grants count.
    ``data``: directory of what it must not forget; without, it forgets, and only local processes
    can take part. ``approved``: keys to admit as if an owner had approved them. ``seal``: its
    signing key, with which it marks what it gives away. ``spool``: where images and files of
    sessions are kept without ``data``, until the hub ends."""

    hub: str
    listen: list[str]
    run_dir: str
    identity: Identity = Identity()
    timing: Timing = Timing()
    owners: list[str] = []
    data: str = ""
    approved: list[str] = []
    seal: Seal = Seal()
    image_quota: int = 64 << 30
    spool: str = ""

    @property
    def key(self) -> str:
        """Its public key, empty without one."""
        return self.seal.key


class Lending(Struct, frozen=True):
    """When the owner of a machine lends it. ``hours``: of the week, as in docs/availability.md;
    empty: at all. ``sources``: names of ``guactors.idle``, which say whether it is used; without,
    that does not matter.

    It is lent once nobody has used it for ``idle_after`` seconds, and not before ``dwell`` seconds
    after it was taken back; it is taken back when it was used for ``busy_after`` seconds.
    ``busy_load``: so many processors that others keep busy are use. ``command``: the owner's own,
    for the source of that name. ``leave_after``: seconds after which work that may begin anew
    elsewhere leaves a machine that was taken back."""

    hours: str = ""
    sources: list[str] = []
    idle_after: float = 900.0
    busy_after: float = 10.0
    dwell: float = 60.0
    busy_load: float = 0.5
    command: list[str] = []
    leave_after: float = 600.0


class ProviderConfig(Struct, frozen=True):
    """``hub``: endpoints to dial, in order of preference. ``resources``: what it offers (CPU,
    memory, GPU, custom). ``listen_host``: address its workers bind TCP on, empty for ipc only.
    ``warm``: unbound workers kept ready. ``seal``: its key. ``hub_key``: the public key of the hub
    it serves. ``policy``: the machine owner's policy file as canonical JSON, empty for a provider
    of the hub's own machine, which takes the hub's word. ``data``: directory of its image store.
    ``patient``: go on dialling a hub that never answered. ``env_quota``: bytes of environments that
    it keeps for later. ``memory_threshold``: the share of memory in use above which a worker is
    ended, 0 for never. ``devices``: ids of what is counted one by one, by resource name; without,
    those of ``accelerators.VISIBLE`` are counted from 0. ``runtimes``: what it runs besides
    ``python`` and ``native``. ``lending``: when it takes work at all."""

    provider: str
    name: str
    hub: list[Endpoint]
    resources: dict[str, float]
    run_dir: str
    labels: dict[str, str] = {}
    listen_host: str = ""
    warm: int = 1
    identity: Identity = Identity()
    timing: Timing = Timing()
    seal: Seal = Seal()
    hub_key: str = ""
    policy: bytes = b""
    data: str = ""
    invitation: str = ""
    patient: bool = True
    env_quota: int = 10 << 30
    memory_threshold: float = 0.0
    devices: dict[str, list[str]] = {}
    runtimes: list[str] = []
    lending: Lending = Lending()

    @property
    def owner(self) -> str:
        """Whose the instances here are: the same name after a restart, where there is a key."""
        key = self.seal.key
        return hashlib.sha3_256(key.encode()).hexdigest()[:16] if key else self.provider

    def __repr__(self) -> str:
        return f"ProviderConfig({self.provider!r}, {self.name!r}, {self.seal!r})"


class WorkerConfig(Struct, frozen=True):
    """``endpoint``: the provider's listener on this machine. ``hub``: as in ProviderConfig, for
    calls the user's code makes from inside the worker. ``labels``: the provider's. ``python``: its
    interpreter, empty for the provider's own. ``owner``: as in ProviderConfig."""

    worker: str
    provider: str
    provider_name: str
    endpoint: Endpoint
    hub: list[Endpoint]
    run_dir: str
    listen_host: str = ""
    identity: Identity = Identity()
    timing: Timing = Timing()
    labels: dict[str, str] = {}
    python: str = ""
    owner: str = ""


class NodeConfig(Struct, frozen=True):
    """What one launcher runs on this machine. A provider with an empty ``hub`` joins this ``hub``.

    ``embedded``: it ends with the process that launched it. ``path``: the import path of the
    workers, empty for the launcher's own. ``scratch``: directories it removes at its end. ``web``:
    what ``guactors.web``, an extra, is told as msgpack, empty for no HTTP; it serves this
    ``hub``."""

    hub: HubConfig | None = None
    providers: list[ProviderConfig] = []
    embedded: bool = False
    path: list[str] = []
    scratch: list[str] = []
    web: bytes = b""
