"""The written rules of the source, held by reading it: who may import whom, who may touch what.

words <- ports, thinking <- adapters <- shells <- doors. Ports import words only and hold types
only, so thinking may name them. A module that fits no row of LAYERS fails the first test: decide
where it belongs, then add it here.
"""

from __future__ import annotations

import ast
import functools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "guactors"

LAYERS: dict[str, tuple[str, ...]] = {
    "words": (
        "accelerators", "alternatives", "group_sizes", "ids", "errors", "messages", "config",
        "payload",
    ),
    "ports": (
        "transport.base", "runtimes.base", "runtimes.workers", "store.base", "objects.base",
        "idle.base",
    ),
    "thinking": (
        "*_state", "*_core", "join", "scheduling", "scheduling.*", "caller", "caller.*",
        "provider_state.*", "hub_state", "hub_state.*", "gatekeeper_state", "gatekeeper_state.*",
        "image_state", "image_state.*",
        "inf", "listing", "waiting", "options", "placing", "printing", "terms",
        "runtime_env",
        "runtime_env.description", "runtime_env.options", "trace", "util.scheduling_strategies",
        "actors.mailbox", "actors.supervision",
        "transport.frames", "transport.liveness", "transport.backoff",
        "transport.addresses", "transport.doors", "transport.links", "transport.verdicts",
        "transport.zap", "security", "security.canonical", "security.keys", "security.succession",
        "security.signing", "security.grants", "security.rights", "security.policy",
        "security.audit", "security.statements", "security.marks", "security.introduction",
        "security.code", "security.data_only", "security.words", "images", "images.manifest",
        "images.transfer_state", "objects.space", "objects.layout", "objects.pulling",
    ),
    "adapters": (
        "arrays", "enclosure", "enclosure.*", "transport", "transport.*", "runtimes", "runtimes.*",
        "home", "machine", "memory", "reservation_file", "values", "versions", "security.*",
        "images.*", "store", "store.*", "runtime_env.*", "objects", "objects.*", "idle", "idle.*",
    ),
    "shells": (
        "*_actor", "actors", "actors.*", "assigned", "context", "credentials", "embedding",
        "hub_keys", "env_client", "image_client", "looking", "provider_disk", "provider_envs",
        "provider_fetch", "provider_idle", "provider_images", "provider_leftovers", "provider_look",
        "provider_policy", "grid_client", "grid_file", "hub_line", "hub_wire", "peer_links",
        "provider_crew", "provider_link", "pump",
        "refs", "remote_function", "session", "session_questions", "session_depots",
        "session_store", "session_values", "actor_making",
        "actor_registry",
        "worker", "worker.*",
    ),
    "doors": (
        "", "actor", "api", "deployment", "exceptions", "foresight", "node",
        "reservations",
        "cli", "cli.*", "integrations",
        "integrations.*",
        "util", "util.*", "web", "web.*",
    ),
}  # fmt: skip
"""First match wins, from the top; names without the package's."""

UPWARDS = {
    ("remote_function", "api"): "the first call starts a grid, as in Ray",
    ("remote_actor", "api"): "the first call starts a grid, as in Ray",
    ("session_depots", "api"): "a depot opens the session of its process",
}
"""The arrows that may point the wrong way, each inside a function."""

RANK = {layer: rank for rank, layer in enumerate(LAYERS)}

IMPURE = {
    "asyncio", "concurrent", "multiprocessing", "random", "select", "selectors", "signal", "socket",
    "subprocess", "threading", "time", "zmq",
}  # fmt: skip
"""What words, thinking and ports may not import: clocks, chance, waiting and the outside world."""

ONLY_IN: dict[str, tuple[str, ...]] = {
    "zmq": ("transport.zmq_link",),
    "subprocess": ("runtimes.*",),
    "multiprocessing": ("runtimes.*", "integrations.pool_results"),
    "pty": ("runtimes.*",),
    "typer": ("cli.*",),
    "rich": ("cli.*", "integrations.progress"),
}
"""Imports that only some modules may have, so that a change of mind stays in one place."""

