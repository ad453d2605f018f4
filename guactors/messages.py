"""Every message that crosses a process border, one tagged union per direction.

Owns: the words on the wire. Must never: do I/O, hold behaviour, import anything but ids and the
struct library. ``docs/protocol.md`` is written from this file.

Encoding (``transport/frames.py``): one version byte, then a msgpack array ``[tag, field, ...]``.
Fields are positional: new ones go at the end with a default, none is ever removed or retyped within
a protocol version. Type checks happen in the decoder, before anything is built. ``bytes`` fields
named ``payload``, ``blob`` or ``data`` hold user pickles only workers and callers open; the hub
and the provider pass them on. Large buffers follow the header as further frames of the same
multipart message, ``buffers`` says how many belong to the value.

Tags: 1-19 common, 20-49 caller and hub, 50-79 hub and provider, 80-89 provider and worker,
90-119 caller and worker, 120-149 authority (keys, grants, audit, tokens), 150-169 images,
190-199 and 214-215 looking inside, 200-209 placement groups, 224 availability of providers.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

PROTOCOL_VERSION = 1

Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=65536)]
Id = Annotated[str, Meta(max_length=64)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Document = Annotated[bytes, Meta(max_length=262144)]
"""A canonical document or its signatures, as they were signed."""
Nonce = Annotated[bytes, Meta(max_length=64)]
Lines = Annotated[list[Text], Meta(max_length=10_000)]
Amounts = Annotated[dict[Name, Amount], Meta(max_length=1000)]
Labels = Annotated[dict[Name, Name], Meta(max_length=1000)]
Counts = Annotated[dict[Name, Count], Meta(max_length=1000)]
MOST_STATE = 64 << 20
"""Bytes of an actor's state: the hub has it until the actor is there again."""
State = Annotated[bytes, Meta(max_length=MOST_STATE)]
Cell = Text | int | float | bool | dict[Name, float | Name] | None
"""A field of a row that somebody looks at."""
Arena = Annotated[str, Meta(pattern=r"^[md]-[0-9a-f]{32}\Z")]
"""The name of a file with shared memory; nothing else may become part of a path."""
Sizes = Annotated[list[Count], Meta(min_length=1, max_length=65536)]
Share = Annotated[float, Meta(ge=0.01, le=100.0)]


_SECRET = frozenset({"token", "invitation"})
"""Fields that let their reader in."""


class Word(Struct, array_like=True, frozen=True, gc=False):
    """A part of messages, without a tag of its own."""


# --- words -------------------------------------------------------------------------------------


class Endpoint(Word, frozen=True):
    """Where a listener is reached. ``control`` and ``data`` are addresses (``ipc://``, ``tcp://``,
    ``inproc://``), equal where both lanes share one port; ``server_key`` is the listener's z85
    CURVE key, empty for ipc and inproc; ``host`` limits ipc endpoints to one machine; ``store`` is
    the shared memory that the listener can look into."""

    control: Name
    data: Name
    server_key: Name = ""
    host: Name = ""
    store: Name = ""


class Versions(Word, frozen=True):
    """What a process is made of; equal ``python`` minor versions are needed to share pickles."""

    guactors: Name
    python: Name
    cloudpickle: Name = ""


class EnvWord(Word, frozen=True):
    """What workers are set up with before they serve. ``description``: canonical JSON, see
    ``runtime_env/description.py``; ``signatures``: of it, where the session signs its code."""

    description: Annotated[bytes, Meta(max_length=65536)]
    signatures: Document = b""

    def __repr__(self) -> str:
        # Its variables may be secrets.
        return f"EnvWord({len(self.description)} bytes)"


class EnvPlace(Word, frozen=True):
    """An environment on a provider's disk, as its worker takes it on. ``cwd``: working directory,
    empty for the worker's own; ``path``: goes first in the import path; ``hook``: a function
    ``module.name``, or the path of a pickled one, called before all else."""

    word: EnvWord
    variables: dict[Name, Text] = {}
    cwd: Text = ""
    path: list[Text] = []
    hook: Text = ""

    def __repr__(self) -> str:
        return f"EnvPlace(cwd={self.cwd!r}, path={self.path!r}, hook={self.hook!r})"


class Limits(Word, frozen=True):
    """What a worker or an instance may take at most, 0 for no limit. ``cpu``: processors;
    ``memory``, ``disk``: bytes; ``pids``: processes and threads; ``wall``: seconds that it runs."""

    cpu: Amount = 0.0
    memory: Count = 0
    pids: Count = 0
    disk: Count = 0
    wall: Amount = 0.0


class Placing(Word, frozen=True):
    """Where among the providers that could do it. ``spread``: as even as can be. ``soft``: labels
    that are better met than not. ``fallback``: labels to take instead of the shape's, in this
    order, where those before find no room. ``prefer``: a provider that is taken as long as it could
    serve.
    ``group``: inside this placement group, in its bundle of the index ``bundle`` (-1: in any);
    ``capture``: what is made in there goes into the group as well."""

    spread: bool = False
    soft: Labels = {}
    fallback: Annotated[list[Labels], Meta(max_length=64)] = []
    prefer: Name = ""
    group: Id = ""
    bundle: Annotated[int, Meta(ge=-1, le=1000)] = -1
    capture: bool = False


class Company(Word, frozen=True):
    """What work is beside on its provider. ``labels``: its own. Conditions, as in Shape, on the
    labels of other work of its principal: ``near``: there must be such, ``apart``: there must be
    none, ``rather_near`` and ``rather_apart``: better so than not."""

    labels: Labels = {}
    near: Labels = {}
    apart: Labels = {}
    rather_near: Labels = {}
    rather_apart: Labels = {}


class Terms(Word, frozen=True):
    """What all calls of a session have that say nothing else; as in Shape."""

    priority: int = 0
    preemption: list[Name] = []
    min_runtime: Amount = 0.0
    max_suspended: Amount = 0.0
    grace: Amount = 0.0


class Shape(Word, frozen=True):
    """What one lease or actor needs of a provider. ``resources`` maps names (``CPU``, ``GPU``,
    ``memory`` in bytes, custom ones) to amounts; ``labels`` must all match (a value, ``!value``,
    ``in(a,b)``, ``!in(a,b)``, ``*`` for any, ``!*`` for none); ``provider`` pins to a provider id
    or name. Bigger ``priority`` goes first. ``runtime`` empty is ``python``; ``image`` is an image
    id or empty. ``env``: what its worker is set up with; ``limits``: what it is held to.
    ``preemption``: how it may be made to give way to others, in this order, see
    ``scheduling/preemption.py``; ``min_runtime``: seconds that it runs before it is;
    ``max_suspended``: seconds that it stands still before what follows in that list is done.
    ``terms``: what the calls that it makes inherit; ``grace``: seconds between asking it to end and
    ending it, where it gives way by that.
    ``alternatives``: amounts that would do instead of ``resources``, the best first; of these, so
    many as ``taken`` says are better than ``resources``. The hub says so to providers, who read in
    ``resources`` what is held."""

    resources: Amounts
    priority: int = 0
    labels: Labels = {}
    provider: Name = ""
    runtime: Name = ""
    image: Name = ""
    preemption: list[Name] = []
    env: EnvWord | None = None
    limits: Limits | None = None
    place: Placing | None = None
    min_runtime: Amount = 0.0
    max_suspended: Amount = 0.0
    terms: Terms | None = None
    grace: Amount = 0.0
    alternatives: Annotated[list[Amounts], Meta(max_length=8)] = []
    taken: Annotated[int, Meta(ge=0, le=8)] = 0
    company: Company | None = None


