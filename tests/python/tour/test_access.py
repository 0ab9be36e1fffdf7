"""Who may do what: API keys, Svix-style JWTs of organisations and applications, portal tokens, and the errors they get."""

import time

import httpx
import pytest
from svix.api import AppPortalAccessIn, ApplicationIn, EndpointIn, MessageIn
from svix.exceptions import HttpError, HTTPValidationError

from conftest import client
from harness import jwt

ORG_ONE = "org_" + "1" * 26 + "a"
ORG_TWO = "org_" + "1" * 26 + "b"


def claims(subject: str, **more) -> dict:
    now = int(time.time())
    return {"iat": now, "nbf": now - 5, "exp": now + 3600, "iss": "svix-server", "sub": subject, **more}


def status_of(call, *arguments) -> int:
    """The status an operation is refused with."""
    with pytest.raises((HttpError, HTTPValidationError)) as refused:
        call(*arguments)
    return refused.value.status_code


def test_errors_have_a_code_and_a_detail(svix, app):
    """Broken: a client gets an error it cannot act on."""
    with pytest.raises(HttpError) as unknown:
        svix.application.get("app_" + "0" * 27)
    assert unknown.value.status_code == 404 and unknown.value.code == "not_found" and unknown.value.detail
    with pytest.raises(HTTPValidationError) as invalid:
        svix.endpoint.create(app.id, EndpointIn(url="not a url"))
    assert invalid.value.status_code == 422
    first = invalid.value.detail[0]
    assert first.loc and first.loc[-1] == "url" and first.msg and first.type


@pytest.mark.parametrize("token", ["bw_", "bw_not_a_key", "testsk_x.eu", "x" * 5_000])
def test_a_wrong_key_opens_nothing(server, token):
    """Broken: anyone can publish."""
    answer = httpx.get(f"{server.url}/api/v1/app", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401 and answer.json()["code"] and answer.json()["detail"]
    assert httpx.get(f"{server.url}/api/v1/app").status_code == 401


def test_a_token_of_an_organisation_sees_its_own_and_nothing_else(server):
    """Broken: one organisation reads or changes another's data."""
    one, two = client(server, jwt(claims(ORG_ONE))), client(server, jwt(claims(ORG_TWO)))
    app = one.application.create(ApplicationIn(name="One's", uid="shared-uid"))
    endpoint = one.endpoint.create(app.id, EndpointIn(url="http://127.0.0.1:60009/hook"))
    message = one.message.create(app.id, MessageIn(event_type="a.b", payload={}))
    try:
        assert status_of(two.application.get, app.id) == 404
        assert status_of(two.application.get, "shared-uid") == 404
        assert status_of(two.application.delete, app.id) == 404
        assert status_of(two.endpoint.get_secret, app.id, endpoint.id) == 404
        assert status_of(two.message.get, app.id, message.id) == 404
        assert status_of(two.message.create, app.id, MessageIn(event_type="a.b", payload={})) == 404
        assert app.id not in [a.id for a in two.application.list().data]
        other = two.application.create(ApplicationIn(name="Two's", uid="shared-uid"))
        assert other.id != app.id and one.application.get("shared-uid").id == app.id
        assert status_of(two.endpoint.get, other.id, endpoint.id) == 404, "a foreign endpoint under an own application"
        assert status_of(two.message.get, other.id, message.id) == 404, "a foreign message under an own application"
        two.application.delete(other.id)
    finally:
        one.application.delete(app.id)


def test_a_token_of_an_application_is_bound_to_it(server):
    """Broken: a customer's token reaches other customers."""
    org = client(server, jwt(claims(ORG_ONE)))
    own = org.application.create(ApplicationIn(name="Own"))
    other = org.application.create(ApplicationIn(name="Other"))
    bound = client(server, jwt(claims(own.id, org=ORG_ONE)))
    bound.endpoint.create(own.id, EndpointIn(url="http://127.0.0.1:60009/hook"))
    assert len(bound.endpoint.list(own.id).data) == 1
    assert status_of(bound.endpoint.list, other.id) in (403, 404)
    assert status_of(bound.application.list) in (403, 404)
    assert status_of(bound.application.create, ApplicationIn(name="More")) in (403, 404)
    assert status_of(bound.application.delete, own.id) in (403, 404)


@pytest.mark.parametrize(
    "token",
    [
        jwt(claims(ORG_ONE, exp=1)),
        jwt(claims(ORG_ONE, nbf=int(time.time()) + 7_200)),
        jwt(claims(ORG_ONE), secret="another secret, also of 32 bytes or more"),
        jwt(claims(ORG_ONE), algorithm="none"),
        jwt(claims("someone")),
        jwt({"exp": int(time.time()) + 60}),
        jwt(claims(ORG_ONE))[:-3] + "AAA",
        "a.b.c",
    ],
    ids=["expired", "not-yet", "foreign-secret", "alg-none", "no-id", "no-subject", "wrong-signature", "no-jwt"],
)
def test_a_bad_token_is_refused(server, token):
    """Broken: a forged or old token opens an organisation."""
    assert status_of(client(server, token).application.list) == 401


def test_portal_access_is_a_link_and_a_token_of_one_application(server, svix, app):
    """Broken: the portal of one customer shows another's endpoints."""
    access = svix.authentication.app_portal_access(app.uid, AppPortalAccessIn())
    assert access.token and access.token in access.url and access.url.startswith("http")
    portal = client(server, access.token)
    endpoint = portal.endpoint.create(app.id, EndpointIn(url="http://127.0.0.1:60009/hook"))
    assert [e.id for e in portal.endpoint.list(app.id).data] == [endpoint.id]
    assert portal.endpoint.get_secret(app.id, endpoint.id).key.startswith("whsec_")
    other = svix.application.create(ApplicationIn(name="Not theirs"))
    assert status_of(portal.endpoint.list, other.id) in (403, 404)
    assert status_of(portal.application.list) in (403, 404)
    assert status_of(portal.message.create, app.id, MessageIn(event_type="a.b", payload={})) in (403, 404)
    assert status_of(portal.authentication.app_portal_access, app.id, AppPortalAccessIn()) in (403, 404)
    portal.authentication.logout()
    assert status_of(portal.endpoint.list, app.id) == 401


def test_a_read_only_portal_changes_nothing(server, svix, app):
    """Broken: someone who was to look only can redirect webhooks or read secrets."""
    endpoint = svix.endpoint.create(app.id, EndpointIn(url="http://127.0.0.1:60009/hook"))
    access = svix.authentication.app_portal_access(app.id, AppPortalAccessIn(capabilities=["ViewBase"]))
    portal = client(server, access.token)
    assert [e.id for e in portal.endpoint.list(app.id).data] == [endpoint.id]
    assert status_of(portal.endpoint.create, app.id, EndpointIn(url="http://127.0.0.1:60009/")) == 403
    assert status_of(portal.endpoint.delete, app.id, endpoint.id) == 403
    assert status_of(portal.endpoint.get_secret, app.id, endpoint.id) == 403


def test_portal_access_can_create_the_application(server, svix):
    """Broken: the portal link of a new customer needs a call before."""
    access = svix.authentication.app_portal_access(
        "portal-first", AppPortalAccessIn(application=ApplicationIn(name="New", uid="portal-first"))
    )
    assert client(server, access.token).endpoint.list("portal-first").data == []


def test_health_needs_no_key(server):
    """Broken: a load balancer needs a credential."""
    for path in ("/api/v1/health", "/api/v1/health/ping", "/healthz", "/readyz"):
        assert httpx.get(server.url + path).status_code in (200, 204), path
