"""The examples of the README, run as they stand there but for the key, the port, and where the webhooks go."""

import os
import re
import subprocess
import sys

import httpx
import pytest

from harness import ROOT

README = (ROOT / "README.md").read_text()


def example(language: str, containing: str) -> str:
    """The code block of the README in this language that contains this text."""
    blocks = [b for b in re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S) if containing in b]
    assert len(blocks) == 1, f"{len(blocks)} blocks of {language} contain {containing}"
    return blocks[0]


@pytest.fixture
def here(server, hook):
    """Puts the server and the receiver of this test into an example."""

    def put(text: str) -> str:
        for placeholder, value in [
            ("bw_…", server.key),
            ("http://127.0.0.1:8071", server.url),
            ("https://example.com/webhooks", hook.url),
        ]:
            assert placeholder in text, f"the example does not contain {placeholder}"
            text = text.replace(placeholder, value)
        return text

    headers = {"authorization": f"Bearer {server.key}"}
    httpx.delete(f"{server.url}/api/v1/app/customer-1", headers=headers)
    yield put
    httpx.delete(f"{server.url}/api/v1/app/customer-1", headers=headers).raise_for_status()


def run(command: list[str], text: str, **options) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, **options)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    return done.stdout


def test_the_curl_example_publishes(here, hook):
    """Broken: the first thing a newcomer tries does not work."""
    printed = run(["bash", "-eu"], here(example("sh", "customer-1")))
    assert re.search(r'"id":"app_\w{27}".*"id":"ep_\w{27}".*"id":"msg_\w{27}"', printed, re.S), printed
    assert hook.wait(1)[0].body == b'{"invoice": "in_42", "amount": 1999}'


def test_the_python_example_publishes(here, hook):
    """Broken: the second thing a newcomer tries does not work."""
    run([sys.executable, "-"], here(example("python", "from svix.api")))
    assert hook.wait(1)[0].body == b'{"invoice":"in_42","amount":1999}'


def test_the_node_example_publishes(here, hook):
    """Broken: the third thing a newcomer tries does not work."""
    where = ROOT / "tests" / "node"
    run(["node", "--input-type=module", "-"], here(example("js", "new Svix")), cwd=where, env={**os.environ, "NODE_NO_WARNINGS": "1"})
    assert hook.wait(1)[0].body == b'{"invoice":"in_42","amount":1999}'
