"""A stand-in for the program firecracker, as hard to please: the published rules of its API.

Written from the OpenAPI file of release 1.17.0-dev and its documents, and knows nothing of the
adapter. It has no machine: its guest is a dictionary that an agent of one line a request reads and
writes, which stands still while the machine is paused, goes into the memory file of a snapshot, and
is reached by vsock only. ``tests/contract/test_firecracker_server.py`` holds each rule.

    firecracker_server.py [--quirk NAME] --api-sock PATH --id ID      (or: --version)
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERSION = "1.16.1"
MOST_BODY = 51200
PORT = 5000
"""Where the guest's agent listens."""
_ID = re.compile(r"[A-Za-z0-9_]+")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")


class Fault(Exception):
    """Status 400."""


# --- bodies ---------------------------------------------------------------------------------------


def integer(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: value in words


def text(value: Any) -> bool:
    return isinstance(value, str)


def boolean(value: Any) -> bool:
    return isinstance(value, bool)


def number(value: Any) -> bool:
    return integer(0, 2**63)(value)


class Form:
    """Fields of an object: what each may be, ``!`` before the names of those that must be there."""

    def __init__(self, **fields: Callable[[Any], bool]) -> None:
        self.fields = fields

    def needs(self, *names: str) -> Form:
        self.required = names
        return self

    required: tuple[str, ...] = ()

    def __call__(self, value: Any) -> bool:
        self.check(value)
        return True

    def check(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise Fault("invalid type: expected a struct")
        for name in value:
            if name not in self.fields:
                raise Fault(f"unknown field `{name}`")
        for name in self.required:
            if name not in value:
                raise Fault(f"missing field `{name}`")
        for name, given in value.items():
            if not self.fields[name](given):
                raise Fault(f"invalid value for `{name}`: {given!r}")


BUCKET = Form(size=number, refill_time=number, one_time_burst=number).needs("size", "refill_time")
LIMITER = Form(bandwidth=BUCKET, ops=BUCKET)
MACHINE = {
    "vcpu_count": integer(1, 32),
    "mem_size_mib": integer(1, 2**40),
    "smt": boolean,
    "track_dirty_pages": boolean,
    "huge_pages": one_of("None", "Transparent", "2M"),
    "cpu_template": one_of("None", "C3", "T2", "T2S", "T2CL", "T2A", "V1N1"),
}


def each(form: Form) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(form(one) for one in value)


FORMS: dict[tuple[str, str], Form] = {
    ("PUT", "/machine-config"): Form(**MACHINE).needs("vcpu_count", "mem_size_mib"),
    ("PATCH", "/machine-config"): Form(**MACHINE),
    ("PUT", "/boot-source"): Form(kernel_image_path=text, initrd_path=text, boot_args=text).needs(
        "kernel_image_path"
    ),
    ("PUT", "/drives/"): Form(
        drive_id=text,
        path_on_host=text,
        is_root_device=boolean,
        is_read_only=boolean,
        partuuid=text,
        cache_type=one_of("Unsafe", "Writeback"),
        io_engine=one_of("Sync", "Async"),
        rate_limiter=LIMITER,
        socket=text,
    ).needs("drive_id", "is_root_device"),
    ("PATCH", "/drives/"): Form(drive_id=text, path_on_host=text, rate_limiter=LIMITER).needs(
        "drive_id"
    ),
    ("PUT", "/network-interfaces/"): Form(
        iface_id=text,
        host_dev_name=text,
        guest_mac=text,
        mtu=integer(68, 65535),
        rx_rate_limiter=LIMITER,
        tx_rate_limiter=LIMITER,
    ).needs("iface_id", "host_dev_name"),
    ("PATCH", "/network-interfaces/"): Form(
        iface_id=text, rx_rate_limiter=LIMITER, tx_rate_limiter=LIMITER
    ).needs("iface_id"),
    ("PUT", "/vsock"): Form(guest_cid=integer(3, 2**32 - 2), uds_path=text, vsock_id=text).needs(
        "guest_cid", "uds_path"
    ),
    ("PUT", "/entropy"): Form(rate_limiter=LIMITER),
    ("PUT", "/serial"): Form(serial_out_path=text, rate_limiter=BUCKET),
    ("PUT", "/logger"): Form(
        log_path=text,
        level=lambda value: (
            str(value).lower() in {"error", "warning", "info", "debug", "trace", "off"}
        ),
        show_level=boolean,
        show_log_origin=boolean,
        module=text,
    ),
    ("PUT", "/metrics"): Form(metrics_path=text).needs("metrics_path"),
    ("PUT", "/actions"): Form(
        action_type=one_of("InstanceStart", "FlushMetrics", "SendCtrlAltDel")
    ).needs("action_type"),
    ("PATCH", "/vm"): Form(state=one_of("Paused", "Resumed")).needs("state"),
    ("PUT", "/snapshot/create"): Form(
        snapshot_path=text, mem_file_path=text, snapshot_type=one_of("Full", "Diff")
    ).needs("snapshot_path", "mem_file_path"),
    ("PUT", "/snapshot/load"): Form(
        snapshot_path=text,
        mem_file_path=text,
        mem_backend=Form(backend_type=one_of("File", "Uffd"), backend_path=text).needs(
            "backend_type", "backend_path"
        ),
        enable_diff_snapshots=boolean,
        track_dirty_pages=boolean,
        resume_vm=boolean,
        network_overrides=each(
            Form(iface_id=text, host_dev_name=text).needs("iface_id", "host_dev_name")
        ),
        vsock_override=Form(uds_path=text).needs("uds_path"),
        clock_realtime=boolean,
    ).needs("snapshot_path"),
}
GETS = {"/", "/version", "/vm/config", "/machine-config"}
BEFORE = "before"
AFTER = "after"
PHASE = {
    ("PUT", "/logger"): "",
    ("PUT", "/metrics"): "",
    ("PUT", "/actions"): "",
    ("PATCH", "/drives/"): AFTER,
    ("PATCH", "/network-interfaces/"): AFTER,
    ("PATCH", "/vm"): AFTER,
    ("PUT", "/snapshot/create"): AFTER,
}
"""When a call is allowed; before the start where nothing is said."""


# --- the machine ----------------------------------------------------------------------------------


class Guest:
    """What is in there: values by key. It answers nobody while it is paused."""

    boots_within = 0.2
    """Seconds until somebody listens in there."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.streams: list[socket.socket] = []
        self.goes_on = threading.Event()
        self.goes_on.set()

    def stand_still(self) -> None:
        """It does nothing from here on."""
        self.goes_on.clear()

    def go_on(self) -> None:
        """It does again."""
        self.goes_on.set()

    def serve(self, stream: socket.socket) -> None:
        self.streams.append(stream)
        # Streams break at a snapshot, and whenever the other side likes.
        with contextlib.suppress(OSError, ValueError), stream, stream.makefile("rwb") as file:
            for line in file:
                self.goes_on.wait()
                file.write(json.dumps(self.answer(json.loads(line))).encode() + b"\n")
                file.flush()

    def answer(self, message: dict[str, Any]) -> Any:
        match message["do"]:
            case "set":
                self.values[message["key"]] = message["value"]
                return True
            case "get":
                return self.values.get(message["key"])
            case "die":
                os._exit(int(message["value"]))
        return "hello"

    def close(self) -> None:
        """Break all streams."""
        for stream in self.streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)


class Machine:
    """One process. Every method raises Fault for what is not allowed."""

    def __init__(self, name: str, quirk: str = "", guest: Guest | None = None) -> None:
        self.name = name
        self.quirk = quirk
        self.state = "Not started"
        self.touched = False
        """Whether anything but logger and metrics was set."""
        self.config: dict[str, Any] = {"vcpu_count": 1, "mem_size_mib": 128, "smt": False}
        self.boot: dict[str, Any] = {}
        self.drives: dict[str, dict[str, Any]] = {}
        self.interfaces: dict[str, dict[str, Any]] = {}
        self.vsock: dict[str, Any] = {}
        self.entropy = False
        self.metrics = False
        self.guest = guest or Guest()
        self.listener: socket.socket | None = None
        self.lock = threading.Lock()

    def handle(self, method: str, path: str, data: bytes) -> Any:
        if method == "GET":
            if data:
                raise Fault("GET request cannot have a body.")
            return self.get(path)
        route, name = self.route(method, path)
        if not data:
            raise Fault(f"Empty {method} request.")
        if len(data) > MOST_BODY:
            raise Fault(f"Request payload with size {len(data)} is larger than {MOST_BODY}")
        try:
            body = json.loads(data)
        except ValueError as error:
            raise Fault(f"An error occurred when deserializing the json body: {error}") from None
        FORMS[route].check(body)
        self.check_phase(route)
        if name is not None:
            self.check_id(name, body)
        getattr(self, self.method_name(route))(body)
        return None

    def route(self, method: str, path: str) -> tuple[tuple[str, str], str | None]:
        for prefix in ("/drives/", "/network-interfaces/"):
            if path.startswith(prefix) and (method, prefix) in FORMS:
                return (method, prefix), path.removeprefix(prefix)
        if (method, path) not in FORMS:
            raise Fault(f"Invalid request method and/or path: {method} {path}.")
        return (method, path), None

    @staticmethod
    def method_name(route: tuple[str, str]) -> str:
        return f"{route[0]}{route[1].rstrip('/')}".lower().replace("/", "_").replace("-", "_")

    def check_phase(self, route: tuple[str, str]) -> None:
        phase = PHASE.get(route, BEFORE)
        started = self.state != "Not started"
        if phase == BEFORE and started:
            raise Fault(
                "The requested operation is not supported after starting the microVM: "
                f"{route[0]} {route[1]}"
            )
        if phase == AFTER and not started:
            raise Fault(
                "The requested operation is not supported before starting the microVM: "
                f"{route[0]} {route[1]}"
            )

    @staticmethod
    def check_id(name: str, body: dict[str, Any]) -> None:
        if not name:
            raise Fault("The ID cannot be empty.")
        if not _ID.fullmatch(name):
            raise Fault(
                "API Resource IDs can only contain alphanumeric characters and underscores."
            )
        if body.get("drive_id", body.get("iface_id")) != name:
            raise Fault("The id from the path does not match the id from the body!")

    # --- GET ------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        if path not in GETS:
            raise Fault(f"Invalid request method and/or path: GET {path}.")
        if path == "/":
            return {
                "app_name": "Firecracker",
                "id": self.name,
                "state": self.state,
                "vmm_version": VERSION,
            }
        if path == "/version":
            return {"firecracker_version": VERSION}
        if path == "/machine-config":
            return self.config
        return {
            "boot-source": self.boot,
            "machine-config": self.config,
            "drives": list(self.drives.values()),
            "network-interfaces": list(self.interfaces.values()),
            "vsock": self.vsock or None,
            "entropy": {} if self.entropy else None,
        }

    # --- before the start -----------------------------------------------------------------------

    def put_machine_config(self, body: dict[str, Any]) -> None:
        self.touched = True
        self.set_config({"vcpu_count": 1, "mem_size_mib": 128, "smt": False} | body)

    def patch_machine_config(self, body: dict[str, Any]) -> None:
        if not body:
            raise Fault("Empty PATCH request.")
        self.touched = True
        self.set_config(self.config | body)

    def set_config(self, wanted: dict[str, Any]) -> None:
        if wanted["smt"] and wanted["vcpu_count"] > 1 and wanted["vcpu_count"] % 2:
            raise Fault(
                "The vCPU number is invalid! The vCPU number can only be 1 or even with SMT"
            )
        if wanted.get("huge_pages") == "2M" and wanted["mem_size_mib"] % 2:
            raise Fault("The memory size (MiB) is either 0, or not a multiple of the page size.")
        self.config = wanted

    def put_boot_source(self, body: dict[str, Any]) -> None:
        self.touched = True
        for name in ("kernel_image_path", "initrd_path"):
            if name in body and not os.path.isfile(body[name]):
                raise Fault(f"The {name} file cannot be opened: {body[name]}")
        self.boot = body

    def put_drives(self, body: dict[str, Any]) -> None:
        self.touched = True
        name = body["drive_id"]
        others = [one for one in self.drives if one != name and self.drives[one]["is_root_device"]]
        if body["is_root_device"] and others:
            raise Fault("A root block device already exists!")
        if "socket" in body and "path_on_host" in body:
            raise Fault("Invalid drive: socket and path_on_host")
        if "socket" not in body:
            self.check_disk(body)
        self.drives[name] = body

    @staticmethod
    def check_disk(body: dict[str, Any]) -> None:
        path = body.get("path_on_host", "")
        mode = os.R_OK if body.get("is_read_only") else os.R_OK | os.W_OK
        if not os.path.isfile(path) or not os.access(path, mode):
            raise Fault(f"Unable to create the virtio block device: Error opening {path!r}")

    def put_network_interfaces(self, body: dict[str, Any]) -> None:
        self.touched = True
        mac = body.get("guest_mac")
        if mac is not None and not _MAC.fullmatch(mac):
            raise Fault(f"The guest MAC address {mac} is invalid")
        for name, other in self.interfaces.items():
            if name != body["iface_id"] and mac and other.get("guest_mac") == mac:
                raise Fault(f"The MAC address is already in use: {mac}")
        if not body["host_dev_name"] or len(body["host_dev_name"]) > 15:
            raise Fault(f"Open tap device failed: invalid name {body['host_dev_name']!r}")
        self.interfaces[body["iface_id"]] = body

    def put_vsock(self, body: dict[str, Any]) -> None:
        self.touched = True
        self.vsock = body

    def put_entropy(self, body: dict[str, Any]) -> None:
        self.touched = self.entropy = True

    def put_serial(self, body: dict[str, Any]) -> None:
        self.touched = True

    def put_logger(self, body: dict[str, Any]) -> None:
        return

    def put_metrics(self, body: dict[str, Any]) -> None:
        if self.metrics:
            raise Fault("Cannot initialize the metrics system: already initialized")
        self.metrics = True

    # --- actions --------------------------------------------------------------------------------

    def put_actions(self, body: dict[str, Any]) -> None:
        if body["action_type"] == "InstanceStart":
            if self.state != "Not started":
                raise Fault("The requested operation is not supported after starting the microVM.")
            if not self.boot:
                raise Fault("Cannot start microvm without kernel configuration.")
            with open(self.boot["kernel_image_path"], "rb") as file:
                if file.read(4) != b"\x7fELF":
                    raise Fault("Cannot load kernel due to invalid memory configuration or format")
            self.run()
            print(f"booting with {self.boot.get('boot_args')!r}", flush=True)
        elif self.state == "Not started":
            raise Fault("The requested operation is not supported before starting the microVM.")

    def run(self) -> None:
        if self.vsock:
            self.listen(self.vsock["uds_path"])
        self.state = "Running"

    def patch_vm(self, body: dict[str, Any]) -> None:
        if self.quirk == "sticky":
            raise Fault("Failed to change the state: the processors are stuck")
        if body["state"] == "Paused":
            self.state = "Paused"
            self.guest.stand_still()
        else:
            self.state = "Running"
            self.guest.go_on()

    def patch_drives(self, body: dict[str, Any]) -> None:
        if body["drive_id"] not in self.drives:
            raise Fault("The device ID is invalid")
        if "path_on_host" in body:
            self.check_disk(self.drives[body["drive_id"]] | body)

    def patch_network_interfaces(self, body: dict[str, Any]) -> None:
        if body["iface_id"] not in self.interfaces:
            raise Fault("The device ID is invalid")

    # --- snapshots ------------------------------------------------------------------------------

    def put_snapshot_create(self, body: dict[str, Any]) -> None:
        if self.state != "Paused":
            raise Fault("Cannot create a snapshot of a microVM that is not paused")
        if body.get("snapshot_type") == "Diff" and not self.config.get("track_dirty_pages"):
            raise Fault("Diff snapshots are not allowed without dirty page tracking")
        if self.quirk == "full":
            raise Fault("Cannot write the memory file: No space left on device")
        state = {
            "version": VERSION,
            "config": self.config,
            "drives": self.drives,
            "interfaces": self.interfaces,
            "vsock": self.vsock,
        }
        Path(body["snapshot_path"]).write_text(json.dumps(state))
        with open(body["mem_file_path"], "wb") as file:
            file.truncate(self.config["mem_size_mib"] << 20)
            file.seek(1 << 20)
            file.write(json.dumps(self.guest.values).encode() + b"\n")
        # The streams of the vsock break at a snapshot; who listens goes on listening.
        self.guest.close()

    def put_snapshot_load(self, body: dict[str, Any]) -> None:
        if self.touched:
            raise Fault("Loading a microVM snapshot not allowed after configuring boot-specific "
                        "resources.")  # fmt: skip
        if ("mem_backend" in body) == ("mem_file_path" in body):
            raise Fault("exactly one of `mem_backend` and `mem_file_path` must be specified")
        memory = body.get("mem_file_path") or body["mem_backend"]["backend_path"]
        try:
            state = json.loads(Path(body["snapshot_path"]).read_text())
            with open(memory, "rb") as file:
                file.seek(1 << 20)
                self.guest.values = json.loads(file.readline())
            self.load(state, body)
        except (OSError, ValueError, KeyError, Fault) as error:
            # It may be in an invalid state, so it ends.
            raise SystemExit(f"Load snapshot error: {error}") from None

    def load(self, state: dict[str, Any], body: dict[str, Any]) -> None:
        if state["version"].split(".")[:2] != VERSION.split(".")[:2]:
            raise Fault("a snapshot of another version")
        self.config, self.interfaces = state["config"], state["interfaces"]
        for one in body.get("network_overrides", []):
            if one["iface_id"] not in self.interfaces:
                raise Fault(f"no interface {one['iface_id']}")
            self.interfaces[one["iface_id"]]["host_dev_name"] = one["host_dev_name"]
        for name, disk in state["drives"].items():
            self.check_disk(disk)
            self.drives[name] = disk
        self.vsock = state["vsock"] | body.get("vsock_override", {})
        self.touched = True
        self.run()
        self.state = "Paused"
        self.guest.stand_still()
        if body.get("resume_vm"):
            self.patch_vm({"state": "Resumed"})

    # --- vsock ----------------------------------------------------------------------------------

    def listen(self, path: str) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(path)
        except OSError as error:
            listener.close()
            raise Fault(f"Cannot create backend for vsock device: {error}") from None
        listener.listen()
        self.listener = listener
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener: socket.socket) -> None:
        up_at = time.monotonic() + self.guest.boots_within
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            said = b""
            while not said.endswith(b"\n") and len(said) < 32:
                byte = stream.recv(1)
                if not byte:
                    break
                said += byte
            up = time.monotonic() > up_at and self.quirk != "deaf"
            if said != f"CONNECT {PORT}\n".encode() or not up:
                stream.close()
                continue
            stream.sendall(b"HELLO\n" if self.quirk == "rude" else b"OK 1073741824\n")
            threading.Thread(target=self.guest.serve, args=(stream,), daemon=True).start()

    def close(self) -> None:
        """For who runs it in a process of his own."""
        self.guest.go_on()
        self.guest.close()
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()


# --- HTTP -----------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    machine: Machine

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        if self.machine.quirk == "mute" and self.path == "/actions":
            time.sleep(60)
        try:
            with self.machine.lock:
                found = self.machine.handle(self.command, self.path, data)
        except Fault as error:
            self.say(400, {"fault_message": str(error)})
        except SystemExit as error:
            print(error, flush=True)
            self.say(400, {"fault_message": str(error)})
            os._exit(1)
        else:
            self.say(204 if found is None else 200, found)

    do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = answer  # noqa: N815

    def say(self, status: int, body: Any) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        if self.machine.quirk == "babble":
            status, data = 400, b"x" * (3 << 20)
        self.send_response(status)
        self.send_header("Server", "Firecracker API")
        if status != 204 or data:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if data:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        return

    def address_string(self) -> str:
        return "api"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def serve(path: str, machine: Machine) -> Server:
    """A server at that path; ``serve_forever`` is the caller's."""
    handler = type("Handler", (Handler,), {"machine": machine})
    return Server(path, handler)


def main(words: list[str], guest: Guest | None = None) -> None:
    quirk = name = path = ""
    version = VERSION
    while words:
        word = words.pop(0)
        match word:
            case "--quirk":
                quirk = words.pop(0)
            case "--claims":
                version = words.pop(0)
            case "--id":
                name = words.pop(0)
            case "--api-sock":
                path = words.pop(0)
            case "--version":
                print(f"Firecracker v{version}\n")
                return
            case _:
                sys.exit(f"Arguments parsing error: Found argument '{word}' which wasn't expected")
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name):
        sys.exit("Invalid instance ID")
    if os.path.exists(path):
        sys.exit(f"Failed to open the API socket at: {path}. Check that it is not already used.")
    if quirk == "stillborn":
        sys.exit("Error: KVM: cannot open /dev/kvm")
    serve(path, Machine(name, quirk, guest)).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