PROCESS_STARTERS = {
    "create_subprocess_exec", "create_subprocess_shell", "execl", "execle", "execlp", "execv",
    "execve", "execvp", "execvpe", "fork", "forkpty", "popen", "posix_spawn", "posix_spawnp",
    "spawnl", "spawnv", "startfile", "system",
}  # fmt: skip

LONGEST_FILE = 400
LONGEST_FUNCTION = 50
ALLOWANCE = 1.1
"""The limits are a guide: a tenth more is fine, beyond that ask which second noun is in it."""
LONG_FOR_A_REASON = {
    "messages": "one file holds every message that crosses a border",
}


@dataclass(frozen=True)
class Module:
    """A source file, read but not run."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def layer(self) -> str | None:
        for layer, patterns in LAYERS.items():
            if any(fnmatch(self.name, pattern) for pattern in patterns):
                return layer
        return None

    def imports(self, *, lazy: bool = True) -> Iterator[tuple[str, int]]:
        """Absolute dotted names with their lines, but those for the type checker only."""
        for node in _run_time_nodes(self.tree, lazy=lazy):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno}: relative import"
                assert node.module is not None
                for alias in node.names:
                    yield f"{node.module}.{alias.name}", node.lineno


def _run_time_nodes(tree: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for otherwise in node.orelse:
                yield from _run_time_nodes(otherwise, lazy=lazy)
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not lazy:
            continue
        yield node
        yield from _run_time_nodes(node, lazy=lazy)


@functools.cache
def modules() -> dict[str, Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return found


def inner_imports(module: Module, *, lazy: bool = True) -> dict[str, int]:
    """The modules of the package that ``module`` imports, with the line; ``lazy``: also those
    that it imports only when one of its functions is called."""
    found = {}
    for target, line in module.imports(lazy=lazy):
        if target != "guactors" and not target.startswith("guactors."):
            continue
        name = target.removeprefix("guactors").removeprefix(".")
        while name not in modules():  # the tail is a name inside the module
            name = name.rpartition(".")[0]
        if name != module.name:
            found[name] = line
    return found


def outer_imports(module: Module) -> dict[str, int]:
    """Top-level names of other packages that ``module`` imports, with the line."""
    return {
        target.partition(".")[0]: line
        for target, line in module.imports()
        if target.partition(".")[0] != "guactors"
    }


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def report(faults: list[str]) -> None:
    assert not faults, "\n  ".join(["", *faults])


def test_every_module_has_a_layer() -> None:
    report([f"{name}: in no row of LAYERS" for name, m in modules().items() if m.layer is None])


def test_imports_go_one_way() -> None:
    faults = []
    for module in modules().values():
        for target, line in inner_imports(module).items():
            mine, theirs = module.layer, modules()[target].layer
            assert mine is not None, module.name
            assert theirs is not None, target
            if RANK[theirs] > RANK[mine] and (module.name, target) not in UPWARDS:
                faults.append(f"{module.path}:{line}: {mine} imports {target} of the {theirs}")
    report(faults)


def test_words_and_ports_import_words_only() -> None:
    faults = []
    for module in modules().values():
        if module.layer == "words":
            others = outer_imports(module).keys() - sys.stdlib_module_names - {"msgspec"}
            faults += [f"{module.path}: words import {other}" for other in others]
        if module.layer == "ports" and module.path.name != "__init__.py":
            faults += [
                f"{module.path}:{line}: a port imports {target}"
                for target, line in inner_imports(module).items()
                if modules()[target].layer != "words"
            ]
    report(faults)


def test_adapters_do_not_know_each_other() -> None:
    """Neither those of one port nor those of two. A room's door may hand out any of its own."""
    rivals = ({"transport.inproc", "transport.zmq_link"}, {"runtimes.python", "runtimes.spawn"})
    faults = []
    for module in modules().values():
        if module.layer != "adapters" or module.path.name == "__init__.py":
            continue
        for target, line in inner_imports(module).items():
            rooms = {module.name.partition(".")[0], target.partition(".")[0]}
            crossing = rooms == {"transport", "runtimes"} and modules()[target].layer == "adapters"
            if crossing or any({module.name, target} <= pair for pair in rivals):
                faults.append(f"{module.path}:{line}: {module.name} imports the adapter {target}")
    report(faults)


