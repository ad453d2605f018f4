"""What a PATCH of a deployment asks for: commands, done in order until one fails.

Owns: their forms, and what each does and answers. Must never: fetch or send anything from or to an
address that a client names: this process is inside of walls that the client may be outside of.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Final

from pydantic import Field, ValidationError

from guactors.deployment import Deployment, Finished
from guactors.errors import GuactorsError, InstanceLost, PeerLost, TaskError, UsageError
from guactors.web.deployment_forms import Camel

MOST_COMMANDS: Final = 1000
MOST_OUTPUT: Final = 4 << 20
"""Bytes of output that one answer brings; of more, the beginning."""
GRACE: Final = 5.0
"""Seconds between asking a program to end and ending it."""
OK: Final = "OK"
_SIGNALLED: Final = 128


class ExecForm(Camel):
    """``working_dir``: a path in the instance."""

    executable: str = Field(min_length=1, max_length=4096)
    args: list[str] = Field(default_factory=list)
    working_dir: str = ""
    user: str = ""
    env: dict[str, str] = Field(default_factory=dict)


class StopForm(Camel):
    """``childId``: as ``start`` answered."""

    child_id: str = Field(alias="childId", max_length=32)


class TransferForm(Camel):
    """Not done here: see ``_transfer``."""

    uri: str = ""
    file_path: str = Field("", alias="filePath")
    format: str = "raw"


class WriteForm(Camel):
    """``content`` becomes the file."""

    content: str
    file_path: str = Field(alias="filePath", min_length=1, max_length=4096)


class Failed(Exception):
    """A command did what it was asked and that went wrong; the text is its answer."""


Do = Callable[[Deployment], str]


def parse(commands: Any) -> list[Do]:
    """Raises UsageError that names the wrong command; nothing was done then."""
    if type(commands) is not list or len(commands) > MOST_COMMANDS:
        raise UsageError(f"commands are a list of at most {MOST_COMMANDS}")
    return [_parse(index, one) for index, one in enumerate(commands)]


def run(it: Deployment, commands: list[Do]) -> tuple[list[str], bool]:
    """What each answered, and whether the last of these failed. Raises PeerLost where nobody is
    there to do it."""
    told: list[str] = []
    left = MOST_OUTPUT
    for do in commands:
        try:
            text, failed = do(it), False
        except Failed as failure:
            text, failed = str(failure), True
        except InstanceLost as error:
            text, failed = plain(error), True
        except PeerLost:
            raise
        except GuactorsError as error:
            text, failed = plain(error), True
        if len(text) > left:
            text = f"{text[:left]}\n[{len(text) - left} characters more]"
        left = max(0, left - len(text))
        told.append(text)
        if failed:
            return told, True
    return told, False


def plain(error: BaseException) -> str:
    """What to tell a client of an error, without its story."""
    if isinstance(error, TaskError) and error.cause is not None:
        return f"{type(error.cause).__name__}: {error.cause}"
    return str(error)


def _parse(index: int, command: Any) -> Do:
    if type(command) is str and command in _WORDS:
        return _WORDS[command]
    if type(command) is dict and len(command) == 1:
        [(name, value)] = command.items()
        if name in _FORMS:
            form, do = _FORMS[name]
            try:
                given = value if form is None else form.model_validate(value)
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(part) for part in first["loc"])
                raise UsageError(f"command {index}, {name}.{place}: {first['msg']}") from None
            return do(given)
    known = ", ".join([*_WORDS, *_FORMS])
    raise UsageError(f"command {index} is none of {known}")


def _open(it: Deployment) -> str:
    facts = it.facts()
    if facts.state == "ended":
        raise Failed(f"it has ended ({facts.end}): make a new deployment")
    return OK


def _close(it: Deployment) -> str:
    it.stop(GRACE)
    return OK


def _wait(it: Deployment) -> str:
    for number in it.programs():
        it.wait(number)
    return OK


def _exec(form: ExecForm) -> Do:
    def do(it: Deployment) -> str:
        said, dropped, code = bytearray(), 0, 0
        argv = [form.executable, *form.args]
        for kind, data in it.exec(argv, env=form.env, cwd=form.working_dir, user=form.user):
            if kind == "exit":
                code = int(data)
            elif isinstance(data, bytes):
                room = MOST_OUTPUT - len(said)
                said += data[:room]
                dropped += max(0, len(data) - room)
        text = said.decode("utf-8", "replace") + (f"\n[{dropped} bytes more]" if dropped else "")
        if code:
            number = code if code > 0 else _SIGNALLED - code
            raise Failed(f"{text}\nExit code: {number}")
        return text

    return do


def _start(form: ExecForm) -> Do:
    def do(it: Deployment) -> str:
        argv = [form.executable, *form.args]
        number = it.start(argv, env=form.env, cwd=form.working_dir, user=form.user)
        return str(number)

    return do


def _stop(form: StopForm) -> Do:
    if not form.child_id.isascii() or not form.child_id.isdigit():
        raise UsageError("a childId is what start answered")
    number = int(form.child_id)

    def do(it: Deployment) -> str:
        it.signal(number, signal.SIGTERM)
        ended: Finished | None = it.wait(number, GRACE)
        if ended is None:
            it.signal(number, 9)
            it.wait(number, GRACE)
        return OK

    return do


def _write(form: WriteForm) -> Do:
    def do(it: Deployment) -> str:
        it.put(form.file_path, form.content.encode("utf-8", "surrogatepass"))
        return OK

    return do


def _transfer(_form: TransferForm) -> Do:
    def do(_it: Deployment) -> str:
        raise Failed(
            "this hub fetches nothing from addresses, and sends nothing there: PUT the file to "
            ".../deployments/ID/files?path=PATH&format=raw|tar, or GET it from there"
        )

    return do


def _tags(*, add: bool) -> Callable[[Any], Do]:
    def tags(given: Any) -> Do:
        if type(given) is not list or not all(type(one) is str for one in given):
            raise UsageError("tags are a list of texts")
        return lambda it: _changed(it, given, add=add)

    return tags


def _changed(it: Deployment, given: list[str], *, add: bool) -> str:
    it.change_tags(add=given if add else (), remove=() if add else given)
    return OK


_WORDS: Final[dict[str, Do]] = {"open": _open, "close": _close, "wait": _wait}
_FORMS: Final[dict[str, tuple[Any, Callable[[Any], Do]]]] = {
    "exec": (ExecForm, _exec),
    "start": (ExecForm, _start),
    "stop": (StopForm, _stop),
    "downloadFile": (TransferForm, _transfer),
    "uploadFile": (TransferForm, _transfer),
    "writeFile": (WriteForm, _write),
    "addTags": (None, _tags(add=True)),
    "delTags": (None, _tags(add=False)),
}
