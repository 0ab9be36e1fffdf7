//! Is it the provider? Invariant: nothing below this is done with a request that was not verified, unless the source says so itself.

use std::time::Duration;

use bellwire_core::{Secret, limits};
use bellwire_verify::handshake::{Answer, Handshake, Keep, Knowledge, Refused as RefusedHandshake, Signature};
use bellwire_verify::{Credentials, Request, Verified};
use bytes::Bytes;
use http::StatusCode;

use super::ready::{STATE_FOR_OPERATOR, STATE_LEASE, STATE_SECRET, STATE_SECRET_NAME};
use super::{Ready, Refused, Stop, Visit, handshake_response};

/// How a request was verified.
pub struct Proof {
    /// A scheme's name, `url` where the source's URL is all there is, or `none`.
    pub by: String,
    /// The provider's time of signing, in milliseconds.
    pub signed_at_ms: Option<i64>,
}

impl Proof {
    fn of(ready: &Ready, verified: &Verified) -> Self {
        let by = ready.preset.as_ref().map_or("url", |preset| preset.family());
        Self { by: by.to_owned(), signed_at_ms: verified.timestamp_ms }
    }

    fn named(by: &str) -> Self {
        Self { by: by.to_owned(), signed_at_ms: None }
    }
}

fn request<'r>(visit: &'r Visit<'_>, headers: &'r [(&'r str, &'r [u8])], body: &'r [u8]) -> Request<'r> {
    Request { method: visit.parts.method.as_str(), url: &visit.url, headers, body, peer: Some(visit.client) }
}

fn unverified(reason: &str, detail: String) -> Refused {
    Refused::new(StatusCode::UNAUTHORIZED, reason, detail)
}

fn now_s(visit: &Visit<'_>) -> u64 {
    u64::try_from(visit.api.now().as_unix_seconds()).unwrap_or_default()
}

/// Refuses what the head alone gives away, so that no large body is taken in for it. `Some`: refused, unless it is a handshake.
pub fn check_head(visit: &Visit<'_>, headers: &[(&str, &[u8])]) -> Result<Option<Refused>, Stop> {
    let ready = visit.ready;
    let Some(preset) = &ready.preset else { return Ok(None) };
    if ready.source.settings.is_unverified_allowed {
        return Ok(None);
    }
    let refused = match &ready.problem {
        Some(problem) => unverified("no_secret", problem.clone()),
        None => match preset.check_head(&request(visit, headers, &[]), &ready.credentials, now_s(visit)) {
            Ok(()) => return Ok(None),
            Err(refusal) => unverified(&format!("verification_failed.{}", refusal.code()), refusal.to_string()),
        },
    };
    if ready.flow.is_none() { Err(refused.into()) } else { Ok(Some(refused)) }
}

/// Verifies, and answers handshakes.
pub async fn judge(visit: &Visit<'_>, headers: &[(&str, &[u8])], body: &Bytes) -> Result<Proof, Stop> {
    let ready = visit.ready;
    let request = request(visit, headers, body);
    let verified = verify(visit, &request).await;
    // Whether the certificate could be had decides nothing about who sent it: the provider is to come again.
    let verified = match verified {
        Err(Stop::Fault(error)) => return Err(Stop::Fault(error)),
        Err(Stop::Refused(refused)) if refused.status == StatusCode::SERVICE_UNAVAILABLE => return Err(refused.into()),
        verified => verified,
    };
    // No handshake is large; and what nobody has signed is not taken apart, which may need twenty times the memory of its bytes.
    let flow = ready.flow.filter(|_| body.len() <= limits::HANDSHAKE_BODY_BYTES_MAX);
    if let Some(flow) = flow {
        let signature = if verified.is_ok() && ready.preset.is_some() { Signature::Valid } else { Signature::NotValid };
        match flow.judge(&request, &knowledge(ready), signature) {
            Handshake::NotOne => {}
            Handshake::Refuse(refused) => return Err(refuse(&refused)),
            Handshake::Answer(answer) => return Err(settle(visit, &request, signature, answer).await?),
            Handshake::Confirm { url, then } => return Err(confirm(visit, &url, &then).await?),
        }
    }
    match verified {
        Ok(proof) => Ok(proof),
        Err(_) if ready.source.settings.is_unverified_allowed => Ok(Proof::named("none")),
        Err(stop) => Err(stop),
    }
}

async fn verify(visit: &Visit<'_>, request: &Request<'_>) -> Result<Proof, Stop> {
    let ready = visit.ready;
    if let Some(problem) = &ready.problem {
        return Err(unverified("no_secret", problem.clone()).into());
    }
    let Some(preset) = &ready.preset else { return Ok(Proof::named("url")) };
    let failed = |refusal: bellwire_verify::Refusal| {
        Stop::from(unverified(&format!("verification_failed.{}", refusal.code()), ready.mask.text(refusal.to_string())))
    };
    let url = preset.certificate_url(request).map_err(failed)?;
    let with_certificate: Credentials;
    let credentials = match url {
        None => &ready.credentials,
        Some(url) => {
            let pem = visit.api.receive().certificates.get(&url).await.map_err(|error| {
                let refused = Refused::new(StatusCode::SERVICE_UNAVAILABLE, "certificate_unavailable", error);
                Stop::from(Refused { retry_after: Some(limits::CERTIFICATE_RETRY_SECONDS), ..refused })
            })?;
            with_certificate = ready.credentials.clone().certificate(url, pem.as_ref());
            &with_certificate
        }
    };
    let verified = preset.verify(request, credentials, now_s(visit)).map_err(failed)?;
    Ok(Proof::of(ready, &verified))
}

