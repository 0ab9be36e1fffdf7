"""Starts the built server for a test, and stops it again: on loopback, in a temporary folder, on a free port."""

import base64
import ctypes
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JWT_SECRET = "a secret of the tests only, 32 bytes or more"
KEY_PATTERN = re.compile(r"\bbw_[0-9A-Za-z_.\-]{16,}")
PR_SET_PDEATHSIG = 1
# Set to run the servers of any test on PostgreSQL: the URL of a server where databases may be made, and the
# address (host:port) by which the servers under test reach them, if it is another one (a pooler).
STORAGE_ADMIN_VARIABLE = "TEST_STORAGE_ADMIN"
STORAGE_ADDRESS_VARIABLE = "TEST_STORAGE_ADDRESS"

# What every test server gets: deliveries may go to loopback, retries come fast, and nothing outside is asked for anything.
BASE_ENVIRONMENT = {
    "BELLWIRE_EGRESS__ALLOW": "127.0.0.0/8,::1/128",
    "BELLWIRE_AUTH__JWT_SECRET": JWT_SECRET,
    "BELLWIRE_DELIVERY__RETRY_SCHEDULE": "150ms,300ms",
    "BELLWIRE_DELIVERY__REQUEST_TIMEOUT": "2s",
}


def binary() -> Path:
    """The server under test: `BELLWIRE_BIN`, or what `cargo build` made."""
    path = Path(os.environ.get("BELLWIRE_BIN", ROOT / "target" / "debug" / "bellwire"))
    if not path.is_file():
        raise RuntimeError(f"{path} is missing: build it with `cargo build -p bellwire` or set BELLWIRE_BIN")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds: float, what: str, every: float = 0.02):
    """Waits for `condition()` to be true and returns its value; fails with `what` at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(every)


def database_for(data_dir: Path) -> dict:
    """The setting that puts a server on a database of its own, one for each data folder, if the tests run on PostgreSQL."""
    admin = os.environ.get(STORAGE_ADMIN_VARIABLE)
    if not admin:
        return {}
    import psycopg

    name = "test_" + hashlib.sha256(str(data_dir).encode()).hexdigest()[:24]
    with psycopg.connect(admin, autocommit=True, connect_timeout=10) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchall():
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    own = admin.partition("@")[2].partition("/")[0]
    return {"BELLWIRE_STORAGE__URL": f"postgres://bellwire@{os.environ.get(STORAGE_ADDRESS_VARIABLE) or own}/{name}"}


def jwt(claims: dict, secret: str = JWT_SECRET, algorithm: str = "HS256") -> str:
    """A token as Svix servers take them. `algorithm` is only written into the header: `none` must be refused."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    body = part(json.dumps(claims).encode())
    if algorithm == "none":
        return f"{head}.{body}."
    signature = hmac.new(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{part(signature)}"


def _die_with_parent():
    """A test that is killed leaves no server behind (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One running `bellwire serve`. Use it as a context manager, or call `start`, `kill` and `stop` yourself."""

    def __init__(self, environment: dict | None = None, data_dir: Path | None = None, name: str = "server"):
        self._own_folder = data_dir is None
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="bellwire-test-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("BELLWIRE_")},
            **BASE_ENVIRONMENT,
            **database_for(self.data_dir),
            "BELLWIRE_LISTEN": f"127.0.0.1:{self.port}",
            "BELLWIRE_DATA_DIR": str(self.data_dir),
            "RUST_BACKTRACE": "1",
            "NO_COLOR": "1",
            **(environment or {}),
        }
        logs = Path(os.environ.get("BELLWIRE_TEST_LOGS", tempfile.gettempdir()))
        logs.mkdir(parents=True, exist_ok=True)
        self.log_path = logs / f"{name}-{self.port}.log"
        self.log_path.unlink(missing_ok=True)
        self.process: subprocess.Popen | None = None
        self.started_at = 0.0
        self.key = ""

    def __enter__(self) -> "Server":
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()

    def spawn(self) -> "Server":
        """Starts the process and does not wait for it."""
        with open(self.log_path, "ab") as log:
            self.started_at = time.monotonic()
            self.process = subprocess.Popen(
                [str(binary()), "serve"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir.parent,
                preexec_fn=_die_with_parent,
            )
        return self

    def start(self, seconds: float = 20.0) -> "Server":
        """Starts the process, waits until it answers, and learns the first API key from what it printed."""
        self.spawn()
        self.wait_ready(seconds)
        if not self.key:
            self.key = wait_until(self._printed_key, 5, f"an API key printed once at the first start\n{self.log_tail()}")
        return self

    def wait_ready(self, seconds: float = 20.0):
        wait_until(self.is_ready, seconds, f"the server answers at {self.url}\n{self.log_tail()}", every=0.01)

    def is_ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}\n{self.log_tail()}")
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=1) as answer:
                return answer.status < 300
        except (urllib.error.URLError, OSError):
            return False

    def _printed_key(self) -> str | None:
        found = KEY_PATTERN.search(self.log())
        return found.group(0) if found else None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self) -> str:
        return "--- last lines of " + str(self.log_path) + "\n" + "\n".join(self.log().splitlines()[-25:])

    def kill(self):
        """The hard way: SIGKILL, as a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self, seconds: float = 20.0) -> int:
        """The soft way: SIGTERM. Returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._own_folder:
            shutil.rmtree(self.data_dir, ignore_errors=True)
