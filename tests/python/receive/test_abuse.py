"""Senders that mean harm: endless bodies, thousands of slow connections, compressed bombs. Memory stays flat, others are served."""

import gzip
import resource
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

from harness import Server, wait_until

MIB = 1024 * 1024
ENDLESS_BYTES = 10 * 1024 * MIB
CONNECTIONS = 10_000
# A body of the size that is allowed, twice over while it grows, and what the allocator keeps of it.
BODY_GROWTH_MAX = 96 * MIB
# All bodies that are in memory together are 192 MiB as they are counted (RECEIVED_BODIES_BYTES_MAX), and at most this with what the
# allocator rounds up and keeps.
BODIES_MAX = 256 * MIB
ENDLESS_SECONDS = 8
FORGED = b"x-hub-signature-256: sha256=" + b"0" * 64 + b"\r\nx-github-event: push\r\n"
# Buffers and tasks of all slow connections together.
SLOW_GROWTH_MAX = 400 * MIB


class Memory:
    """The most memory the server holds while this is open, beyond what it held before."""

    def __init__(self, server: Server):
        self.pid = server.process.pid
        self.before = self.now()
        self.most = self.before
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def now(self) -> int:
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def _watch(self):
        while not self._ended.wait(0.01):
            self.most = max(self.most, self.now())

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join(5)
        print(f"memory: {self.before // MIB} MiB before, {self.growth // MIB} MiB more at most")

    @property
    def growth(self) -> int:
        return max(self.most, self.now()) - self.before


@pytest.fixture(autouse=True)
def others_are_served(server, source_of):
    """Whatever happened: an honest sender is served before and after."""
    source = source_of("generic-webhook")
    assert source.send(b"{}").status_code == 200
    yield
    assert source.send(b'{"after": 1}').status_code == 200
    assert len(source.messages()) == 2


def connect(url: str) -> tuple[socket.socket, str]:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection, f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"


def status_of(connection: socket.socket) -> int | None:
    """The status of the answer; nothing if the connection is gone."""
    try:
        line = connection.recv(65_536).split(b"\r\n")[0].split()
        return int(line[1]) if line else None
    except OSError:
        return None


def push_endlessly(url: str, headers: bytes = b"") -> tuple[int, int | None]:
    """Sends a body without a length until somebody stops it: how many bytes went out, and the answer's status."""
    connection, head = connect(url)
    with connection:
        head = head.encode() + headers + b"transfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n"
        connection.sendall(head)
        piece = b"%x\r\n" % MIB + b"x" * MIB + b"\r\n"
        sent = 0
        try:
            while sent < ENDLESS_BYTES:
                connection.sendall(piece)
                sent += MIB
        except OSError:
            pass
        return sent, status_of(connection)


def test_a_body_of_ten_gigabytes_without_a_length_is_cut_off(server, source_of):
    source = source_of("generic-webhook")
    with Memory(server) as memory:
        sent, _ = push_endlessly(source.url)
    assert sent < 128 * MIB, f"{sent} bytes were taken"
    assert memory.growth < BODY_GROWTH_MAX
    assert source.log("too_large")[0]["status"] == 413
    assert source.messages() == []


def test_a_stranger_is_refused_before_he_sends_his_ten_gigabytes(server, source_of):
    source = source_of("github", {"secret": "a secret"})
    with Memory(server) as memory:
        sent, _ = push_endlessly(source.url)
    assert sent < 32 * MIB, f"{sent} bytes were taken of somebody without a signature"
    assert memory.growth < 32 * MIB
    assert source.log("verification_failed.signature_missing")