class Displaced(Word, frozen=True):
    """A lease or actor (its id is ``key``) that must give way before another thing starts: by
    standing still (``suspend``), by its end, which is ordered beside this, or (``checkpoint``) by
    ActorSaved, after which it is ended. ``number`` names this suspension of it."""

    key: Id
    number: Count
    mode: Name = "suspend"


Displacements = Annotated[list[Displaced], Meta(max_length=256)]


class Standing(Word, frozen=True):
    """Why a lease or actor stands still: ``by`` whom it was displaced, ``since`` when (epoch
    seconds), ``reason`` for people."""

    by: Name
    since: float
    reason: Text = ""


class DeathReport(Word, frozen=True):
    """:class:`guactors.errors.Death` on the wire, same fields in the same order."""

    cause: Name
    detail: Text = ""
    exit_code: int | None = None
    signal: int | None = None
    stderr_tail: Text = ""
    rss_bytes: Count = 0
    worker: Name = ""
    provider: Name = ""


class ActorSpec(Word, frozen=True):
    """What the hub must know of an actor; class and arguments are in the payload it never opens.

    ``owner`` is the caller that made it. ``placement`` is what the chosen provider must have in
    total, ``shape`` what the actor holds while it lives. ``max_restarts`` -1 is endless.
    ``handle``: what other processes build handles from, opaque here. ``principal`` (whose session
    it is) and ``seal`` (the hub's own mark on all that and the payload) are filled in by the hub,
    which believes no report that does not carry its mark. ``checkpoints``: its class has
    ``__checkpoint__`` and ``__restore__``."""

    actor: Id
    session: Id
    owner: Id
    class_name: Name
    shape: Shape
    placement: Amounts = {}
    name: Name = ""
    namespace: Name = ""
    detached: bool = False
    max_restarts: int = 0
    max_concurrency: Count = 0
    handle: bytes = b""
    principal: Name = ""
    seal: Nonce = b""
    checkpoints: bool = False


class GroupSpec(Word, frozen=True):
    """A placement group: room that is set aside on providers, all ``bundles`` of it or none.

    ``owner`` is the caller that made it, in the actor ``actor`` if that is not empty. ``strategy``:
    PACK, SPREAD, STRICT_PACK or STRICT_SPREAD. It ends with its session, unless it is ``detached``
    or its actor lives on. ``labels``: of each bundle's provider, as in Shape. ``homes``: where its
    bundles are, when it is told to a hub that may not know it. ``principal`` and ``seal`` as in
    ActorSpec. ``priority``: which goes first of those that wait for room."""

    group: Id
    session: Id
    owner: Id
    bundles: Annotated[list[Amounts], Meta(max_length=1000)]
    strategy: Name
    name: Name = ""
    namespace: Name = ""
    detached: bool = False
    labels: Annotated[list[Labels], Meta(max_length=1000)] = []
    actor: Id = ""
    homes: Annotated[list[Id], Meta(max_length=1000)] = []
    principal: Name = ""
    python: Name = ""
    seal: Nonce = b""
    priority: int = 0


class ReservationSpec(Word, frozen=True):
    """Room on one provider from ``start`` to ``end`` (epoch seconds) for what names it. ``labels``
    and ``provider`` as in Shape; ``priority``: what is lower by enough gives way for it. ``allow``:
    principals that may use it beside ``principal``, which made it (the hub fills that in); ``*``
    for all. ``home``: the provider that has it, kept by the hub for its successor."""

    name: Id
    resources: Amounts
    start: float
    end: float
    priority: int = 0
    labels: Labels = {}
    provider: Name = ""
    allow: Annotated[list[Name], Meta(max_length=1000)] = []
    principal: Name = ""
    home: Id = ""


class GroupUpdate(Word, frozen=True):
    """How a group fares. ``state``: pending, created, rescheduling (bundles were lost and are put
    elsewhere), removed, or unknown to this hub. ``providers``: of each bundle, empty where it has
    none. ``reason``: of a group that no provider could hold (while it is pending), or of its end;
    ``kind`` the error's name."""

    group: Id
    state: Name
    providers: list[Id] = []
    reason: Text = ""
    kind: Name = ""


class GroupRow(Word, frozen=True):
    """One placement group in a listing."""

    spec: GroupSpec
    update: GroupUpdate


class WarrantWord(Word, frozen=True):
    """By whose right a session runs. ``key``: the app or owner, empty for a local user of the hub's
    machine. ``statement`` and ``signature`` as in the Proof of its root caller; ``grants``:
    envelopes; ``successions``: as in Proof."""

    session: Id
    key: Name
    statement: Document = b""
    signature: Nonce = b""
    grants: list[Document] = []
    successions: list[Document] = []


class LeaseReport(Word, frozen=True):
    """A lease as its provider knows it (inventory after a reconnect); ``seal`` as in StartLease."""

    lease: Id
    session: Id
    caller: Id
    shape: Shape
    worker: Id
    endpoints: list[Endpoint]
    principal: Name = ""
    seal: Nonce = b""


class ActorReport(Word, frozen=True):
    """A live actor as its provider knows it (inventory after a reconnect). ``warrant``: the fields
    of the session's Warrant, by which another provider may start it again."""

    spec: ActorSpec
    incarnation: Count
    worker: Id
    endpoints: list[Endpoint]
    payload: bytes
    signatures: Document = b""
    warrant: WarrantWord | None = None


class Availability(Word, frozen=True):
    """Whether a machine's owner lends it now. ``reason`` why not; ``until`` when that, or that it
    is lent, will change: epoch seconds, 0 where nobody knows. ``leave_in``: seconds until work that
    may begin anew elsewhere is to leave it."""

    lent: bool = True
    reason: Text = ""
    until: float = 0.0
    leave_in: float = 0.0


LENT = Availability()


class MachineInfo(Word, frozen=True):
    """The Golem roadmap's ``inf`` answers, in GiB for ``*_gib``, percent for ``cpu_percent``.
    ``limits``: how limits of workers are kept there, see ``runtimes/fences.py``."""

    os_name: Name = ""
    os_release: Name = ""
    architecture: Name = ""
    bits: list[int] = []
    cores: Count = 0
    threads: Count = 0
    cpu_percent: float = 0.0
    load1: float = 0.0
    memory_total_gib: float = 0.0
    memory_available_gib: float = 0.0
    storage_total_gib: float = 0.0
    storage_free_gib: float = 0.0
    host: Name = ""
    limits: Name = ""
    availability: Availability = LENT


class PeerInfo(Word, frozen=True):
    """One row of ``gu peers``. ``state`` is ``up``, ``silent``, ``suspended`` (its worker stands
    still for others) or ``lost``; ages in seconds. ``suspended``: of what is not ``free``, the
    amounts that are held by what stands still. ``preemptions``: how often what gave way there,
    ``reason/mode``, and ``cycles``."""

    peer: Id
    role: Name
    name: Name
    state: Name
    address: Name
    pid: Count
    age: float
    last_heard: float
    total: Amounts = {}
    free: Amounts = {}
    workers: Count = 0
    leases: Count = 0
    actors: Count = 0
    labels: Labels = {}
    availability: Availability = LENT
    suspended: Amounts = {}
    preemptions: Counts = {}


class ActorInfo(Word, frozen=True):
    """One live or lately dead actor, as the hub knows it. ``state``: see :class:`ActorUpdate`."""

    spec: ActorSpec
    state: Name
    incarnation: Count
    provider: Id = ""


class GridInfo(Word, frozen=True):
    """The whole grid in one answer, for ``gu status``, ``nodes()`` and ``cluster_resources()``.
    ``preemptions`` as in PeerInfo, since the hub began."""

    hub: Id
    version: Name
    uptime: float
    peers: list[PeerInfo]
    sessions: Count
    leases: Count
    waiting: Count
    actors: list[ActorInfo]
    protocol_faults: Count = 0
    preemptions: Counts = {}


