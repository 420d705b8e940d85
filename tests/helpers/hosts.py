"""Hosts on one machine: network namespaces, each with an address of its own, joined by a bridge in a further one.

Nothing of it is seen by the machine's own network, so any number of runs have the same addresses. What is cut drops
packets, as a cable or a switch does: nobody is told. Needs root and Linux, and of its modules bridge and veth alone.
"""

import ctypes
import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from pipeline.store.embedded_programs import Account

_NAMES = re.compile(r"urban-reid-(\d+)-\d+-\w+")
#: Nobody's: frames to it reach no host.
_NOBODY = "02:00:00:00:00:00"
_END_WITHIN_S = 10.0
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str | None:
    """Why no hosts can be made here; None where they can."""
    if os.geteuid() != 0:
        return "hosts are network namespaces, which root makes"
    probe = f"urban-reid-{os.getpid()}-0-probe"
    try:
        _ip("netns", "add", probe)
        try:
            _ip("-n", probe, "link", "add", "bridge0", "type", "bridge")
            _ip("-n", probe, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        finally:
            _ip("netns", "delete", probe)
    except FileNotFoundError:
        return "hosts are network namespaces, which need the program ip: apt-get install iproute2"
    except OSError as error:
        return f"no network namespace can be made here: {error}"
    return None


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Host:
    """A host of a network, with processes of its own. Made by `Network.host`."""

    def __init__(self, prefix: str, name: str, address: str) -> None:
        self.name, self.address, self.namespace = name, address, f"{prefix}-{name}"
        self._switch = f"{prefix}-switch"
        self._addresses = {address}
        self._started: list[subprocess.Popen[str]] = []
        self._plug()

    def _plug(self) -> None:
        _ip("netns", "add", self.namespace)
        peer = ("peer", "name", self.name, "netns", self._switch)
        _ip("link", "add", "eth0", "netns", self.namespace, "type", "veth", *peer)
        _ip("-n", self._switch, "link", "set", "dev", self.name, "master", "bridge0", "up")
        _ip("-n", self.namespace, "link", "set", "dev", "lo", "up")
        _ip("netns", "exec", self.namespace, "sysctl", "-qw", "net.ipv4.conf.eth0.arp_notify=1")
        _ip("-n", self.namespace, "link", "set", "dev", "eth0", "up")
        self._addresses.clear()
        self.take(self.address)

    def take(self, address: str) -> None:
        """Gives the host a further address, such as one of a service that moves; the network learns that it is here."""
        self._addresses.add(address)
        _ip("-n", self.namespace, "address", "add", f"{address}/24", "dev", "eth0")

    def start(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        account: Account | None = None,
        log: Path | None = None,
    ) -> "subprocess.Popen[str]":
        """Starts a program on the host, which ends with it at the latest; its output to `log`, else to pipes."""
        user = () if account is None else ("--setuid", str(account.uid), "--setgid", str(account.gid))
        with open(os.devnull if log is None else log, "ab") as file:  # noqa: PTH123
            process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.namespace}", *user, "--", *command],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if log is None else file,
                stderr=subprocess.PIPE if log is None else file,
                text=True,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def run(self, *command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Runs a program on the host to its end; its output. Raises AssertionError if it fails."""
        process = self.start(*command, env=env, cwd=cwd)
        out, errors = process.communicate()
        assert process.returncode == 0, f"{self.name}: {' '.join(command)}: {errors}"
        return out

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread makes in the block are the host's, and stay so."""
        with open("/proc/thread-self/ns/net") as mine, open(f"/run/netns/{self.namespace}") as its:  # noqa: PTH123
            _enter(its.fileno())
            try:
                yield
            finally:
                _enter(mine.fileno())

    def unplug(self) -> None:
        """Takes the host off the network: packets to it and from it are dropped, and nobody is told."""
        _ip("-n", self._switch, "link", "set", "dev", self.name, "down")

    def plug(self) -> None:
        _ip("-n", self._switch, "link", "set", "dev", self.name, "up")

    def suspend(self) -> None:
        """As a virtual machine that is moved: off the network, and no process goes on."""
        self.unplug()
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)
        self.plug()

    def processes(self) -> list[int]:
        """Those that run on the host, by their ids."""
        return _processes(self.namespace)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """As a loss of power: off the network first, so that no connection is closed, then all processes at once."""
        self.unplug()
        _end(self.namespace)
        for process in self._started:
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def boot(self) -> None:
        """A killed host is there again, with nothing of before but its disk and its first address."""
        _ip("-n", self._switch, "link", "delete", "dev", self.name)
        _ip("netns", "delete", self.namespace)
        self._plug()

    def drop(self, other: "Host") -> None:
        """Loses what this host sends to the other one, as of now."""
        for address in other._addresses:
            permanent = ("lladdr", _NOBODY, "dev", "eth0", "nud", "permanent")
            _ip("-n", self.namespace, "neighbor", "replace", address, *permanent)

    def undrop(self, other: "Host") -> None:
        for address in other._addresses:
            _ip("-n", self.namespace, "neighbor", "delete", address, "dev", "eth0")


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "setns")


class Network:
    """A context manager; its end is the end of its hosts and of all that runs on them."""

    def __init__(self) -> None:
        self._prefix = f"urban-reid-{os.getpid()}-{next(_numbers)}"
        self.hosts: dict[str, Host] = {}
        self._last = itertools.count(10)

    def __enter__(self) -> Self:
        _sweep()
        switch = f"{self._prefix}-switch"
        _ip("netns", "add", switch)
        try:
            _ip("-n", switch, "link", "add", "bridge0", "type", "bridge")
            _ip("-n", switch, "link", "set", "dev", "bridge0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts.values():
            host.kill()
        _remove(self._prefix)

    def host(self, name: str) -> Host:
        """A new host; its name has at most 15 letters."""
        self.hosts[name] = Host(self._prefix, name, f"10.77.0.{next(self._last)}")
        return self.hosts[name]

    def cut(self, one: Host, other: Host) -> None:
        """Drops all packets between two hosts, in both directions."""
        one.drop(other)
        other.drop(one)

    def mend(self, one: Host, other: Host) -> None:
        one.undrop(other)
        other.undrop(one)


def _remove(prefix: str) -> None:
    """Ends all processes in the namespaces of a network, and removes these."""
    for name in [line.split()[0] for line in _ip("netns", "list").splitlines() if line.startswith(f"{prefix}-")]:
        _end(name)
        _ip("netns", "delete", name)


def _processes(namespace: str) -> list[int]:
    return [int(pid) for pid in _ip("netns", "pids", namespace).split()]


def _end(namespace: str) -> None:
    """Ends all processes of a namespace at once."""
    until = time.monotonic() + _END_WITHIN_S
    while found := _processes(namespace):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > until:
            raise OSError(f"{namespace}: processes {found} do not end")
        time.sleep(0.01)


def _sweep() -> None:
    """Removes what test runs left that were killed themselves."""
    for line in _ip("netns", "list").splitlines():
        if (found := _NAMES.match(line)) and not Path(f"/proc/{found[1]}").exists():
            _remove(line.split()[0].rpartition("-")[0])
