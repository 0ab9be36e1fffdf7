"""What the tests of the tour share: one server, one receiver, and a fresh application for each test."""

import sys
import uuid
from pathlib import Path

import pytest
from svix.api import ApplicationIn, EndpointIn, Svix, SvixOptions

sys.path.insert(0, str(Path(__file__).parent))

from harness import Server  # noqa: E402
from receiver import Receiver  # noqa: E402


def client(server: Server, token: str | None = None) -> Svix:
    """The official client, unmodified: only `server_url` is set (and no retries of its own, so that a 5xx shows)."""
    return Svix(token or server.key, SvixOptions(server_url=server.url, retry_schedule=[]))


@pytest.fixture(scope="session")
def server():
    with Server(name="tour") as running:
        yield running


@pytest.fixture(scope="session")
def receiver():
    with Receiver() as running:
        yield running


@pytest.fixture(scope="session")
def svix(server):
    return client(server)


@pytest.fixture
def app(svix):
    return svix.application.create(ApplicationIn(name="Tour", uid=f"tour-{uuid.uuid4()}"))


@pytest.fixture
def hook(receiver):
    return receiver.hook()


@pytest.fixture
def endpoint(svix, app, hook):
    return svix.endpoint.create(app.id, EndpointIn(url=hook.url))
