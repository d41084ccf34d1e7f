"""What the machine gives: files, and ports."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
from pathlib import Path

from stompbridge.config import Settings
from stompbridge.doctor.finding import Finding, error, ok, skipped, warning
from stompbridge.doctor.running import Running
from stompbridge.lifecycle.process import FILES_BESIDE_SOCKETS

FEW = 1024
"""Clients for which there must be room in any case."""
_LISTENING = "0A"


def check_files(settings: Settings, running: Running | None) -> list[Finding]:
    """The limit on open files against ``limits.connections``: that of the running bridge, else the hard limit of this
    shell, which a bridge started from it may use up."""
    connections = settings.limits.connections
    limit, whose = resource.getrlimit(resource.RLIMIT_NOFILE)[1], "a bridge started from here"
    if running is not None and running.node == settings.node:
        of_bridge = _file_limit(running.pid)
        if of_bridge is not None:
            limit, whose = of_bridge, f"the running bridge (process {running.pid})"
    if limit == resource.RLIM_INFINITY or limit >= connections + FILES_BESIDE_SOCKETS:
        return [ok("files", f"{whose} may open enough files for limits.connections = {connections}")]
    wanted = connections + FILES_BESIDE_SOCKETS
    remedy = (
        f"LimitNOFILE={wanted} in the unit, --ulimit nofile={wanted} for a container, ulimit -n in a shell; or a lower "
        "limits.connections"
    )
    room = max(0, limit - FILES_BESIDE_SOCKETS)
    detail = f"{whose} may open {limit} files: about {room} clients, where limits.connections is {connections}"
    return [(warning if room >= min(FEW, connections) else error)("files", detail, remedy)]


def check_ports(settings: Settings, running: Running | None) -> list[Finding]:
    """Both ports are free, or used by the bridge that this is the configuration of."""
    listen, admin = settings.listen, settings.admin
    findings = [_check_port("listen", listen.host, listen.port, listen.reuse_port, settings.node, running)]
    if not admin.enabled:
        findings.append(skipped("port.admin", "admin.enabled is false"))
    else:
        findings.append(_check_port("admin", admin.host, admin.port, False, settings.node, running))
    return findings


def _check_port(section: str, host: str, port: int, share: bool, node: str, running: Running | None) -> Finding:
    name, where = f"port.{section}", f"{host}:{port}"
    if not port:
        return ok(name, "any free port", where)
    try:
        _bind(host, port, share)
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            return _used(section, port, where, node, running)
        if problem.errno == errno.EACCES:
            remedy = f"a port from 1024 on in {section}.port, or the capability CAP_NET_BIND_SERVICE"
            return error(name, "ports below 1024 need a privilege", remedy, where)
        text = problem.strerror or str(problem)
        remedy = f"an address of this machine in {section}.host, or 0.0.0.0 or :: for all"
        return error(name, f"cannot be listened on: {text}", remedy, where)
    return ok(name, "free", where)


def _used(section: str, port: int, where: str, node: str, running: Running | None) -> Finding:
    name = f"port.{section}"
    users = _users(port)
    ours = running is not None and running.node == node
    if running is not None and ours and (not users or running.pid in users):
        return ok(name, f"used by the running bridge (process {running.pid})", where)
    if 1 in users:
        return ok(name, "held by the service manager, for socket activation", where)
    whose = ", ".join(f"{command} (process {pid})" for pid, command in users.items())
    if section == "admin" and running is not None and not ours:
        whose = f"the bridge {running.node!r}"
    remedy = f"stop it, or choose another {section}.port"
    return error(name, f"used by {whose or 'another program'}", remedy, where)


def _bind(host: str, port: int, share: bool) -> None:
    """As the listener does it, and closes. Raises ``OSError``."""
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)


def _users(port: int) -> dict[int, str]:
    """Commands by process id of those that listen on the port, as far as this user may see them."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in _lines(Path("/proc/net") / table)[1:]:
            columns = line.split()
            if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    found = {}
    for folder in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(os.readlink(entry) in inodes for entry in (folder / "fd").iterdir()):
                found[int(folder.name)] = (folder / "comm").read_text("utf-8", "replace").strip()
        except OSError:
            # Another user's, or gone.
            continue
    return found


def _file_limit(pid: int) -> int | None:
    """How many files a process may open; ``None`` where that cannot be seen."""
    for line in _lines(Path(f"/proc/{pid}/limits")):
        if match := re.match(r"Max open files\s+(\d+|unlimited)", line):
            return resource.RLIM_INFINITY if match[1] == "unlimited" else int(match[1])
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
