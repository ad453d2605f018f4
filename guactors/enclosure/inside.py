"""The Python in an instance: opens the code of a session there, and runs its calls.

Owns: the interpreter's one life, functions by id or one actor, the order of calls. Must never:
import more than the standard library, ``frames`` and the cloudpickle that came with it, all sent
over its standard input; or write anything but frames where frames go.
"""

from __future__ import annotations

import inspect
import os
import pickle
import queue
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from guactors.enclosure import frames
from guactors.enclosure.inside_values import (
    NotSerializable,
    furnish,
    open_arguments,
    pack,
    pack_error,
)

assert sys.platform != "win32", "runs in images, where there is no Windows"

if TYPE_CHECKING:
    import asyncio  # where an actor needs it, for it takes long

TEXT_MOST = 8192
"""Characters of an unfinished line."""
AHEAD = 16
"""Items of a stream that may be on their way."""
_READ = 1 << 18


# --- the line -------------------------------------------------------------------------------------


class Line:
    """What is said to the worker; any thread."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._lock = threading.Lock()

    def say(self, header: dict[str, Any], parts: Iterable[Any] = ()) -> None:
        """A frame, whole."""
        with self._lock:
            for piece in frames.encode(header, list(parts)):
                view = memoryview(piece).cast("B")
                while view:
                    view = view[os.write(self._out, view) :]


class Printed:
    """A standard stream: what is written to it goes to the worker with the call that wrote it."""

    encoding = "utf-8"
    errors = "backslashreplace"
    closed = False

    def __init__(self, line: Line, stream: int) -> None:
        self._line = line
        self._stream = stream
        self._held = _Held()

    def write(self, text: str) -> int:
        held = self._held
        held.text += text
        if "\n" in text or len(held.text) > TEXT_MOST:
            self.flush()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        text, self._held.text = self._held.text, ""
        if text:
            self._line.say(
                {"say": "print", "stream": self._stream, "id": _present.id},
                [text.encode("utf-8", "backslashreplace")],
            )

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream


class _Held(threading.local):
    """Of each thread the line that it has begun: those of several calls are not mixed."""

    text = ""


class _Present(threading.local):
    id = 0


_present = _Present()
"""The call that this thread runs."""


# --- calls ----------------------------------------------------------------------------------------


class Calls:
    """All that is asked of this interpreter."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._blobs: dict[str, bytes] = {}
        self._functions: dict[str, Any] = {}
        self._actor: Any = None
        self._class = ""
        self._main: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._turn: Callable[[Callable[[], None]], Any] = self._main.put
        """Takes a call that is to run."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._current = 0
        self._cancelled: set[int] = set()
        self._pace: dict[int, threading.Semaphore] = {}
        signal.signal(signal.SIGINT, self._on_interrupt)

    def run(self) -> None:
        """The main thread, for good: calls one by one, or the event loop of an async actor."""
        while (work := self._main.get()) is not None:
            work()

    def hear(self, header: dict[str, Any], parts: list[Any]) -> None:
        """Of the reading thread."""
        asked = header["do"]
        if asked == "define":
            self._blobs[header["fn"]] = bytes(parts[0])
            self._functions.pop(header["fn"], None)
        elif asked == "load":
            self._main.put(lambda: self._load(header, parts))
        elif asked == "call":
            if header["returns"] < 0:
                self._pace[header["id"]] = threading.Semaphore(AHEAD)
            self._turn(lambda: self._call(header, parts))
        elif asked == "environ":
            set_variables(header["variables"])
        elif asked == "cancel":
            self._cancel(header["id"])
        elif asked == "more" and header["id"] in self._pace:
            self._pace[header["id"]].release()

    # --- cancelling ---------------------------------------------------------------------------

    def _cancel(self, id: int) -> None:
        self._cancelled.add(id)
        if id in self._pace:
            self._pace[id].release()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel_task, id)
        elif self._current == id:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    def _cancel_task(self, id: int) -> None:
        task = self._tasks.get(id)
        if task is not None:
            task.cancel()

    def _on_interrupt(self, _number: int, _frame: Any) -> None:
        if self._current in self._cancelled:
            raise KeyboardInterrupt

    # --- one actor ----------------------------------------------------------------------------

    def _load(self, header: dict[str, Any], parts: list[Any]) -> None:
        name = self._class = header["name"]
        try:
            cls = _open(parts[0], f"{name}()")
            is_async = _is_async(cls)
            threads = header["threads"]
            if is_async:
                import asyncio

                self._main.put(lambda: asyncio.run(self._serve(cls, header, parts)))
                return
            self._build(cls, header, parts)
        except BaseException as error:  # noqa: BLE001 - whatever it is, who waits is told
            self._line.say({"say": "loaded", "id": header["id"]}, [pack_error(error, f"{name}()")])
            return
        if threads + header["in_groups"] > 1:
            self._divide(threads + header["in_groups"])
        self._line.say({"say": "loaded", "id": header["id"], "threads": threads})

    def _build(self, cls: Any, header: dict[str, Any], parts: list[Any]) -> None:
        args, kwargs = open_arguments(header, parts[1:])
        self._actor = cls(*args, **kwargs)

    def _divide(self, threads: int) -> None:
        waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._turn = waiting.put

        def serve() -> None:
            while True:
                waiting.get()()

        for number in range(threads):
            threading.Thread(target=serve, name=f"call-{number}", daemon=True).start()

    async def _serve(self, cls: Any, header: dict[str, Any], parts: list[Any]) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        try:
            # On the loop, because constructors make locks and tasks.
            self._build(cls, header, parts)
        except BaseException as error:  # noqa: BLE001 - as above
            self._line.say(
                {"say": "loaded", "id": header["id"]}, [pack_error(error, f"{self._class}()")]
            )
            return
        self._turn = loop.call_soon_threadsafe
        self._loop = loop
        self._line.say({"say": "loaded", "id": header["id"], "threads": header["coroutines"]})
        await asyncio.Event().wait()

    # --- one call -----------------------------------------------------------------------------

    def _find(self, header: dict[str, Any]) -> Any:
        if not header["fn"]:
            return getattr(self._actor, header["method"])
        found = self._functions.get(header["fn"])
        if found is None:
            found = _open(self._blobs[header["fn"]], header["name"])
            self._functions[header["fn"]] = found
        return found

    def _call(self, header: dict[str, Any], parts: list[Any]) -> None:
        id, name = header["id"], header["name"]
        if self._loop is not None:
            self._tasks[id] = self._loop.create_task(self._await(header, parts))
            return
        main = threading.current_thread() is threading.main_thread()
        _present.id = id
        try:
            if main:
                self._current = id
            if id in self._cancelled:
                raise KeyboardInterrupt
            args, kwargs = open_arguments(header, parts)
            result = self._find(header)(*args, **kwargs)
            if header["returns"] < 0:
                for item in _iterate(result, name):
                    self._item(id, item, name)
                result = None
            self._current = 0
            self._done(id, result, header["returns"], name)
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            self._current = 0
            self._failed(id, error, name)
        finally:
            self._forget(id)

    async def _await(self, header: dict[str, Any], parts: list[Any]) -> None:
        import asyncio

        id, name = header["id"], header["name"]
        try:
            args, kwargs = open_arguments(header, parts)
            result = self._find(header)(*args, **kwargs)
            if header["returns"] < 0:
                if hasattr(result, "__aiter__"):
                    async for item in result:
                        await asyncio.to_thread(self._item, id, item, name)
                else:
                    for item in _iterate(result, name):
                        await asyncio.to_thread(self._item, id, item, name)
                result = None
            elif inspect.isawaitable(result):
                result = await result
            self._done(id, result, header["returns"], name)
        except asyncio.CancelledError:
            self._failed(id, KeyboardInterrupt(), name)
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            self._failed(id, error, name)
        finally:
            self._forget(id)

    def _forget(self, id: int) -> None:
        _present.id = 0
        self._tasks.pop(id, None)
        self._pace.pop(id, None)
        self._cancelled.discard(id)

    # --- answers ------------------------------------------------------------------------------

    def _item(self, id: int, value: Any, name: str) -> None:
        pace = self._pace.get(id)
        if pace is not None:
            pace.acquire()
        if id in self._cancelled:
            raise KeyboardInterrupt
        data, buffers, refs = pack(value, f"an item of {name}")
        told = {"say": "item", "id": id, "counts": [len(buffers)], "refs": [refs]}
        self._line.say(told, [data, *buffers])

    def _done(self, id: int, result: Any, returns: int, name: str) -> None:
        _flush()
        parts: list[Any] = []
        counts, noted = [], []
        for i, value in enumerate(_split(result, returns, name)):
            which = f" [{i}]" if returns > 1 else ""
            data, buffers, refs = pack(value, f"the result of {name}{which}")
            parts += [data, *buffers]
            counts.append(len(buffers))
            noted.append(refs)
        self._line.say({"say": "done", "id": id, "counts": counts, "refs": noted}, parts)

    def _failed(self, id: int, error: BaseException, name: str) -> None:
        _flush()
        if isinstance(error, NotSerializable):
            self._line.say(
                {"say": "failed", "id": id, "own": "NotSerializable", "text": str(error)}
            )
            return
        told: dict[str, Any] = {"fault": type(error).__name__[:256]}
        if isinstance(error, SystemExit):
            told["exit"] = error.code if isinstance(error.code, int) else int(bool(error.code))
        self._line.say({"say": "failed", "id": id, **told}, [pack_error(error, name)])


def _flush() -> None:
    """What a call printed comes before its end."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def set_variables(variables: dict[str, str]) -> None:
    """As Ray does: ``${NAME}`` stands for what was there before."""
    before = dict(os.environ)
    for name, value in variables.items():
        os.environ[name] = re.sub(r"\$\{(\w+)\}", lambda found: before.get(found[1], ""), value)


