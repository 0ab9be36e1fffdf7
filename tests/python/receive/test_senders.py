"""Real senders: the libraries that sign for Stripe, Svix and Standard Webhooks, unmodified from PyPI, reach endpoints through a source."""

import datetime
import hashlib
import hmac
import json
import uuid

import pytest
import standardwebhooks
import stripe
import svix.webhooks

STRIPE_SECRET = "whsec_test_of_the_tests_only_6f1c2a9b"
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def stripe_event(kind: str = "invoice.paid") -> bytes:
    event = {"id": f"evt_{uuid.uuid4().hex}", "object": "event", "type": kind, "data": {"object": {"amount": 1, "note": "ü €"}}}
    return json.dumps(event, ensure_ascii=False, indent=2).encode()


def stripe_headers(body: bytes, now: int, secret: str = STRIPE_SECRET) -> dict:
    """As Stripe's own library signs in its tests."""
    signature = stripe.WebhookSignature._compute_signature(f"{now}.{body.decode()}", secret)
    headers = {"Stripe-Signature": f"t={now},v1={signature}", "Content-Type": "application/json; charset=utf-8"}
    stripe.Webhook.construct_event(body, headers["Stripe-Signature"], secret)
    return headers


def test_a_stripe_event_is_verified_stored_and_delivered_byte_for_byte(source_of, deliver_to, now):
    source = source_of("stripe", {"secret": STRIPE_SECRET})
    hook, key = deliver_to(source)
    body = stripe_event()
    answer = source.send(body, stripe_headers(body, now))
    assert answer.status_code == 200, answer.text
    (message,) = source.messages()
    assert message["eventType"] == "invoice.paid"
    (delivery,) = hook.wait(1)
    assert delivery.body == body
    svix.webhooks.Webhook(key).verify(delivery.body, delivery.headers)


@pytest.mark.parametrize("fault", ["body", "secret", "time", "header", "twice"])
def test_a_forged_stripe_event_is_refused_told_nothing_and_logged(source_of, now, fault):
    source = source_of("stripe", {"secret": STRIPE_SECRET})
    body = stripe_event()
    headers = stripe_headers(body, now)
    sent = body
    expected = "no_match"
    if fault == "body":
        sent = body.replace(b'"amount": 1', b'"amount": 2')
    elif fault == "secret":
        headers = stripe_headers(body, now, "whsec_another")
    elif fault == "time":
        headers["Stripe-Signature"] = headers["Stripe-Signature"].replace(f"t={now}", f"t={now - 301}")
        expected = "timestamp_too_old"
    elif fault == "header":
        del headers["Stripe-Signature"]
        expected = "signature_missing"
    else:
        headers = [*headers.items(), ("Stripe-Signature", headers["Stripe-Signature"])]
        expected = "header_repeated"
    answer = source.send(sent, headers)
    assert (answer.status_code, answer.content) == (401, b"")
    (entry,) = source.log("verification_failed")
    assert entry["reason"] == f"verification_failed.{expected}"
    assert source.messages() == [] and STRIPE_SECRET not in json.dumps(entry)


def test_both_secrets_of_a_rotation_are_taken_and_the_old_one_no_longer_afterwards(source_of, api, now):
    source = source_of("stripe", {"secret": ["whsec_new", STRIPE_SECRET]})
    for secret in ("whsec_new", STRIPE_SECRET):
        body = stripe_event()
        assert source.send(body, stripe_headers(body, now, secret)).status_code == 200
    assert api.patch(f"/ingest/api/v1/source/{source.id}", json={"config": {"secret": "whsec_new"}}).status_code == 200
    body = stripe_event()
    assert source.send(body, stripe_headers(body, now)).status_code == 401
    assert source.send(body, stripe_headers(body, now, "whsec_new")).status_code == 200


@pytest.mark.parametrize(
    ("kind", "library", "prefix"),
    [("svix", svix.webhooks.Webhook, "svix"), ("standard-webhooks", standardwebhooks.Webhook, "webhook")],
)
def test_what_the_official_libraries_sign_is_taken_once(source_of, deliver_to, kind, library, prefix):
    source = source_of(kind, {"secret": WEBHOOK_SECRET})
    hook, _ = deliver_to(source)
    body = json.dumps({"type": "user.created", "data": {"id": 7}})
    at = datetime.datetime.now(datetime.timezone.utc)
    message_id = f"msg_{uuid.uuid4().hex}"
    headers = {
        f"{prefix}-id": message_id,
        f"{prefix}-timestamp": str(int(at.timestamp())),
        f"{prefix}-signature": library(WEBHOOK_SECRET).sign(message_id, at, body),
        "content-type": "application/json",
    }
    answers = [source.send(body.encode(), headers) for _ in range(3)]
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"{}")] * 3
    (message,) = source.messages()
    assert [entry["duplicateOf"] for entry in source.log("duplicate", 2)] == [message["id"]] * 2
    assert hook.wait(1)[0].body == body.encode()
    assert len(hook.deliveries) == 1


def test_a_source_without_its_secret_takes_nothing_until_it_has_one(source_of, api, now):
    source = source_of("stripe")
    body = stripe_event()
    assert source.send(body, stripe_headers(body, now)).status_code == 401
    source.log("no_secret")
    assert api.patch(f"/ingest/api/v1/source/{source.id}", json={"config": {"secret": STRIPE_SECRET}}).status_code == 200
    assert source.send(body, stripe_headers(body, now)).status_code == 200
    assert len(source.messages()) == 1


def test_running_unverified_is_a_choice_that_shows(source_of, api):
    source = source_of("stripe", isUnverifiedAllowed=True)
    assert source.send(b"{}", {"content-type": "application/json"}).status_code == 200
    warnings = api.get(f"/ingest/api/v1/source/{source.id}").json()["warnings"]
    assert "unverified" in [warning["code"] for warning in warnings]


@pytest.mark.parametrize("secret", [None, "not-the-secret"])
def test_slacks_question_is_answered_only_when_it_is_signed(source_of, now, secret):
    source = source_of("slack", {"secret": "8f742231b10e8888abcd99yyyzzz85a5"})
    body = json.dumps({"type": "url_verification", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}).encode()

    def headers(key: str) -> dict:
        digest = hmac.new(key.encode(), b"v0:%d:%s" % (now, body), hashlib.sha256).hexdigest()
        return {
            "X-Slack-Request-Timestamp": str(now),
            "X-Slack-Signature": f"v0={digest}",
            "Content-Type": "application/json",
        }

    forged = source.send(body, headers(secret) if secret else {"Content-Type": "application/json"})
    assert forged.status_code == 401 and b"3eZb" not in forged.content
    answer = source.send(body, headers("8f742231b10e8888abcd99yyyzzz85a5"))
    assert (answer.status_code, answer.text) == (200, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P")
    assert answer.headers["content-type"].startswith("text/plain")
    assert source.messages() == []