class KeyRow(Word, frozen=True):
    """A key as the hub knows it. ``kind``: owner, hub, provider, app, signer. ``state``: pending,
    approved, revoked. ``since`` in epoch seconds, ``by`` who decided it, ``reason`` why."""

    key: Name
    kind: Name
    name: Name
    state: Name
    since: float
    by: Name = ""
    reason: Text = ""


class GrantRow(Word, frozen=True):
    """A grant as the hub keeps it. ``state``: valid, revoked, expired, early (not yet valid)."""

    app: Name
    issuer: Name
    serial: Count
    state: Name
    since: float
    envelope: Document


class SessionRow(Word, frozen=True):
    """One session. ``principal``: the key text of who opened it, or ``local``."""

    session: Id
    principal: Name
    name: Name
    callers: Count
    age: float


class ImageRow(Word, frozen=True):
    """One image in the hub's store; ``signers``: key texts whose signatures are valid."""

    image: Name
    name: Name
    size: Count
    created: Name
    signers: list[Name]
    last_used: float = 0.0


class ChunkList(Word, frozen=True):
    """Chunks of one blob by index."""

    blob: Name
    chunks: list[Count]


class RefWord(Word, frozen=True):
    """A reference on its way: the owner, and the number it knows the object by. The sender lends
    it: it keeps the object until the receiver's Release, or until the link is gone."""

    owner: Id
    object: Count


class Stored(Word, frozen=True):
    """A value in shared memory: the pickle and its out-of-band buffers, of ``sizes`` bytes, in the
    block number ``serial`` at ``offset`` of an arena. ``store`` says whose memory of which machine:
    only processes of the same store can look there. ``arena`` is a file's name, ``m-`` or ``d-``
    and 32 hex digits."""

    store: Name
    arena: Arena
    offset: Count
    serial: Count
    sizes: Sizes


class BlockName(Word, frozen=True):
    """Which block a Stored speaks of."""

    arena: Arena
    offset: Count
    serial: Count


class Value(Word, frozen=True):
    """A pickled value (or, where ``error``, a pickled exception), the number of its out-of-band
    buffers, which follow as frames, and the references inside it. The pickle of a large value is
    the first of its frames, ``data`` empty then; or all of it is ``stored``."""

    data: bytes
    buffers: Count = 0
    error: bool = False
    refs: list[RefWord] = []
    stored: Stored | None = None


class Filter(Word, frozen=True):
    """A row passes if its cell ``key`` is (``=``), is not (``!=``) or has in it (``~``) the
    ``value``."""

    key: Name
    op: Name
    value: Text


class Query(Word, frozen=True):
    """Which rows somebody wants to see. ``what`` names the listing; ``limit`` 0 is all; ``sort`` a
    column, with ``-`` before it the biggest first. ``cursor``: as the page before said, 0 at the
    beginning. ``subject``: what a listing is of, such as the worker of a stack dump."""

    what: Name
    filters: Annotated[list[Filter], Meta(max_length=100)] = []
    limit: Count = 0
    sort: Name = ""
    cursor: Count = 0
    subject: Name = ""


class RowPage(Word, frozen=True):
    """Rows, one cell a column. ``cursor``: where the next page begins, 0 after the last one.
    ``matched``: rows that passed the filters so far; ``dropped``: those that are counted, but not
    kept any more, whether they would have passed or not."""

    columns: Annotated[list[Name], Meta(max_length=100)]
    rows: Annotated[list[list[Cell]], Meta(max_length=10_000)]
    cursor: Count = 0
    matched: Count = 0
    dropped: Count = 0


class PlannedVictim(Word, frozen=True):
    """What would give way, and by which ``mode`` of ``Shape.preemption``. ``key``: its id, and
    ``name`` of an actor's class; both empty for somebody else's. ``frees``: of what is missing."""

    key: Id
    kind: Name
    name: Name
    mode: Name
    priority: int
    frees: Amounts


class PlannedPlace(Word, frozen=True):
    """Where one place would be, and what would give way for it. ``takes``: what it would hold,
    where there are alternatives."""

    provider: Id
    name: Name
    victims: list[PlannedVictim] = []
    takes: Amounts = {}


class MissRow(Word, frozen=True):
    """Why a provider does not take something: ``reason`` of ``scheduling/explaining.py``,
    ``preemption`` why nobody gives way there, the sentence of both. Of what is short: ``asked``,
    ``free``, and how much of it is held by what stands ``still``."""

    provider: Id
    name: Name
    reason: Name
    preemption: Name
    detail: Text
    asked: Amounts = {}
    free: Amounts = {}
    still: Amounts = {}


class TallyRow(Word, frozen=True):
    """How many calls of a function or method have ended, and how."""

    name: Name
    finished: Count = 0
    failed: Count = 0
    cancelled: Count = 0


class SourceRow(Word, frozen=True):
    """Who answers questions about a listing; an empty ``peer`` is the hub itself."""

    peer: Id
    name: Name = ""
    session: Id = ""


