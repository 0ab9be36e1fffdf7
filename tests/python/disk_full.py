"""Acceptance 8, a full disk: publishing is answered 503 until space returns, then goes on without a restart; nothing is lost.

The server stores on a file system of 48 MiB, which is filled up with a ballast file. That file system is a tmpfs, mounted
directly (as root) or in a user namespace of its own. Where neither may be done, a preloaded library (`no_space.c`) makes the
server's writes fail with ENOSPC instead, and this says so.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from harness import Server, wait_until
from receiver import Receiver

CYCLES = 3
SIZE = "48m"
MARK = "BELLWIRE_TEST_DISK"


class SmallDisk:
    """A tmpfs whose free space is taken by a ballast file."""

    def __init__(self, folder: Path):
        self.folder, self.ballast, self.environment = folder, folder / "ballast", {}

    def fill(self):
        with open(self.ballast, "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"\0" * 4096)
            except OSError:
                pass

    def free(self):
        self.ballast.unlink()


class RefusedWrites:
    """No small file system to be had: the server's writes are refused by a preloaded library."""

    def __init__(self, folder: Path):
        library = folder / "no_space.so"
        source = Path(__file__).with_name("no_space.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
        self.folder, self.flag = folder, folder / "is-full"
        self.environment = {
            "LD_PRELOAD": str(library), "NO_SPACE_FLAG": str(self.flag), "NO_SPACE_FOLDER": str(folder / "data"),
        }  # fmt: skip

    def fill(self):
        self.flag.touch()

    def free(self):
        self.flag.unlink()


def mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def can_unshare() -> bool:
    probe = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return bool(shutil.which("unshare")) and subprocess.run(probe, capture_output=True).returncode == 0


class Publisher:
    def __init__(self, server: Server, app: str):
        self.http = httpx.Client(headers={"authorization": f"Bearer {server.key}"}, timeout=20)
        self.url = f"{server.url}/api/v1/app/{app}/msg"
        self.acked: set[str] = set()

    def publish(self, size: int = 40_000) -> httpx.Response:
        payload = {"noise": random.randbytes(size // 2).hex()}
        answer = self.http.post(self.url, json={"eventType": "disk.full", "payload": payload})
        if answer.status_code == 202:
            self.acked.add(answer.json()["id"])
        return answer


def run(disk) -> None:
    data = disk.folder / "data"
    with Receiver() as receiver, Server(disk.environment, data_dir=data, name="disk-full") as server:
        hook = receiver.hook()
        api = httpx.Client(base_url=f"{server.url}/api/v1", headers={"authorization": f"Bearer {server.key}"}, timeout=20)
        app = api.post("/app", json={"name": "Full"}).raise_for_status().json()["id"]
        api.post(f"/app/{app}/endpoint", json={"url": hook.url}).raise_for_status()
        publisher = Publisher(server, app)
        for cycle in range(CYCLES):
            for _ in range(10):
                assert publisher.publish().status_code == 202
            disk.fill()
            # The store may still use space that it already holds; then it must say no, in clear words.
            refusal = wait_until(lambda: (a := publisher.publish()).status_code != 202 and a, 30, "publishing is refused")
            assert refusal.status_code == 503, f"{refusal.status_code} {refusal.text}"
            assert refusal.json()["code"] == "storage_full" and refusal.json()["detail"], refusal.text
            assert int(refusal.headers["retry-after"]) >= 1
            for _ in range(20):
                again = publisher.publish()
                assert again.status_code in (202, 503), f"{again.status_code} {again.text}"
            shown = api.get(f"/app/{app}/msg", params={"limit": 5})
            assert shown.status_code == 200, "reading goes on while the disk is full"
            wait_until(lambda: publisher.acked <= {d.id for d in hook.deliveries}, 30, "what was stored is delivered")
            assert server.process.poll() is None, f"the server lives\n{server.log_tail()}"
            disk.free()
            freed = time.monotonic()
            wait_until(lambda: publisher.publish().status_code == 202, 15, "publishing works again without a restart")
            print(f"cycle {cycle + 1}: refused with 503 storage_full, back {time.monotonic() - freed:.2f} s after space returned")
        wait_until(lambda: publisher.acked <= {d.id for d in hook.deliveries}, 30, "everything acknowledged is delivered")
        counted = lambda: api.get(f"/app/{app}/msg", params={"limit": 1}).status_code == 200  # noqa: E731
        wait_until(counted, 10, "reading works")
        server.kill()
        server.start()
        for message_id in publisher.acked:
            answer = api.get(f"/app/{app}/msg/{message_id}", params={"with_content": "true"})
            assert answer.status_code == 200 and answer.json()["payload"]["noise"], f"{message_id}: {answer.text[:200]}"
        print(f"{len(publisher.acked)} acknowledged, all delivered, all readable after a kill and a restart")


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="bellwire-disk-"))
    is_mounted = mounted(folder)
    try:
        if is_mounted:
            disk = SmallDisk(folder)
        elif MARK not in os.environ and can_unshare():
            print("mounting needs rights: running in a user namespace", flush=True)
            command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, __file__]
            return subprocess.run(command, env={**os.environ, MARK: "1"}).returncode
        else:
            print("NOTE: no small file system can be mounted here (neither as root nor in a user namespace).")
            print("NOTE: the full disk is simulated instead: a preloaded library refuses the server's writes.", flush=True)
            disk = RefusedWrites(folder)
        run(disk)
        print("1 passed, 0 failed")
        return 0
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
