//! The command line's side of the HTTP API: one request, one answer, through the same transport as deliveries (with a policy
//! that lets the operator talk to any address).

use std::time::Duration;

use bellwire_core::egress::EgressPolicy;
use bellwire_engine::transport::{Client, ClientOptions, ResponseLimits};
use clap::Args;
use serde_json::Value;
use url::Url;

use crate::config::Config;
use crate::exit::{Exit, Failure};

const TIMEOUT: Duration = Duration::from_secs(30);
/// A page of 250 messages with payloads fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Which server, and as whom.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Address of the server; default: the configured `listen` address
    #[arg(long, value_name = "URL", env = "BELLWIRE_SERVER", hide_env_values = true, help_heading = "Server")]
    pub server: Option<String>,
    /// API key or token
    #[arg(long, value_name = "TOKEN", env = "BELLWIRE_TOKEN", hide_env_values = true, help_heading = "Server")]
    pub token: Option<String>,
}

/// A server's API.
pub struct Api {
    client: Client,
    base: Url,
    root: &'static [&'static str],
    token: String,
}

/// Path, query and body of a call.
#[derive(Clone, Debug, Default)]
pub struct Call<'a> {
    pub method: &'static str,
    /// Segments after the API's root; they are encoded here.
    pub path: &'a [&'a str],
    pub query: Vec<(&'static str, String)>,
    pub body: Option<String>,
    pub idempotency_key: Option<&'a str>,
}

impl Api {
    /// # Errors
    /// The address is no URL, or there is no token.
    pub fn new(args: &ServerArgs, config: &Config) -> Result<Self, Failure> {
        let usage = |text: String| Failure::new(Exit::Usage, text);
        let address = args.server.clone().unwrap_or_else(|| default_server(config));
        let base = Url::parse(&address).map_err(|error| usage(format!("--server {address}: {error}")))?;
        let Some(host) = base.host_str().map(|host| host.trim_matches(['[', ']']).to_owned()) else {
            return Err(usage(format!("--server {address}: write it as http://127.0.0.1:8071")));
        };
        let token = args.token.clone().filter(|token| !token.is_empty()).ok_or_else(|| {
            usage("no token: give --token or set BELLWIRE_TOKEN to an API key (`bellwire key create`)".to_owned())
        })?;
        // The operator asks: any address is fine.
        let mut policy = EgressPolicy { allow_metadata: true, allow_names: vec![host], ..EgressPolicy::default() };
        policy.allow_entries(["0.0.0.0/0", "::/0"]).map_err(usage)?;
        let response = ResponseLimits { kept_bytes: ANSWER_BYTES_MAX, drained_bytes: 0 };
        Ok(Self {
            client: Client::new(ClientOptions { policy, response, ..ClientOptions::default() }),
            base,
            root: &["api", "v1"],
            token,
        })
    }

    /// The same server's API of sources, which has a root of its own.
    #[must_use]
    pub fn ingest(self) -> Self {
        Self { root: &["ingest", "api", "v1"], ..self }
    }

    /// Makes a call and returns the JSON of its 2xx answer (null for none).
    ///
    /// # Errors
    /// [`Exit::Unreachable`] without an answer; [`Exit::Failure`] with the server's code and detail.
    pub async fn call(&self, call: Call<'_>) -> Result<Value, Failure> {
        let url = self.url(&call)?;
        let authorization = format!("Bearer {}", self.token);
        let mut headers = vec![("authorization", authorization.as_str()), ("accept", "application/json")];
        if call.body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        if let Some(key) = call.idempotency_key {
            headers.push(("idempotency-key", key));
        }
        let body = call.body.as_deref().unwrap_or_default().as_bytes();
        let answer = self
            .client
            .request(call.method, url.as_str(), &headers, body, TIMEOUT)
            .await
            .map_err(|error| Failure::new(Exit::Unreachable, format!("{} cannot be reached: {error}", self.base)))?;
        let value = serde_json::from_slice::<Value>(&answer.body);
        if (200..300).contains(&answer.status) {
            if answer.body.is_empty() {
                return Ok(Value::Null);
            }
            return value.map_err(|error| Failure::new(Exit::Failure, format!("{}: the answer is not JSON: {error}", self.base)));
        }
        Err(Failure::new(Exit::Failure, refusal(answer.status, value.ok().as_ref(), &answer.body)))
    }

