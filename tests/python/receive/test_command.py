"""`bellwire source`, `sign` and `verify` against a running server: made, signed, sent, seen, deleted, all from the command line."""

import json
import os
import subprocess
import uuid

import httpx
import pytest

from harness import ROOT, binary

VECTORS = ROOT / "crates/bellwire-verify/tests/data/vectors.json"


@pytest.fixture
def run(server, tmp_path):
    def run(*arguments: str, stdin: bytes = b"", code: int = 0) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BELLWIRE_")}
        environment |= {"BELLWIRE_SERVER": server.url, "BELLWIRE_TOKEN": server.key, "NO_COLOR": "1"}
        done = subprocess.run(
            [str(binary()), *arguments], input=stdin, capture_output=True, env=environment, cwd=tmp_path, timeout=60
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout.decode()}\n{done.stderr.decode()}"
        return done.stdout.decode()

    return run


@pytest.mark.parametrize("provider", ["github", "stripe", "twilio", "adyen", "gitlab", "mandrill", "shopify", "mailgun"])
def test_what_sign_makes_is_taken_by_a_source_of_that_provider(run, tmp_path, provider):
    secret = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056" if provider == "adyen" else "a-secret-6f1c2a9b"
    (tmp_path / "secret").write_text(secret + "\n")
    made = json.loads(
        run("source", "create", "--name", "x", "--type", provider, "--secret-file", "secret", "--uid", f"s-{uuid.uuid4()}", "--json")
    )
    signed = json.loads(
        run("sign", "--provider", provider, "--secret", secret, "--url", made["ingestUrl"], "--json")
    )
    send = lambda body: httpx.request(signed["method"], signed["url"], headers=signed["headers"], content=body, timeout=20)  # noqa: E731
    answer = send(signed["body"].encode())
    assert answer.status_code == 200, f"{answer.status_code} {run('source', 'log', made['uid'])}"
    shown = run("source", "get", made["uid"])
    assert made["ingestUrl"] in shown and secret not in shown
    rotated = json.loads(run("source", "rotate-token", made["id"], "--json"))["ingestUrl"]
    assert rotated != made["ingestUrl"]
    assert send(signed["body"].encode()).status_code == 404
    run("source", "delete", made["id"])
    run("source", "get", made["id"], code=1)


def test_a_change_keeps_what_it_does_not_name(run):
    made = json.loads(run("source", "create", "--name", "x", "--type", "paypal", "--setting", "webhookId=1JE4", "--json"))
    run("source", "update", made["id"], "--name", "y", "--settings", '{"requireJson": true}')
    changed = json.loads(run("source", "get", made["id"], "--json"))
    assert (changed["name"], changed["config"]["webhookId"]) == ("y", "1JE4")
    assert made["id"] in run("source", "list", "--limit", "250")
    answer = httpx.post(made["ingestUrl"], content=b"x", timeout=20)
    assert answer.status_code == 401


def test_vectors_are_judged_one_line_each_and_a_wrong_one_fails(run, tmp_path):
    cases = json.loads(VECTORS.read_text())
    lines = run("verify", "--vectors", str(VECTORS)).splitlines()
    judged = [line for line in lines if line.startswith(("ok ", "FAIL "))]
    assert [line.split()[1] for line in judged] == [case["id"] for case in cases]
    assert lines[-1] == f"{sum(case.get('normative', True) for case in cases)} ok, 0 failed"
    wrong = {**next(case for case in cases if case["expect"] == "valid"), "expect": "invalid"}
    (tmp_path / "wrong.json").write_text(json.dumps([wrong, cases[0]]))
    lines = run("verify", "--vectors", "wrong.json", code=1).splitlines()
    assert lines[0] == f"FAIL {wrong['id']} expect=invalid got=valid reason=ok"
    assert lines[-1] == "1 ok, 1 failed"
