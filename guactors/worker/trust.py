"""What this worker takes for code, and what it opens as data only.

Owns: the check of every blob before it is opened, the methods that may be called, the readers of
everything else, and what the provider is told of refusals. Must never: open code that is not
allowed, or keep an allowance after its signer was taken off the list.

Without ``signers`` the session trusts its callers, and pickles are opened as they come. With them,
what a caller sends is either signed code or data (``security/data_types``): arguments, values that
nested calls fetch, and errors. In a runtime but ``python`` no code of the session is opened out
here at all (``enclosed.py``).
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from guactors import values
from guactors.errors import PermissionDenied
from guactors.messages import Bind, Refusal
from guactors.payload import DEPLOYMENT, PROGRAM
from guactors.runtimes.base import Where
from guactors.worker.complaints import Complaints

if TYPE_CHECKING:
    from guactors.security.data_only import Maker, Name

FUNCTION: Final = "function"
CLASS: Final = "class"
PYTHON: Final = "python"
ARGUMENTS: Final = "the arguments"
CALLABLE: Final = "__call__"
"""The only method that may be called although its name begins with an underscore."""


class Trust:
    """``place``: where this is, for messages. ``who``: the name of whose call runs on this thread.
    ``tell``: sends to the provider. ``owner``: of instances, as in Spec."""

    def __init__(
        self,
        place: str,
        who: Callable[[], str],
        tell: Callable[[Refusal], None],
        owner: str = "",
    ) -> None:
        self._owner = owner
        self._place = place
        self._who = who
        self._complaints = Complaints(tell)
        self._good: set[bytes] = set()
        self.signers: frozenset[str] | None = None
        self.runtime = PYTHON
        self.where = Where()
        self.strict = False
        """Whether anything is refused at all."""

    def bind(self, message: Bind) -> None:
        """The rules from here on; what was allowed before is judged again."""
        self.signers = None if message.signers is None else frozenset(message.signers)
        self.runtime = message.runtime or PYTHON
        self.where = Where(self.runtime, message.root, message.image, message.limits, self._owner)
        self.strict = self.signers is not None or self.runtime != PYTHON
        self._good = set()
        if self.strict:
            values.openers.value = self._open_value
            values.openers.arguments = self._open_arguments
            values.openers.error = self._open_error
        else:
            for name, opener in vars(values.Openers()).items():
                setattr(values.openers, name, opener)

    # --- code -------------------------------------------------------------------------------------

    def check_code(self, purpose: str, name: str, blob: bytes, signatures: bytes) -> None:
        """Whether a blob may be opened in this process, as a function or class. Raises
        PermissionDenied."""
        if self.runtime != PYTHON:
            raise self._refusal(
                "runtime",
                f"{purpose} {name}",
                f"the {purpose} {name} was not opened {self._place}: its session runs in the "
                f"runtime {self.runtime!r}, and nothing of it in the provider's own Python",
            )
        self.check_signed(purpose, name, blob, signatures)

    def check_signed(self, purpose: str, name: str, blob: bytes, signatures: bytes) -> None:
        """Whether a blob may be opened at all, here or in an instance. Raises PermissionDenied."""
        if self.signers is None:
            return
        from guactors.security.code import Purpose, code_hash, judge_code
        from guactors.security.code_signing import remember

        wanted = Purpose(purpose)
        hash_ = code_hash(blob)
        key = f"{purpose} {hash_}".encode()
        if key in self._good:
            return
        judgement = judge_code(wanted, blob, signatures, self.signers)
        if not judgement.signer:
            raise self._refusal(
                judgement.reason,
                f"{purpose} {name[:100]} {hash_}",
                f"the {purpose} {name} was not opened {self._place}: {judgement.detail}. Sign it "
                "with init(signer=...), in the process that the user starts: code made inside a "
                "task cannot be signed",
            )
        self._good.add(key)
        remember(wanted, blob, signatures)

    def check_method(self, instance: Any, name: str) -> None:
        """Whether callers may call it: a public method of the class. Raises PermissionDenied."""
        known = not name.startswith("_") or name == CALLABLE
        if instance is None or not known or not callable(getattr(type(instance), name, None)):
            owner = "a worker for functions" if instance is None else type(instance).__name__
            raise self._refusal(
                "action",
                f"method {owner}.{name}",
                f"{name!r} was not called {self._place}: it is no public method of {owner}, and "
                "where code must be signed nothing else can be called",
            )

    def program(self) -> Callable[..., Any]:
        """The function that runs a program of the session's image. Raises PermissionDenied."""
        self._check_image(PROGRAM, "no program was run", "programs of an image need")
        from guactors.worker import programs

        def run_program(argv: Any, env: Any, cwd: Any = "", limits: Any = None) -> Any:
            try:
                return programs.run(self.where, argv, env, cwd, limits)
            except PermissionDenied as refusal:
                detail = f"no program was run {self._place}: {refusal}"
            raise self._refusal("image", f"program {argv[0]!r}", detail)

        return run_program

    def deployment(self) -> Callable[..., Any]:
        """What makes the actor that keeps an instance of the session's image. Raises
        PermissionDenied."""
        self._check_image(DEPLOYMENT, "nothing was deployed", "a deployment needs")
        from guactors.runtimes.choice import open_runtime
        from guactors.worker.deployment import Deployment
        from guactors.worker.programs import store_at

        where = self.where
        images = partial(store_at, where.root)
        runtime = partial(open_runtime, where.runtime, images)
        return partial(Deployment, where, runtime)

    def _check_image(self, what: bytes, nothing: str, needs: str) -> None:
        if self.runtime != PYTHON and self.where.root and self.where.image:
            return
        raise self._refusal(
            "runtime",
            what.decode(),
            f"{nothing} {self._place}: its session runs in the runtime {self.runtime!r}; {needs} "
            "an image and a runtime such as 'native'",
        )

    # --- data -------------------------------------------------------------------------------------

    def _open_value(self, data: bytes, *, buffers: Any = ()) -> Any:
        return self._load(data, buffers, "a value")

    def _open_arguments(self, data: bytes, *, buffers: Any = ()) -> Any:
        match self._load(data, buffers, ARGUMENTS):
            case (tuple() as args, dict() as kwargs) if all(type(key) is str for key in kwargs):
                return args, kwargs
        raise pickle.UnpicklingError("the arguments are no tuple and dict")

    def _open_error(self, data: bytes) -> Any:
        """Not told to the provider: the user's own exceptions come this way, too."""
        from guactors.security.data_only import NotData, load
        from guactors.security.data_types import ERRORS

        try:
            return load(data, (), ERRORS)
        except NotData as found:
            culprit = found.culprit
        raise PermissionDenied(f"an error was not opened {self._place}: {culprit} is no plain data")

    def _load(self, data: bytes, buffers: Any, what: str) -> Any:
        from guactors.security.data_only import NotData, load

        try:
            return load(data, buffers, _data())
        except NotData as found:
            culprit, path = found.culprit, found.path
        if path.startswith(("[0]", "[1]")) and what is ARGUMENTS:
            path = ("args" if path[1] == "0" else "kwargs") + path[3:]
        at = f" at {path}" if path else ""
        raise self._refusal(
            "function_signer",
            f"{what}: {culprit}",
            f"{what} could not be opened {self._place}: {culprit}{at} is no plain data, and could "
            "bring code that nobody signed. Send containers, numbers, texts, bytes, times, paths "
            "or arrays, and build the rest inside the signed code",
        )

    def _refusal(self, reason: str, object: str, detail: str) -> PermissionDenied:
        """What to raise; the provider is told."""
        refusal = Refusal(self._who()[:256], "code", object[:256], reason, detail[:4096])
        self._complaints.add(refusal, time.monotonic())
        return PermissionDenied(detail)


_all: dict[Name, Maker] = {}


def _data() -> dict[Name, Maker]:
    """The listed types, and references to objects and actors: they name what they stand for, and
    what is behind them is opened by the same rules."""
    if not _all:
        from guactors import refs, remote_actor
        from guactors.security.data_only import Maker
        from guactors.security.data_types import DATA

        def reference(owner: Any, object: Any) -> Any:
            if type(owner) is not str or type(object) is not int:
                raise TypeError("a reference is a text and a number")
            return refs._rebuild_ref(owner, object)

        def handle(id: Any, info: Any) -> Any:
            if type(id) is not str or type(info) is not bytes:
                raise TypeError("a handle is a text and bytes")
            return remote_actor._rebuild_handle(id, info)

        _all.update(DATA)
        _all["guactors.refs", "_rebuild_ref"] = Maker("ObjectRef", reference)
        _all["guactors.remote_actor", "_rebuild_handle"] = Maker("ActorHandle", handle)
    return _all