@pytest.mark.parametrize("sources", [1, 4])
def test_many_endless_bodies_at_once_share_one_room(sources):
    """With a signature in the head, so that only the whole body would show that it is forged. Others are served meanwhile."""
    with Server(name=f"endless-{sources}") as server:
        with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {server.key}"}, timeout=30) as api:

            def make(kind: str, config: dict) -> str:
                answer = api.post("/ingest/api/v1/source", json={"name": "x", "type": kind, "config": config})
                assert answer.status_code == 201, answer.text
                return answer.json()["ingestUrl"]

            targets = [make("github", {"secret": "a secret"}) for _ in range(sources)]
            honest = make("generic-webhook", {})
        for warm_up in range(20):
            honest_send(honest)
        ends: list[tuple[int, int | None]] = []
        done = threading.Event()

        def push(index: int):
            while not done.is_set():
                ends.append(push_endlessly(targets[index % sources], FORGED))

        waits: list[float] = []
        large: list[int] = []
        with Memory(server) as memory:
            threads = [threading.Thread(target=push, args=(index,), daemon=True) for index in range(32)]
            for thread in threads:
                thread.start()
            until = time.monotonic() + ENDLESS_SECONDS
            while time.monotonic() < until:
                waits.append(honest_send(honest))
                body = b"%020d" % time.monotonic_ns() + b"x" * MIB
                large.append(httpx.post(honest, content=body, timeout=30).status_code)
            done.set()
            for thread in threads:
                thread.join(60)
        statuses = {status for _, status in ends}
        print(f"{len(ends)} endless bodies to {sources} sources, answered {statuses}; {len(waits)} honest sends of at most "
              f"{max(waits):.2f} s, large ones answered {[(s, large.count(s)) for s in set(large)]}")
        assert len(ends) >= 32 and all(sent < 128 * MIB for sent, _ in ends)
        assert memory.growth < BODIES_MAX
        assert max(waits) < 5
        if sources == 1:
            assert set(large) == {200}, "one source's endless bodies keep another's out"


def test_an_announced_body_that_is_too_large_is_refused_unread(source_of):
    source = source_of("generic-webhook")
    connection, head = connect(source.url)
    with connection:
        connection.sendall(head.encode() + b"content-length: 10737418240\r\n\r\n")
        assert status_of(connection) == 413
    source.log("too_large")


def test_a_compressed_bomb_is_refused_and_never_opened(server, source_of):
    source = source_of("generic-webhook")
    bomb = gzip.compress(b"\0" * (64 * MIB), 9)
    with Memory(server) as memory:
        for _ in range(20):
            assert source.send(bomb, {"content-encoding": "gzip"}).status_code == 415
    assert memory.growth < 16 * MIB
    source.log("compressed")
    assert source.messages() == []


def raise_open_files() -> int:
    """As many as this process may; returns how many connections that allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return min(CONNECTIONS, most - 500)


@pytest.mark.parametrize("part", ["head", "body"])
def test_thousands_of_slow_connections_keep_nobody_out(part):
    """Each sends a byte now and then and never ends. They are cut off, or wait, and honest senders are served meanwhile."""
    wanted = raise_open_files()
    with Server(name=f"slow-{part}") as server:
        api = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {server.key}"}, timeout=30)
        made = api.post("/ingest/api/v1/source", json={"name": "x", "type": "generic-webhook"}).json()
        parts = urlsplit(made["ingestUrl"])
        first = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n".encode()
        if part == "body":
            first += b"content-length: 1000000\r\n\r\n{"
        held, refused = [], 0
        honest: list[float] = []
        with Memory(server) as memory:
            for index in range(wanted):
                # Loopback has many addresses, and each has ports of its own.
                source_address = (f"127.0.{1 + index // 4_000}.1", 0)
                try:
                    connection = socket.create_connection((parts.hostname, parts.port), timeout=5, source_address=source_address)
                    connection.sendall(first)
                    held.append(connection)
                except OSError:
                    refused += 1
                if index % 500 == 0:
                    honest.append(honest_send(made["ingestUrl"]))
            for connection in held:
                connection.setblocking(False)
            for _ in range(10):
                honest.append(honest_send(made["ingestUrl"]))
                drip(held)
        print(f"{part}: {len(held)} of {wanted} held, {refused} refused, honest sends at most {max(honest):.2f} s")
        assert len(held) + refused == wanted and len(held) >= wanted // 2
        assert max(honest) < 5
        assert memory.growth < SLOW_GROWTH_MAX
        # The server's limits are 10 s for a head and 30 s for a body, whatever drips in.
        held[-1].settimeout(45)
        assert status_of(held[-1]) in (None, 408), "a slow sender is waited for"
        for connection in held:
            connection.close()
        assert wait_until(lambda: honest_send(made["ingestUrl"]) < 1, 10, "all is well after they have gone")
        assert len(api.get(f"/api/v1/app/{made['appId']}/msg").json()["data"]) > 0
        api.close()


def honest_send(url: str) -> float:
    start = time.monotonic()
    answer = httpx.post(url, content=b'{"at": %d}' % time.monotonic_ns(), timeout=30)
    assert answer.status_code == 200, answer.text
    return time.monotonic() - start


def drip(connections: list[socket.socket]):
    for connection in connections:
        try:
            connection.send(b"x")
        except OSError:
            pass
