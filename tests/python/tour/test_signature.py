"""Signatures, checked with what receivers use: `standardwebhooks` and `svix` from PyPI, and `cryptography` for Ed25519."""

import base64
import json
import uuid

import pytest
import standardwebhooks
import svix as svix_package
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from svix.api import ApplicationIn, EndpointIn, EndpointSecretRotateIn, MessageIn
from svix.exceptions import HttpError

from conftest import client
from harness import Server

PAYLOAD = {"text": "ünïcode 😀", "number": 1.0}
VERIFIERS = [standardwebhooks.Webhook, svix_package.Webhook]


def signatures(delivery) -> list[str]:
    return delivery.headers["webhook-signature"].split(" ")


def is_signed_with(secret: str, delivery) -> bool:
    """Whether both receivers' libraries accept the very bytes that arrived; they must agree."""
    verdicts = set()
    for verifier in VERIFIERS:
        try:
            verifier(secret).verify(delivery.body, delivery.headers)
            verdicts.add(True)
        except (standardwebhooks.WebhookVerificationError, svix_package.WebhookVerificationError):
            verdicts.add(False)
    assert len(verdicts) == 1, "standardwebhooks and svix disagree"
    return verdicts.pop()


def is_signed_with_ed25519(key: str, delivery) -> bool:
    """Independent of any webhook library: `key` is `whpk_…` (public) or `whsk_…` (private, of which the seed is used)."""
    prefix, _, text = key.partition("_")
    raw = base64.b64decode(text)
    public = Ed25519PrivateKey.from_private_bytes(raw[:32]).public_key() if prefix == "whsk" else Ed25519PublicKey.from_public_bytes(raw)
    signed = f"{delivery.headers['webhook-id']}.{delivery.headers['webhook-timestamp']}.".encode() + delivery.body
    for signature in signatures(delivery):
        version, _, value = signature.partition(",")
        if version == "v1a":
            try:
                public.verify(base64.b64decode(value), signed)
                return True
            except InvalidSignature:
                pass
    return False


def deliver(svix, app, hook):
    message = svix.message.create(app.id, MessageIn(event_type="signed.event", payload=PAYLOAD))
    return hook.wait_for(message.id)[0]


def test_deliveries_verify_and_changed_ones_do_not(svix, app, endpoint, hook):
    """Broken: receivers cannot tell our webhooks from forgeries."""
    secret = svix.endpoint.get_secret(app.id, endpoint.id).key
    assert secret.startswith("whsec_") and 24 <= len(base64.b64decode(secret[6:])) <= 64
    delivery = deliver(svix, app, hook)
    assert is_signed_with(secret, delivery) and json.loads(delivery.body) == PAYLOAD
    delivery.body = delivery.body.replace(b"1.0", b"1.1")
    assert not is_signed_with(secret, delivery)


def test_rotation_signs_with_both_keys_during_the_grace_period(svix, app, endpoint, hook):
    """Broken: rotating a secret means lost webhooks until the receiver has followed."""
    old = svix.endpoint.get_secret(app.id, endpoint.id).key
    svix.endpoint.rotate_secret(app.id, endpoint.id, EndpointSecretRotateIn())
    new = svix.endpoint.get_secret(app.id, endpoint.id).key
    assert new != old
    delivery = deliver(svix, app, hook)
    assert len(signatures(delivery)) == 2 and is_signed_with(old, delivery) and is_signed_with(new, delivery)
    own = "whsec_" + base64.b64encode(uuid.uuid4().bytes * 2).decode()
    svix.endpoint.rotate_secret(app.id, endpoint.id, EndpointSecretRotateIn(key=own))
    assert svix.endpoint.get_secret(app.id, endpoint.id).key == own
    delivery = deliver(svix, app, hook)
    assert len(signatures(delivery)) == 3 and all(is_signed_with(key, delivery) for key in (old, new, own))


def test_rotation_without_grace_ends_the_old_key_at_once(svix, app, endpoint, hook):
    """Broken: a leaked secret goes on being valid after it was replaced."""
    old = svix.endpoint.get_secret(app.id, endpoint.id).key
    svix.endpoint.rotate_secret(app.id, endpoint.id, EndpointSecretRotateIn(grace_period_seconds=0))
    delivery = deliver(svix, app, hook)
    assert not is_signed_with(old, delivery)
    assert is_signed_with(svix.endpoint.get_secret(app.id, endpoint.id).key, delivery)


def test_a_secret_of_the_callers_own_is_used_and_a_bad_one_refused(svix, app, hook):
    """Broken: customers moving here must change the secret in their receivers."""
    own = "whsec_" + base64.b64encode(b"thirty-two bytes of a known key!").decode()
    endpoint = svix.endpoint.create(app.id, EndpointIn(url=hook.url, secret=own))
    assert svix.endpoint.get_secret(app.id, endpoint.id).key == own
    assert is_signed_with(own, deliver(svix, app, hook))
    for bad in ("whsec_", "whsec_%%%", "whsec_c2hvcnQ="):
        with pytest.raises(Exception) as refused:
            svix.endpoint.create(app.id, EndpointIn(url=hook.url, secret=bad))
        assert refused.value.status_code in (400, 422), bad
    with pytest.raises(HttpError) as same:
        svix.endpoint.rotate_secret(app.id, "ep_" + "0" * 27, EndpointSecretRotateIn())
    assert same.value.status_code == 404


def test_ed25519_signatures_verify_also_during_rotation(receiver):
    """Broken: receivers that hold only a public key cannot verify."""
    with Server({"BELLWIRE_SIGNING__DEFAULT": "ed25519"}, name="ed25519") as server:
        svix = client(server)
        app, hook = svix.application.create(ApplicationIn(name="Ed25519")), receiver.hook()
        endpoint = svix.endpoint.create(app.id, EndpointIn(url=hook.url))
        old = svix.endpoint.get_secret(app.id, endpoint.id).key
        assert old.startswith(("whpk_", "whsk_"))
        assert is_signed_with_ed25519(old, deliver(svix, app, hook))
        svix.endpoint.rotate_secret(app.id, endpoint.id, EndpointSecretRotateIn())
        new = svix.endpoint.get_secret(app.id, endpoint.id).key
        delivery = deliver(svix, app, hook)
        assert new != old and is_signed_with_ed25519(old, delivery) and is_signed_with_ed25519(new, delivery)
        forged = delivery
        forged.body += b" "
        assert not is_signed_with_ed25519(new, forged)


def test_the_svix_header_names_by_configuration(receiver):
    """Broken: receivers written for Svix's header names must be changed."""
    with Server({"BELLWIRE_DELIVERY__HEADER_PREFIX": "svix"}, name="svix-prefix") as server:
        svix = client(server)
        app, hook = svix.application.create(ApplicationIn(name="Prefix")), receiver.hook()
        endpoint = svix.endpoint.create(app.id, EndpointIn(url=hook.url))
        delivery = deliver(svix, app, hook)
        assert {"svix-id", "svix-timestamp", "svix-signature"} <= delivery.headers.keys()
        assert not [name for name in delivery.headers if name.startswith("webhook-")]
        svix_package.Webhook(svix.endpoint.get_secret(app.id, endpoint.id).key).verify(delivery.body, delivery.headers)