def test_hub_and_provider_share_messages_not_code() -> None:
    hub = (
        "hub_*", "gatekeeper_*", "image_actor", "image_state", "image_state.*", "scheduler_actor",
        "reservation_file",
        "session_actor", "session_state", "stats_*", "scheduling.*",
    )  # fmt: skip
    provider = ("provider_*", "runtime_actor", "machine")
    faults = [
        f"{module.path}:{line}: {module.name} imports {target} of the other side"
        for module in modules().values()
        for target, line in inner_imports(module).items()
        if (fits(module.name, hub) and fits(target, provider))
        or (fits(module.name, provider) and fits(target, hub))
    ]
    report(faults)


def test_pure_modules_have_no_clock_no_chance_no_io() -> None:
    faults = [
        f"{module.path}:{line}: {module.layer} imports {name}"
        for module in modules().values()
        if module.layer in {"words", "thinking", "ports"}
        for name, line in outer_imports(module).items()
        if name in IMPURE
    ]
    report(faults)


def test_one_place_for_each_dangerous_import() -> None:
    faults = [
        f"{module.path}:{line}: only {' and '.join(ONLY_IN[name])} may import {name}"
        for module in modules().values()
        for name, line in outer_imports(module).items()
        if name in ONLY_IN and not fits(module.name, ONLY_IN[name])
    ]
    report(faults)


def test_only_runtimes_start_processes() -> None:
    faults = [
        f"{module.path}:{node.lineno}: {ast.unparse(node)} outside runtimes/"
        for module in modules().values()
        if not fits(module.name, ("runtimes.*",))
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr in PROCESS_STARTERS
        and ast.unparse(node.value) in {"os", "asyncio"}
    ]
    report(faults)


def test_the_hub_never_unpickles() -> None:
    faults = [
        f"{module.path}:{line}: imports {name}"
        for module in modules().values()
        if fits(module.name, ("hub_*", "gatekeeper_*", "image_*", "scheduling.*", "s*_actor"))
        or fits(module.name, ("stats_*", "provider_*"))
        or module.layer in {"words", "ports"}
        for name, line in outer_imports(module).items()
        if name in {"pickle", "cloudpickle", "marshal", "shelve", "dill"}
    ]
    report(faults)


def test_no_cycles_at_import_time() -> None:
    arrows = {name: set(inner_imports(module, lazy=False)) for name, module in modules().items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            pytest.fail("cycle: " + " -> ".join([*path[path.index(name) :], name]))
        if name not in done:
            for target in sorted(arrows[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(arrows):
        visit(name, ())


def test_every_module_says_what_it_is() -> None:
    report([str(m.path) for m in modules().values() if not ast.get_docstring(m.tree)])


def test_files_and_functions_are_short() -> None:
    faults = []
    for module in modules().values():
        lines = len(module.path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE * ALLOWANCE and module.name not in LONG_FOR_A_REASON:
            faults.append(f"{module.path}: {lines} lines, at most about {LONGEST_FILE}")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                if length > LONGEST_FUNCTION * ALLOWANCE:
                    faults.append(f"{module.path}:{node.lineno}: {node.name} has {length} lines")
    report(faults)


def test_the_door_is_sorted_and_complete() -> None:
    import guactors

    assert guactors.__all__ == sorted(guactors.__all__)
    missing = [name for name in guactors.__all__ if not hasattr(guactors, name)]
    assert not missing, f"in __all__ but not there: {missing}"
    tools = {
        alias.asname or alias.name
        for node in ast.walk(modules()[""].tree)
        if isinstance(node, ast.ImportFrom) and node.module in sys.stdlib_module_names
        for alias in node.names
    }
    public = {
        name
        for name, value in vars(guactors).items()
        if not name.startswith("_")
        and name not in tools
        and not (isinstance(value, types.ModuleType) and value.__name__ == f"guactors.{name}")
    }
    assert public <= set(guactors.__all__), sorted(public - set(guactors.__all__))