class Message(Struct, array_like=True, frozen=True, gc=False):
    """Base of all messages; each has a tag of its own. What is a secret is not in its repr."""

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={'...' if name in _SECRET else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({fields})"


# --- common: any link ---------------------------------------------------------------------------


class Hello(Message, frozen=True, tag=1):
    """First message of the dialling side, on both lanes. ``role``: caller, provider, worker.
    ``root`` is true for the process whose end ends the session. ``key``: the public key of whom it
    claims to be, which a Proof must show; empty for a local process without one. ``transport``:
    the z85 CURVE key it dials with, by which listeners elsewhere will know it. ``store``: the
    shared memory that it can look into. ``whose``: the key that the session must belong to, or it
    comes in nowhere; for a local process that works in the session of somebody else. ``share``: a
    root's, how much its session may use beside others (1 is everybody's); ``quota``: how much it is
    to have at a time, by resource, ``tasks`` and ``actors``."""

    peer: Id
    role: Name
    versions: Versions
    pid: Count
    host: Name
    session: Id = ""
    root: bool = False
    name: Name = ""
    namespace: Name = ""
    key: Name = ""
    transport: Name = ""
    store: Name = ""
    whose: Name = ""
    share: Share = 1.0
    quota: Amounts = {}


class Welcome(Message, frozen=True, tag=2):
    """The listener's answer to Hello, on the control lane. ``key``: the hub's public key."""

    peer: Id
    versions: Versions
    key: Name = ""


class Ping(Message, frozen=True, tag=3):
    """Heartbeat; the answer is a Pong with the same number."""

    number: Count


class Pong(Message, frozen=True, tag=4):
    """Answer to Ping."""

    number: Count


class Goodbye(Message, frozen=True, tag=5):
    """The sender leaves on purpose; what it owned is to be released now."""

    reason: Name = ""


class Fault(Message, frozen=True, tag=6):
    """A typed refusal. ``kind`` is an error class name of ``guactors.errors``; ``request`` the
    request it answers, 0 for the link as a whole."""

    kind: Name
    detail: Text
    request: Count = 0


class Challenge(Message, frozen=True, tag=7):
    """Hub -> who said Hello with a ``key``: sign this, once, within ten seconds."""

    nonce: Nonce
    hub: Name


class Proof(Message, frozen=True, tag=8):
    """Answer to Challenge: the statement (``security/statements``), signed by the key of Hello.
    ``invitation`` lets a key in that the hub does not know; ``successions`` say which older keys it
    follows."""

    statement: Document
    signature: Nonce
    invitation: Name = ""
    successions: list[Document] = []


# --- caller -> hub ------------------------------------------------------------------------------


class SetDemand(Message, frozen=True, tag=20):
    """I could use ``count`` leases' worth of work of this shape now. Absolute and repeatable: the
    last one counts. ``key`` names the demand within the caller. ``prefer``: providers that have
    what the work needs, the one with most of it first; where they have no room, others do.
    ``due``: seconds until the first of the calls that wait must have ended, 0 for no such."""

    key: Id
    shape: Shape
    count: Count
    prefer: Annotated[list[Id], Meta(max_length=8)] = []
    due: Amount = 0.0


class ReturnLease(Message, frozen=True, tag=21):
    """The caller is done with the lease; its worker runs nothing of it any more. ``dead`` says that
    the caller saw its link to the worker break."""

    lease: Id
    dead: bool = False


class CreateActor(Message, frozen=True, tag=22):
    """Data lane. Answered by ActorUpdate (pending), or Fault(request) for a taken name."""

    request: Count
    spec: ActorSpec
    payload: bytes
    signatures: Document = b""


class WatchActor(Message, frozen=True, tag=23):
    """Tell me now, and from now on, how the actor fares (ActorUpdate)."""

    actor: Id


class FindActor(Message, frozen=True, tag=24):
    """Answered by Found or Fault(request, kind UsageError)."""

    request: Count
    name: Name
    namespace: Name


class KillActor(Message, frozen=True, tag=25):
    """``no_restart`` false counts as a crash. ``released``: graceful, after its queued calls."""

    actor: Id
    no_restart: bool = True
    released: bool = False


class AskGrid(Message, frozen=True, tag=26):
    """Answered by Grid."""

    request: Count


class AskInfo(Message, frozen=True, tag=27):
    """The machine info of a provider (id or name); answered by Info or Fault."""

    request: Count
    peer: Name


class HeldLeases(Message, frozen=True, tag=28):
    """After a reconnect: the leases the caller still holds; the hub revokes those it must."""

    leases: list[Id]


class LeaseDue(Message, frozen=True, tag=236):
    """What the lease runs must have ended in ``due`` seconds, 0 for no such. The last counts."""

    lease: Id
    due: Amount = 0.0


class Relay(Message, frozen=True, tag=29):
    """Both directions, data lane: pass ``frame`` (an encoded message, opaque to the hub) between
    two callers that have no link. The hub sets ``peer`` to the other side."""

    peer: Id
    frame: bytes


# --- hub -> caller ------------------------------------------------------------------------------


class LeaseGranted(Message, frozen=True, tag=30):
    """The worker waits for Calls of this demand."""

    key: Id
    lease: Id
    worker: Id
    provider: Id
    endpoints: list[Endpoint]
    brief: bool = False
    """Others stand still for it: to be returned as soon as there is nothing to do."""
    taken: Annotated[int, Meta(ge=0, le=8)] = 0
    """As in Shape: which of the alternatives it holds."""


class LeaseRecalled(Message, frozen=True, tag=31):
    """Others wait: finish what runs, take back the rest, return the lease."""

    lease: Id


class LeaseLost(Message, frozen=True, tag=32):
    """The lease is over, its worker gone."""

    lease: Id
    death: DeathReport


class LeaseSuspended(Message, frozen=True, tag=39):
    """Its worker stands still for a while; what it runs goes on after LeaseResumed."""

    lease: Id
    standing: Standing


class LeaseResumed(Message, frozen=True, tag=40):
    """Its worker runs again."""

    lease: Id


class DemandInfeasible(Message, frozen=True, tag=33):
    """No provider now in the grid could ever run the shape. Sent again never; a provider that
    joins later may still serve it, the caller decides whether to wait. ``kind``: the error's name;
    with PermissionDenied there is nothing to wait for."""

    key: Id
    reason: Text
    kind: Name = "Unschedulable"


UNKNOWN_HERE = "unknown to this hub"
"""The detail of a death that only says so: a provider that is away may still have the actor."""


class ActorUpdate(Message, frozen=True, tag=34):
    """``state``: pending, alive, restarting, dead. ``endpoints`` when alive. ``error`` is the
    pickled constructor error (a Value) when ``death.cause`` is creation_failed."""

    actor: Id
    state: Name
    incarnation: Count
    worker: Id = ""
    endpoints: list[Endpoint] = []
    death: DeathReport | None = None
    error: bytes = b""
    provider: Id = ""
    standing: Standing | None = None
    """While it stands still."""


class Found(Message, frozen=True, tag=35):
    """Answer to FindActor; ``handle`` is the payload-free part a handle is built from."""

    request: Count
    spec: ActorSpec


class Grid(Message, frozen=True, tag=36):
    """Answer to AskGrid."""

    request: Count
    info: GridInfo


class Info(Message, frozen=True, tag=37):
    """Answer to AskInfo; ``age`` of the sample in seconds; ``preemptions`` as in PeerInfo."""

    request: Count
    peer: Id
    info: MachineInfo
    age: float
    preemptions: Counts = {}


class Output(Message, frozen=True, tag=38):
    """Lines a worker of the session printed. ``stream`` is 1 or 2; ``name`` what ran there.
    Provider -> hub -> root caller, data lane; dropped under pressure, ``dropped`` says how many."""

    session: Id
    worker: Id
    pid: Count
    provider: Name
    stream: Count
    name: Name
    lines: Lines
    dropped: Count = 0


# --- provider -> hub ----------------------------------------------------------------------------


class Offer(Message, frozen=True, tag=50):
    """After Hello: what the provider has, and what already runs there. ``runtimes``: those that it
    has besides ``python`` and ``native``."""

    resources: Amounts
    labels: Labels
    leases: list[LeaseReport]
    actors: list[ActorReport]
    info: MachineInfo
    runtimes: list[Name] = []


class AvailabilityIs(Message, frozen=True, tag=224):
    """It has changed since the Offer, whose ``info`` has it. Where the machine is not lent, all
    that runs there stands still already."""

    availability: Availability


class LeaseStarted(Message, frozen=True, tag=51):
    """A worker is bound to the lease."""

    lease: Id
    worker: Id
    endpoints: list[Endpoint]


class LeaseEnded(Message, frozen=True, tag=52):
    """The lease's worker is gone, or never came (start_failed)."""

    lease: Id
    death: DeathReport


class WorkerBlocked(Message, frozen=True, tag=53):
    """The lease's task waits in get(), or its environment is being built: its CPU is free for
    others until WorkerResumed."""

    lease: Id


class WorkerResumed(Message, frozen=True, tag=54):
    """The lease's task runs again and counts again, even if that overbooks the provider."""

    lease: Id


class Suspended(Message, frozen=True, tag=70):
    """The lease or actor stands still, or with an ``error`` it does not: and why."""

    key: Id
    number: Count
    error: Text = ""


class Resumed(Message, frozen=True, tag=71):
    """The lease or actor runs again."""

    key: Id
    number: Count


class ActorStarted(Message, frozen=True, tag=55):
    """The constructor ran; the actor answers calls."""

    actor: Id
    incarnation: Count
    worker: Id
    endpoints: list[Endpoint]


class ActorEnded(Message, frozen=True, tag=56):
    """The actor's worker is gone; ``error`` as in ActorUpdate."""

    actor: Id
    incarnation: Count
    death: DeathReport
    error: bytes = b""


class ActorSaved(Message, frozen=True, tag=222):
    """Data lane. The actor's state, pickled in its worker and opened nowhere but in the next; the
    actor waits, and is ended by StopActor or goes on by Resume. Where there is none, Suspended
    with an error says why. ``number`` as in Displaced."""

    actor: Id
    number: Count
    state: State


class Sample(Message, frozen=True, tag=57):
    """Every few seconds: fresh figures and counts."""

    info: MachineInfo
    workers: Count


class Vouch(Message, frozen=True, tag=58):
    """A worker of ours that dials the hub with the CURVE key ``transport`` belongs to a session."""

    worker: Id
    transport: Name
    session: Id


class Report(Message, frozen=True, tag=59):
    """For the audit log: the provider, a worker of its, or the HTTP server refused something."""

    who: Name
    action: Name
    object: Name
    reason: Name
    detail: Text
    session: Id = ""


# --- hub -> provider ----------------------------------------------------------------------------


class StartLease(Message, frozen=True, tag=60):
    """Bind a worker of the session (or a fresh one) to the lease. ``namespace`` is the session's,
    the worker learns it in Bind. ``key``: the CURVE key of the caller, which the worker admits.
    ``principal``: whose session it is; ``seal``: the hub's mark, returned in a LeaseReport.
    ``displaces``: what must stand still first; where it does not, LeaseEnded with
    ``not_displaced``."""

    lease: Id
    session: Id
    caller: Id
    shape: Shape
    namespace: Name = ""
    key: Name = ""
    principal: Name = ""
    seal: Nonce = b""
    displaces: Displacements = []


class StopLease(Message, frozen=True, tag=61):
    """The lease is over. ``kill`` when its caller is gone or the worker may still be busy;
    otherwise the worker is kept for the session. ``grace``: seconds that what is killed has to end
    by itself; ``cause`` goes into its death report."""

    lease: Id
    kill: bool = False
    grace: Amount = 0.0
    cause: Name = ""


class Suspend(Message, frozen=True, tag=68):
    """The lease or actor must stand still, and keeps what it has. Answered by Suspended, also by
    one that does already."""

    key: Id
    number: Count


class Resume(Message, frozen=True, tag=69):
    """It may run again, from whichever suspension. Answered by Resumed."""

    key: Id
    number: Count


class StartActor(Message, frozen=True, tag=62):
    """Data lane. Load the class in a worker of its own. ``keys``: the CURVE keys of the callers
    that the worker admits; ``signatures``: of the payload. ``displaces``: as in StartLease.
    ``state``: what it is to be restored from, empty for nothing, see ActorSaved."""

    spec: ActorSpec
    incarnation: Count
    payload: bytes
    signatures: Document = b""
    keys: list[Name] = []
    displaces: Displacements = []
    state: State = b""


class StopActor(Message, frozen=True, tag=63):
    """``graceful``: let it finish queued calls first. ``cause`` goes into the death report;
    ``grace`` as in StopLease.
    ``incarnation``: which one is meant, should this overtake its StartActor; -1 for any that is
    there."""

    actor: Id
    cause: Name
    graceful: bool = False
    incarnation: Annotated[int, Meta(ge=-1, le=2**53)] = -1
    grace: Amount = 0.0


class EndSession(Message, frozen=True, tag=64):
    """Kill everything of the session but its detached actors; ``detached``: those too."""

    session: Id
    detached: bool = False


class Warrant(Message, frozen=True, tag=65):
    """Told before the first StartLease or StartActor of a session, and again when its grants
    change."""

    warrant: WarrantWord


class Revoked(Message, frozen=True, tag=66):
    """All that was ever revoked and still matters; ``epoch`` grows with each revocation. ``keys``:
    public keys; ``transports``: CURVE keys; ``grants``: ``ISSUER SERIAL``. ``running`` says what
    becomes of what runs by the newest one: stop or finish."""

    epoch: Count
    keys: list[Name]
    transports: list[Name]
    grants: list[Name]
    running: Name = "stop"


class AdmitCaller(Message, frozen=True, tag=67):
    """A caller with this CURVE key may call the actor."""

    actor: Id
    key: Name


# --- provider <-> worker ------------------------------------------------------------------------


class WorkerReady(Message, frozen=True, tag=80):
    """Worker -> provider, control lane, after Hello: listening at ``endpoints``."""

    endpoints: list[Endpoint]


class Bind(Message, frozen=True, tag=81):
    """Provider -> worker: you now work for this session (once in a worker's life). ``signers``: the
    keys of which one must have signed what is unpickled as code; None: nobody need have.
    ``runtime``: empty is ``python``; in others it runs programs of the ``image`` and no Python of
    the session's, each held to ``limits``. ``root``: where that image is: for ``native`` the
    directory it is unpacked in, else the store. ``env``: what it takes on first. ``devices``: what
    it may use of those that are counted one by one (``GPU``), by their ids; a name with none: it
    must see none of them. ``group``: the placement group it works in; ``capture`` as in
    Placing; ``terms`` as in Shape."""

    session: Id
    namespace: Name
    lease: Id = ""
    keys: list[Name] = []
    signers: list[Name] | None = None
    root: Text = ""
    runtime: Name = ""
    env: EnvPlace | None = None
    devices: dict[Name, list[Name]] = {}
    group: Id = ""
    capture: bool = False
    image: Name = ""
    limits: Limits | None = None
    terms: Terms | None = None


class LoadActor(Message, frozen=True, tag=82):
    """Provider -> worker, data lane: become this actor. ``signatures``: of the payload. ``state``:
    as in StartActor."""

    spec: ActorSpec
    incarnation: Count
    payload: bytes
    signatures: Document = b""
    state: State = b""


class ActorLoaded(Message, frozen=True, tag=83):
    """Worker -> provider: the constructor ended; empty ``error`` means well."""

    actor: Id
    error: bytes = b""


class Blocked(Message, frozen=True, tag=84):
    """Worker -> provider: the main thread entered (or left) a blocking get()."""

    blocked: bool


class Keeping(Message, frozen=True, tag=182):
    """Worker -> provider: others have values and references of it, so that it stays where it was
    only asked to leave, and else takes its time; or, not ``keeps``, nobody has any more."""

    keeps: bool


class Stand(Message, frozen=True, tag=210):
    """Give back what has not started, and take no calls until GoOn; the process may be stopped once
    it has answered with Stood. An instance in which its programs run is suspended by the worker."""

    number: Count


class Stood(Message, frozen=True, tag=211):
    """Nothing that its callers sent waits here any more; or ``error``: it cannot stand still."""

    number: Count
    error: Text = ""


class GoOn(Message, frozen=True, tag=212):
    """Calls are welcome again."""

    number: Count


class TakeState(Message, frozen=True, tag=220):
    """Give back what has not started, and when nothing runs any more take the actor's state.
    Answered by StateTaken, or by Stood with an error. Then wait, for the end or for GoOn."""

    number: Count


class StateTaken(Message, frozen=True, tag=221):
    """Worker -> provider, data lane: what the actor's ``__checkpoint__`` returned, pickled."""

    number: Count
    state: State


class Leave(Message, frozen=True, tag=85):
    """Provider -> worker: exit after the queued calls (``graceful``) or now. ``if_unused``: but not
    while others need what it keeps, which it says by Keeping."""

    graceful: bool = False
    if_unused: bool = False


class Quit(Message, frozen=True, tag=216):
    """Provider -> worker: end what runs, ask it first; after so many seconds this process is
    killed."""

    grace: Amount


class Admit(Message, frozen=True, tag=86):
    """Provider -> worker: callers with these CURVE keys may call."""

    keys: list[Name]


class Expel(Message, frozen=True, tag=87):
    """Provider -> worker: callers with these CURVE keys may call no more, their links end."""

    keys: list[Name]


class Refusal(Message, frozen=True, tag=88):
    """Worker -> provider, for the audit log: a caller or its code was refused."""

    who: Name
    action: Name
    object: Name
    reason: Name
    detail: Text


class Retiring(Message, frozen=True, tag=89):
    """Worker -> provider: it has run a function as often as that allows. It takes no more calls,
    and is to leave when its lease is over."""


class InstanceGone(Message, frozen=True, tag=189):
    """Worker -> provider: the instance that its code runs in has ended, for this ``cause`` (of
    ``errors.DEATH_CAUSES``), and so is it to end."""

    cause: Name
    detail: Text


# --- caller -> worker ---------------------------------------------------------------------------


class Call(Word, frozen=True):
    """One call. ``fn`` is a function id for tasks, empty for actor methods, whose name is
    ``method``. ``args`` is the pickled ``(args, kwargs)``, in which placeholders stand for
    ``deps``. Frames: first the buffers of args, then those of each dep.

    ``returns``: number of results, -1 for a stream. ``remaining``: seconds left of the call's
    timeout, 0 for none. ``group``: concurrency group. Large arguments are, as in a Value, in the
    frames or ``stored``. ``window``: items of a stream that may be unread before its producer
    pauses, 0 for any number."""

    id: Count
    fn: Annotated[bytes, Meta(max_length=32)]
    method: Name
    args: bytes
    buffers: Count = 0
    deps: list[Value] = []
    returns: int = 1
    priority: int = 0
    remaining: float = 0.0
    attempt: Count = 0
    group: Name = ""
    refs: list[RefWord] = []
    stored: Stored | None = None
    window: Count = 0


class Define(Message, frozen=True, tag=90):
    """Data lane, before the first Call that uses it on this link. ``signatures``: of the blob,
    where the session signs its code. ``max_calls``: runs after which the worker leaves, 0 for no
    end. ``resources``: what the lease holds. ``refs``: references that the code captured, lent
    until the link ends."""

    fn: Annotated[bytes, Meta(max_length=32)]
    name: Name
    blob: bytes
    signatures: Document = b""
    max_calls: Count = 0
    resources: Amounts = {}
    refs: list[RefWord] = []


class Calls(Message, frozen=True, tag=91):
    """Data lane: a batch, in order."""

    calls: list[Call]


class CancelCall(Message, frozen=True, tag=92):
    """Control lane. Queued: dropped. Running: interrupted (sync), cancelled (async) or flagged;
    ``timeout``: because its time ran out."""

    call: Count
    timeout: bool = False
    recursive: bool = True


class TakeBack(Message, frozen=True, tag=93):
    """Control lane: bounce up to ``count`` calls that have not started, latest first."""

    count: Count


class Fetch(Message, frozen=True, tag=95):
    """Control lane, both ways, borrower to lender: send the value when there is one (Object).
    ``whole``: its bytes, for the place that was named last time is gone."""

    request: Count
    ref: RefWord
    whole: bool = False


class Release(Message, frozen=True, tag=96):
    """Control lane, both ways, borrower to lender: a loan of each of these refs is over."""

    refs: list[RefWord]


class StreamTaken(Message, frozen=True, tag=98):
    """Control lane: the reader of a streaming call with a window has taken ``taken`` items in
    all."""

    call: Count
    taken: Count


# --- worker -> caller ---------------------------------------------------------------------------


class Reply(Word, frozen=True):
    """The outcome of one call: one Value per return, or one error Value. ``fault``: the type of
    the error, for listings. ``missing``: the error is that a stored value was gone, before the call
    could start."""

    id: Count
    values: list[Value]
    attempt: Count = 0
    fault: Name = ""
    missing: bool = False


class Replies(Message, frozen=True, tag=100):
    """Data lane: a batch. Frames: the buffers of each value in turn. ``times``: little-endian
    8-byte floats, or nothing at all: what turns the worker's clock into seconds of the epoch, and
    for each reply when the call began by that clock, 0 if it never did, and when it ended."""

    replies: list[Reply]
    times: bytes = b""


class StreamItem(Message, frozen=True, tag=101):
    """Data lane: item ``index`` (from 0) of a streaming call; its end is a Reply."""

    call: Count
    index: Count
    value: Value


class Bounced(Message, frozen=True, tag=102):
    """Control lane: these calls were not started and will not be; ``blocked`` when the worker
    waits in get() and takes no more until Unblocked; ``retiring`` when it takes no more at all.
    ``halt``: to be answered with Halted, for the worker is about to stand still."""

    calls: list[Count]
    blocked: bool = False
    retiring: bool = False
    halt: bool = False


class Unblocked(Message, frozen=True, tag=103):
    """Control lane: calls are welcome again."""


class Halted(Message, frozen=True, tag=213):
    """Data lane: no calls follow until Unblocked."""


class Unused(Message, frozen=True, tag=97):
    """Data lane: blocks of the receiver's arenas, given with results, that the sender uses no
    more. A call that follows can use them again."""

    blocks: list[BlockName]


class ReadBlock(Message, frozen=True, tag=180):
    """Caller to worker, control lane: send bytes ``offset`` to ``offset + length`` of what follows
    the header of a block that was given to the sender. Answered by BlockChunk."""

    request: Count
    block: BlockName
    offset: Count
    length: Annotated[int, Meta(ge=1, le=64 << 20)]


class BlockChunk(Message, frozen=True, tag=181):
    """Data lane. The bytes are the frame that follows, ``checksum`` their CRC-32; without a frame,
    the block is not the asker's to read any more."""

    request: Count
    offset: Count
    checksum: Count = 0


class KeepBlock(Message, frozen=True, tag=184):
    """Caller to its depot on another machine, control lane: hold this block of your machine's
    memory, as the value ``ref``. Answered by Placed."""

    ref: RefWord
    stored: Stored


class BringValue(Message, frozen=True, tag=185):
    """Caller to its depot, control lane: have the value ``ref`` come to your machine. ``sizes``: of
    its parts; ``sources``: who has it or will, depots by their actor ids, the caller itself by an
    empty one; ``spares``: whom to ask when these fail. Answered by Placed."""

    ref: RefWord
    sizes: Sizes
    sources: Annotated[list[Id], Meta(max_length=64)]
    spares: Annotated[list[Id], Meta(max_length=4096)] = []


class Placed(Message, frozen=True, tag=186):
    """Depot to its caller, control lane: where the value is on this machine; or ``why`` it is
    not."""

    ref: RefWord
    stored: Stored | None = None
    why: Text = ""


class DropValues(Message, frozen=True, tag=187):
    """Caller to its depot, control lane: these are needed no more."""

    refs: list[RefWord]


class ReadValue(Message, frozen=True, tag=188):
    """Depot to depot, or to the caller that asked it to bring a value, control lane: send bytes
    ``offset`` to ``offset + length`` of the value, now or when they are there. Answered by
    BlockChunk, with the number ``request``."""

    request: Count
    ref: RefWord
    offset: Count
    length: Annotated[int, Meta(ge=1, le=64 << 20)]


class Leaving(Message, frozen=True, tag=183):
    """Worker to caller, control lane: I end soon; fetch now what I keep for you."""


class Object(Message, frozen=True, tag=104):
    """Answer to Fetch, data lane, both ways; who has it no longer sends an OwnerDied error."""

    request: Count
    value: Value


# --- authority: keys, grants, audit; a caller with the right to it, and the hub -------------------


class AskKeys(Message, frozen=True, tag=120):
    """Answered by KeyList."""

    request: Count


class ApproveKey(Message, frozen=True, tag=121):
    """A key may take part in its role, under ``name`` if one is given. Answered by Done."""

    request: Count
    key: Name
    name: Name = ""


class RevokeKey(Message, frozen=True, tag=122):
    """For good. ``running``: stop, or finish what runs. Answered by Done, when it took effect."""

    request: Count
    key: Name
    running: Name = "stop"
    reason: Text = ""


class MakeInvitation(Message, frozen=True, tag=123):
    """``role``: provider or app; ``seconds`` it is good for, once. Answered by Invitation."""

    request: Count
    role: Name
    name: Name = ""
    seconds: float = 600.0


class PutGrant(Message, frozen=True, tag=124):
    """Keep this grant, signed by an owner. Answered by Done."""

    request: Count
    envelope: Document


class RevokeGrant(Message, frozen=True, tag=125):
    """Answered by Done, when it took effect."""

    request: Count
    issuer: Name
    serial: Count
    running: Name = "stop"
    reason: Text = ""


class AskGrants(Message, frozen=True, tag=126):
    """Of one app, or all with an empty ``app``; without the right to it, one's own. Answered by
    GrantList."""

    request: Count
    app: Name = ""


class AskAudit(Message, frozen=True, tag=127):
    """Entries of the audit log after number ``after``, at most ``limit``; empty filters match all.
    ``newest``: from the end. Answered by AuditLines."""

    request: Count
    after: Count = 0
    limit: Count = 100
    newest: bool = True
    who: Name = ""
    action: Name = ""
    decision: Name = ""
    reason: Name = ""
    since: float = 0.0


class PutSuccession(Message, frozen=True, tag=128):
    """The sender's key is followed by another: the envelope both signed. Answered by Done."""

    request: Count
    envelope: Document


class AskChallenge(Message, frozen=True, tag=130):
    """The HTTP server, for who wants a token. Answered by ChallengeIs."""

    request: Count
    key: Name


class AskToken(Message, frozen=True, tag=131):
    """The HTTP server: a statement over the nonce, signed by the key. Answered by TokenIs."""

    request: Count
    statement: Document
    signature: Nonce


class UseToken(Message, frozen=True, tag=132):
    """The HTTP server: may the bearer do this? Answered by Allowed, or Fault."""

    request: Count
    token: Name
    action: Name
    object: Name = ""


class DropToken(Message, frozen=True, tag=133):
    """The HTTP server: the token is not to be used any more. Answered by Done."""

    request: Count
    token: Name


class ReserveSession(Message, frozen=True, tag=134):
    """The HTTP server: a session for the bearer, kept for ``seconds``. Answered by Done, its text
    is the session's id."""

    request: Count
    token: Name
    name: Name = ""
    seconds: float = 3600.0


class CloseSession(Message, frozen=True, tag=135):
    """End a session of one's own, or as an administrator any. ``token``: of the bearer, from the
    HTTP server. Answered by Done."""

    request: Count
    session: Id
    token: Name = ""


class SignSession(Message, frozen=True, tag=137):
    """The HTTP server: the statement by which providers believe whose the bearer's ``session`` is,
    as in a Proof of its root caller, but for no link, peer or CURVE key. Answered by Done."""

    request: Count
    token: Name
    session: Id
    statement: Document
    signature: Nonce


class AskSessions(Message, frozen=True, tag=136):
    """One's own sessions, as an administrator all. ``token`` as above. Answered by SessionList."""

    request: Count
    token: Name = ""


class KeyList(Message, frozen=True, tag=140):
    """Data lane: answer to AskKeys."""

    request: Count
    keys: list[KeyRow]


class Invitation(Message, frozen=True, tag=141):
    """Answer to MakeInvitation. ``expires`` in epoch seconds."""

    request: Count
    token: Name
    expires: float


class GrantList(Message, frozen=True, tag=142):
    """Data lane: answer to AskGrants."""

    request: Count
    grants: list[GrantRow]


class AuditLines(Message, frozen=True, tag=143):
    """Data lane: answer to AskAudit. Lines as in the log; ``last`` is the number of the last one
    looked at."""

    request: Count
    lines: list[Text]
    last: Count = 0


class Done(Message, frozen=True, tag=144):
    """It is done and will not be forgotten."""

    request: Count
    text: Text = ""


class ChallengeIs(Message, frozen=True, tag=145):
    """Answer to AskChallenge."""

    request: Count
    nonce: Nonce
    hub: Name


class TokenIs(Message, frozen=True, tag=146):
    """Answer to AskToken. ``expires`` in epoch seconds."""

    request: Count
    token: Name
    key: Name
    expires: float


class Allowed(Message, frozen=True, tag=147):
    """Answer to UseToken: ``key`` may; ``storage`` bytes it may still store."""

    request: Count
    key: Name
    storage: Count = 0


class SessionList(Message, frozen=True, tag=148):
    """Data lane: answer to AskSessions."""

    request: Count
    sessions: list[SessionRow]


# --- images: who uploads or asks, and the hub ----------------------------------------------------


class OfferImage(Message, frozen=True, tag=150):
    """Data lane: an image to be stored. Answered by WantChunks, or Done if it is there. ``token``:
    of the bearer, from the HTTP server."""

    request: Count
    manifest: Document
    signatures: Document = b""
    token: Name = ""


class PutChunk(Message, frozen=True, tag=151):
    """Data lane: a chunk of a blob of an offered image. Answered by Done."""

    request: Count
    image: Name
    blob: Name
    index: Count
    data: bytes


class SealImage(Message, frozen=True, tag=152):
    """All chunks are there: keep the image. Answered by Done."""

    request: Count
    image: Name


class AskImages(Message, frozen=True, tag=153):
    """Those the asker may use. Answered by ImageList."""

    request: Count
    token: Name = ""


class AskImage(Message, frozen=True, tag=154):
    """Answered by ImageIs."""

    request: Count
    image: Name
    token: Name = ""


class AskChunk(Message, frozen=True, tag=155):
    """Answered by ChunkIs."""

    request: Count
    image: Name
    blob: Name
    index: Count


class RemoveImage(Message, frozen=True, tag=156):
    """Answered by Done."""

    request: Count
    image: Name
    token: Name = ""


class WantChunks(Message, frozen=True, tag=160):
    """Answer to OfferImage: what is missing; what an earlier upload left is not sent again."""

    request: Count
    image: Name
    missing: list[ChunkList]


class ImageList(Message, frozen=True, tag=161):
    """Data lane: answer to AskImages."""

    request: Count
    images: list[ImageRow]


class ImageIs(Message, frozen=True, tag=162):
    """Data lane: answer to AskImage."""

    request: Count
    manifest: Document
    signatures: Document = b""


class ChunkIs(Message, frozen=True, tag=163):
    """Data lane: answer to AskChunk."""

    request: Count
    data: bytes


# --- placement groups: callers and the hub, the hub and providers ---------------------------------


class CreateGroups(Message, frozen=True, tag=200):
    """Set these groups' room aside, or know them again. Each is answered in a GroupsAre, at once
    where there is room. ``request``: answered by Done, or by Fault(kind NameTaken)."""

    groups: Annotated[list[GroupSpec], Meta(max_length=1000)]
    request: Count = 0


class RemoveGroups(Message, frozen=True, tag=201):
    """The groups end, and all that runs in them. ``request``: answered by Done."""

    groups: Annotated[list[Id], Meta(max_length=1000)]
    request: Count = 0


class WatchGroups(Message, frozen=True, tag=202):
    """Tell me now, and from now on, how these groups fare (GroupsAre)."""

    groups: Annotated[list[Id], Meta(max_length=1000)]


class FindGroup(Message, frozen=True, tag=203):
    """Answered by GroupList with one row, or Fault(request, kind UsageError)."""

    request: Count
    name: Name
    namespace: Name


class AskGroups(Message, frozen=True, tag=204):
    """The groups that the caller may see, or one of them. Answered by GroupList."""

    request: Count
    group: Id = ""


class GroupsAre(Message, frozen=True, tag=205):
    """Hub -> who made or watches these groups."""

    groups: list[GroupUpdate]


class GroupList(Message, frozen=True, tag=206):
    """Data lane: answer to FindGroup and AskGroups."""

    request: Count
    groups: list[GroupRow]


class Reserve(Message, frozen=True, tag=237):
    """Keep this room. Answered by Done, or by Fault(kind NameTaken, UsageError, PermissionDenied or
    Unschedulable)."""

    request: Count
    reservation: ReservationSpec


class Unreserve(Message, frozen=True, tag=238):
    """It is needed no more. Answered by Done, or by Fault(kind NoSuchReservation)."""

    request: Count
    name: Id


class KeepGroups(Message, frozen=True, tag=207):
    """Hub -> provider: groups that outlive who made them and have room there; ``homes`` says where
    all of it is. Provider -> hub, before its Offer: those that it was told of."""

    groups: list[GroupSpec]


class DropGroups(Message, frozen=True, tag=208):
    """Hub -> provider: these groups have no room there any more."""

    groups: list[Id]


# --- looking inside: who asks, the hub, and who knows ---------------------------------------------


class AskSources(Message, frozen=True, tag=190):
    """Who can tell about the listing ``what``, of those the asker may look at. Answered by
    Sources."""

    request: Count
    what: Name


class Sources(Message, frozen=True, tag=191):
    """Data lane: answer to AskSources."""

    request: Count
    sources: list[SourceRow]


class Inquire(Message, frozen=True, tag=192):
    """A question for ``peer``, one of Sources. Answered by Page, or Fault."""

    request: Count
    peer: Id
    query: Query


class Page(Message, frozen=True, tag=193):
    """Data lane: answer to Inquire."""

    request: Count
    page: RowPage


class Inquiry(Message, frozen=True, tag=194):
    """Hub -> who knows: a question that ``asker`` may ask, and its number. ``sessions``: of which
    it may hear, None for all. Answered by Findings."""

    number: Count
    asker: Id
    query: Query
    sessions: list[Id] | None = None


class Findings(Message, frozen=True, tag=195):
    """Data lane: answer to Inquiry. ``kind`` names the error where there is nothing to show, with
    its ``detail``."""

    number: Count
    page: RowPage
    kind: Name = ""
    detail: Text = ""


class Tally(Message, frozen=True, tag=198):
    """A worker that leaves: how the calls that it made have ended, for the summaries of its
    session."""

    rows: Annotated[list[TallyRow], Meta(max_length=1000)]


class AskPlan(Message, frozen=True, tag=214):
    """What would run where, and who would give way, if ``count`` places of this shape were asked
    for now? Answered by PlanIs, or Fault."""

    request: Count
    shape: Shape
    count: Annotated[int, Meta(ge=1, le=64)] = 1


class PlanIs(Message, frozen=True, tag=215):
    """Data lane: answer to AskPlan. ``places`` in the order in which they would be taken;
    ``missing``: how many would wait; ``misses``: why, by provider; ``never``: why no provider that
    is there could ever do it."""

    request: Count
    places: list[PlannedPlace]
    missing: Count = 0
    misses: list[MissRow] = []
    never: Text = ""


class AskStack(Message, frozen=True, tag=196):
    """Provider -> worker: what are your threads at? Answered by StackIs."""

    number: Count


class StackIs(Message, frozen=True, tag=197):
    """Worker -> provider: answer to AskStack, one text a thread."""

    number: Count
    threads: Lines


Common = Hello | Welcome | Ping | Pong | Goodbye | Fault
Authority = (
    AskKeys | ApproveKey | RevokeKey | MakeInvitation | PutGrant | RevokeGrant | AskGrants
    | AskAudit | PutSuccession | AskChallenge | AskToken | UseToken | DropToken | ReserveSession
    | CloseSession | SignSession | AskSessions
)  # fmt: skip
AuthorityAnswer = (
    KeyList | Invitation | GrantList | AuditLines | Done | ChallengeIs | TokenIs | Allowed
    | SessionList
)  # fmt: skip
ImageQuestion = (
    OfferImage | PutChunk | SealImage | AskImages | AskImage | AskChunk | RemoveImage
)  # fmt: skip
ImageAnswer = WantChunks | ImageList | ImageIs | ChunkIs
GroupQuestion = (
    CreateGroups | RemoveGroups | WatchGroups | FindGroup | AskGroups | Reserve | Unreserve
)
ToQuestion = (
    Found | Grid | Info | Sources | Page | PlanIs | GroupList | AuthorityAnswer | ImageAnswer
)
"""Answers to what a caller asked the hub, by the ``request`` of the question."""
CallerToHub = (
    Common | Proof | SetDemand | ReturnLease | LeaseDue | CreateActor | WatchActor | FindActor
    | KillActor | AskGrid | AskInfo | HeldLeases | Relay | Report | Authority | ImageQuestion
    | GroupQuestion | AskSources | Inquire | Findings | Tally | AskPlan
)  # fmt: skip
HubToCaller = (
    Common | Challenge | LeaseGranted | LeaseRecalled | LeaseLost | LeaseSuspended | LeaseResumed
    | DemandInfeasible | ActorUpdate
    | Found | Grid | Info | Output | Relay | AuthorityAnswer | ImageAnswer | GroupsAre | GroupList
    | Sources | Page | Inquiry | PlanIs
)  # fmt: skip
ProviderToHub = (
    Common | Proof | Offer | KeepGroups | LeaseStarted | LeaseEnded | WorkerBlocked | WorkerResumed
    | ActorStarted | ActorEnded | Sample | Output | Vouch | Report | AskImage | AskChunk
    | Findings | Suspended | Resumed | AvailabilityIs | ActorSaved
)  # fmt: skip
HubToProvider = (
    Common | Challenge | StartLease | StopLease | StartActor | StopActor | EndSession | Warrant
    | Revoked | AdmitCaller | ImageIs | ChunkIs | KeepGroups | DropGroups | Inquiry
    | Suspend | Resume
)  # fmt: skip
ToHub = CallerToHub | ProviderToHub
FromStranger = Hello | Proof | Ping | Pong | Goodbye
"""All that a hub reads of who has not been let in."""
WorkerToProvider = (
    Common
    | WorkerReady
    | ActorLoaded
    | Blocked
    | Keeping
    | Refusal
    | Retiring
    | InstanceGone
    | StackIs
    | Stood
    | StateTaken
)
ProviderToWorker = (
    Common | Bind | LoadActor | Leave | Quit | Admit | Expel | AskStack | Stand | GoOn | TakeState
)  # fmt: skip
CallerToWorker = (
    Common | Define | Calls | CancelCall | TakeBack | Fetch | Release | Unused | ReadBlock
    | Object | StreamTaken | KeepBlock | BringValue | DropValues | ReadValue | BlockChunk
    | Halted
)  # fmt: skip
WorkerToCaller = (
    Common | Replies | StreamItem | Bounced | Unblocked | Fetch | Release | Object | BlockChunk
    | Leaving | Placed | ReadValue
)  # fmt: skip

BULK = (
    CreateActor, StartActor, LoadActor, Output, Relay, Define, Calls, Replies, StreamItem, Object,
    BlockChunk, Unused, OfferImage, PutChunk, ImageIs, ChunkIs, ImageList, KeyList, GrantList,
    AuditLines, SessionList, GroupList, Sources, Page, Findings, Halted,
    PlanIs, StateTaken, ActorSaved,
)  # fmt: skip
"""Messages of the data lane, because they may be large; all others go on the control lane."""