fn knowledge(ready: &Ready) -> Knowledge<'_> {
    let knowledge = Knowledge::new(&ready.credentials);
    match &ready.settled {
        Some(secret) => knowledge.settled(secret),
        None => knowledge,
    }
}

fn refuse(refused: &RefusedHandshake) -> Stop {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::UNAUTHORIZED);
    Refused::new(status, format!("handshake.{}", refused.reason.code()), refused.to_string()).into()
}

/// Answers, after what must outlive the answer is stored.
async fn settle(visit: &Visit<'_>, request: &Request<'_>, signature: Signature, answer: Answer) -> Result<Stop, Stop> {
    let answer = match &answer.keep {
        None => answer,
        Some(Keep::LeaseSeconds(seconds)) => {
            let ends_at = visit.api.now().plus(Duration::from_secs(*seconds)).as_unix_seconds();
            store(visit, [(STATE_LEASE, ends_at.to_string())], None).await?;
            answer
        }
        Some(Keep::Secret { .. }) => match keep(visit, request, signature).await? {
            Handshake::Answer(answer) => answer,
            Handshake::Refuse(refused) => return Err(refuse(&refused)),
            // The same request, judged by the same flow with more knowledge.
            Handshake::NotOne | Handshake::Confirm { .. } => answer,
        },
    };
    Ok(Stop::Noted(Box::new(handshake_response(&answer)?), "handshake", "a handshake was answered".to_owned()))
}

/// Of several handshakes at once, on whatever nodes, one sets the secret: the store decides. The same secret may come again.
async fn keep(visit: &Visit<'_>, request: &Request<'_>, signature: Signature) -> Result<Handshake, Stop> {
    let outcome = judge_again(visit, request, signature).await?;
    let Handshake::Answer(Answer { keep: Some(Keep::Secret { name, value, is_for_operator }), .. }) = &outcome else {
        return Ok(outcome);
    };
    let values = [
        (STATE_SECRET_NAME, (*name).to_owned()),
        (STATE_FOR_OPERATOR, is_for_operator.to_string()),
        (STATE_SECRET, value.clone()),
    ];
    if store(visit, values, Some(STATE_SECRET)).await? {
        return Ok(outcome);
    }
    match judge_again(visit, request, signature).await? {
        Handshake::Answer(answer) if answer.keep.is_none() => Ok(Handshake::Answer(answer)),
        _ => {
            let detail =
                "another secret was set up at the same time: remove it from the source to let the provider set this one up";
            Err(Refused::new(StatusCode::CONFLICT, "handshake.already_settled", detail).into())
        }
    }
}

/// By what is stored now, not by what this node remembers.
async fn judge_again(visit: &Visit<'_>, request: &Request<'_>, signature: Signature) -> Result<Handshake, Stop> {
    let (api, source) = (visit.api, &visit.ready.source);
    let Some(fresh) = api.store().find_source(source.org, &source.id.to_string()).await? else {
        return Err(Refused::new(StatusCode::NOT_FOUND, "gone", "the source was deleted meanwhile").into());
    };
    let ready = Ready::new(api.receive(), fresh);
    Ok(ready.flow.map_or(Handshake::NotOne, |flow| flow.judge(request, &knowledge(&ready), signature)))
}

/// False: `unless` is stored already, and nothing was changed.
async fn store<const N: usize>(visit: &Visit<'_>, values: [(&str, String); N], unless: Option<&str>) -> Result<bool, Stop> {
    let (api, source) = (visit.api, &visit.ready.source);
    let values = values.map(|(name, value)| (name.to_owned(), Some(Secret::new(value)))).into();
    let is_stored = api.store().set_source_state(source.id, values, unless, api.now()).await?;
    api.receive().source_changed(source.token.expose());
    Ok(is_stored)
}

/// Fetches what the provider wants to be fetched, then answers.
async fn confirm(visit: &Visit<'_>, url: &str, then: &Answer) -> Result<Stop, Stop> {
    match visit.api.receive().certificates.confirm(url).await {
        Ok(()) => Ok(Stop::Noted(Box::new(handshake_response(then)?), "handshake", "the subscription was confirmed".to_owned())),
        Err(error) => {
            let refused = Refused::new(StatusCode::SERVICE_UNAVAILABLE, "handshake.not_confirmed", error);
            Err(Refused { retry_after: Some(limits::CERTIFICATE_RETRY_SECONDS), ..refused }.into())
        }
    }
}