def _open(blob: Any, name: str) -> Any:
    try:
        return pickle.loads(blob)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name} needs module {error.name!r}, which the image does not have: put it there, or "
            "define what you use in the file that you run",
            name=error.name,
        ) from error


def _is_async(cls: Any) -> bool:
    return isinstance(cls, type) and any(
        inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        for _, member in inspect.getmembers(cls)
    )


def _iterate(result: Any, name: str) -> Iterable[Any]:
    if hasattr(result, "__iter__"):
        return result  # type: ignore[no-any-return]
    raise TypeError(f"{name} streams, but returned {type(result).__name__}, which is no iterator")


def _split(result: Any, returns: int, name: str) -> Any:
    if returns <= 0:
        return () if returns < 0 else (None,)
    if returns == 1:
        return (result,)
    if hasattr(result, "__next__"):
        result = list(result)
    if not isinstance(result, tuple | list) or len(result) != returns:
        got = f"{len(result)} values" if isinstance(result, tuple | list) else repr(type(result))
        raise ValueError(f"{name} has num_returns={returns} but returned {got}")
    return result


def main() -> None:
    """For good: until the worker closes its end. User code finds its standard input empty, and what
    it writes past Python to its standard output on the other stream."""
    furnish()
    source, out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    line = Line(out)
    sys.stdout, sys.stderr = Printed(line, 1), Printed(line, 2)
    calls = Calls(line)

    def read() -> None:
        splitter = frames.Splitter()
        while data := os.read(source, _READ):
            for header, parts in splitter.feed(data):
                calls.hear(header, parts)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    line.say({"say": "ready"})
    calls.run()