    fn url(&self, call: &Call<'_>) -> Result<Url, Failure> {
        let mut url = self.base.clone();
        // Dots alone would be steps in the path.
        if let Some(dots) = call.path.iter().find(|segment| segment.is_empty() || segment.chars().all(|c| c == '.')) {
            return Err(Failure::new(Exit::Usage, format!("{dots:?} is not an id")));
        }
        url.path_segments_mut()
            .map_err(|()| Failure::new(Exit::Usage, format!("{} cannot be a server", self.base)))?
            .pop_if_empty()
            .extend(self.root)
            .extend(call.path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }
}

/// The configured listener as a client reaches it.
fn default_server(config: &Config) -> String {
    let mut address = config.server.listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    format!("http://{address}")
}

/// `404 not_found: …`, whatever form the body has.
fn refusal(status: u16, value: Option<&Value>, body: &[u8]) -> String {
    let hint = match status {
        401 => " (is the token right, and of this server?)",
        403 => " (the key lacks a scope)",
        _ => "",
    };
    let text = match value {
        Some(value) => {
            let code = value.get("code").and_then(Value::as_str).unwrap_or_default();
            let detail = match value.get("detail") {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Array(items)) => items.iter().map(validation).collect::<Vec<_>>().join("; "),
                _ => value.to_string(),
            };
            if code.is_empty() { detail } else { format!("{code}: {detail}") }
        }
        None => String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned(),
    };
    format!("the server answered {status} {text}{hint}")
}

/// One item of a 422 body: `body.url: …`.
fn validation(item: &Value) -> String {
    let place =
        item.get("loc").and_then(Value::as_array).map(|loc| loc.iter().map(crate::terminal::cell).collect::<Vec<_>>().join("."));
    let text = item.get("msg").map(crate::terminal::cell).unwrap_or_default();
    format!("{}: {text}", place.unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn api(server: &str) -> Api {
        let config = Config::load(&crate::config::Sources { folder: "/nonexistent".into(), ..Default::default() }).unwrap();
        Api::new(&ServerArgs { server: Some(server.to_owned()), token: Some("t".to_owned()) }, &config).unwrap()
    }

    /// Broken: an id with a slash or a question mark asks for something else than was typed.
    #[test]
    fn ids_are_one_segment_of_the_path_whatever_they_hold() {
        let path = ["app", "a/b?c#d", "msg"];
        let call = Call {
            method: "GET",
            path: &path,
            query: vec![("limit", "5".into()), ("event_types", "a&b".into())],
            ..Call::default()
        };
        assert_eq!(
            api("http://h:1/base/").url(&call).unwrap().as_str(),
            "http://h:1/base/api/v1/app/a%2Fb%3Fc%23d/msg?limit=5&event_types=a%26b"
        );
        let ingest = api("http://h:1").ingest().url(&Call { query: Vec::new(), ..call.clone() }).unwrap();
        assert_eq!(ingest.path(), "/ingest/api/v1/app/a%2Fb%3Fc%23d/msg");
        assert!(api("http://h:1").url(&Call { path: &["app", ".."], ..call }).is_err());
    }

    /// Broken: a refusal's reason is hidden from who typed the command.
    #[test]
    fn refusals_show_code_and_detail() {
        let shown = |status, text: &str| refusal(status, serde_json::from_str(text).ok().as_ref(), text.as_bytes());
        assert!(shown(404, r#"{"code":"not_found","detail":"Entity not found"}"#).contains("404 not_found: Entity not found"));
        assert!(
            shown(422, r#"{"detail":[{"loc":["body","url"],"msg":"is required","type":"x"}]}"#).contains("body.url: is required")
        );
        assert!(shown(502, "<html>").contains("502 <html>"));
    }
}
