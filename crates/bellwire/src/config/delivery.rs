//! `[delivery]`: attempts, retries, limits.

use std::time::Duration;

use bellwire_core::time::parse_duration;
use bellwire_core::{RetryPolicy, limits};
use bellwire_engine::config::HeaderPrefix;

use super::error::ConfigError;
use super::key::{Key, Secrecy};
use super::layer::Layers;
use super::{parse_count, parse_duration_between};

/// `[delivery]`
#[derive(Clone, Debug)]
pub struct Delivery {
    pub retry: RetryPolicy,
    pub request_timeout: Duration,
    pub disable_after: Option<Duration>,
    pub proxy: Option<String>,
    pub header_prefix: HeaderPrefix,
    pub user_agent: String,
    pub in_flight_max: usize,
    pub endpoint_in_flight_max: usize,
}

/// Waits in a schedule: more than anyone needs, little enough to read.
const RETRIES_MAX: usize = 50;
/// One wait: retention ends before longer ones do.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Sockets of one process; the kernel's usual limit of open files is far below.
const IN_FLIGHT_CONFIGURED_MAX: usize = 65_536;

pub const KEYS: &[Key; 9] = &[
    Key {
        path: "delivery.retry_schedule",
        default: "5s,5m,30m,2h,5h,10h,10h",
        example: "5s,1m,10m",
        accepts: "durations separated by commas (units ms, s, m, h, d), or `none`",
        about: "The waits before the second, third, … attempt; the first is made at once. After the last one fails the delivery is \
                exhausted: kept, and replayable.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "delivery.retry_jitter_percent",
        default: "20",
        example: "0",
        accepts: "a whole number from 0 to 100",
        about: "Each wait is spread by up to this share of itself in both directions, so that receivers are not hit in step.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "delivery.request_timeout",
        default: "15s",
        example: "30s",
        accepts: "a duration from 100ms to 10m",
        about: "For one attempt as a whole: connecting, sending, and reading the answer.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "delivery.disable_after",
        default: "5d",
        example: "never",
        accepts: "a duration from 1s to 3650d, or `never`",
        about: "An endpoint that has done nothing but fail for this long is disabled.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "delivery.proxy",
        default: "",
        example: "http://proxy.internal:3128",
        accepts: "an http URL with host and port",
        about: "A forward proxy for all deliveries. Destinations are judged before, by the same rules.",
        secrecy: Secrecy::UrlCredentials,
    },
    Key {
        path: "delivery.header_prefix",
        default: "webhook",
        example: "svix",
        accepts: "webhook or svix",
        about: "Names of the signature headers: `webhook-id`, `webhook-timestamp`, `webhook-signature` (Standard Webhooks), or the \
                same with `svix-`.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "delivery.user_agent",
        default: concat!("Bellwire/", env!("CARGO_PKG_VERSION")),
        example: "Example-Hooks/1.0",
        accepts: "visible ASCII characters and spaces",
        about: "The `user-agent` header of deliveries.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "delivery.in_flight_max",
        default: "1024",
        example: "4096",
        accepts: "a whole number from 1 to 65536",
        about: "Attempts running at once, all endpoints together. A crash repeats at most this many.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "delivery.endpoint_in_flight_max",
        default: "256",
        example: "32",
        accepts: "a whole number from 1 to 65536",
        about: "Attempts running at once for one endpoint, at most; how many it really gets follows from how it answers.",
        secrecy: Secrecy::Open,
    },
];

impl Delivery {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [schedule, jitter, timeout, disable_after, proxy, prefix, user_agent, in_flight, endpoint_in_flight] = KEYS;
        let count = |text: &str| parse_count(text, 1, IN_FLIGHT_CONFIGURED_MAX);
        Ok(Self {
            retry: RetryPolicy {
                schedule: layers.required(schedule, parse_schedule)?,
                jitter_percent: layers.required(jitter, |text| {
                    parse_count(text, 0, 100).and_then(|n| u8::try_from(n).map_err(|error| error.to_string()))
                })?,
            },
            request_timeout: layers
                .required(timeout, |text| parse_duration_between(text, Duration::from_millis(100), Duration::from_secs(600)))?,
            disable_after: layers.required(disable_after, |text| match text {
                "never" => Ok(None),
                _ => parse_duration_between(text, Duration::from_secs(1), Duration::from_secs(3_650 * 86_400)).map(Some),
            })?,
            proxy: layers.optional(proxy, parse_proxy)?,
            header_prefix: layers.required(prefix, |text| match text {
                "webhook" => Ok(HeaderPrefix::Webhook),
                "svix" => Ok(HeaderPrefix::Svix),
                _ => Err(format!("{text:?} is not known")),
            })?,
            user_agent: layers.required(user_agent, parse_user_agent)?,
            in_flight_max: layers.required(in_flight, count)?,
            endpoint_in_flight_max: layers.required(endpoint_in_flight, count)?,
        })
    }
}

/// `5s,5m,…`; `none` is a single attempt.
fn parse_schedule(text: &str) -> Result<Vec<Duration>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let waits = text.split(',').map(|part| {
        let wait = parse_duration(part)?;
        if wait > RETRY_WAIT_MAX { Err(format!("{} is above 30d", part.trim())) } else { Ok(wait) }
    });
    let waits = waits.collect::<Result<Vec<_>, _>>()?;
    if waits.len() > RETRIES_MAX { Err(format!("{} waits are above {RETRIES_MAX}", waits.len())) } else { Ok(waits) }
}

fn parse_proxy(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if url.scheme() != "http" || url.host().is_none() || !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err("is not of the form http://host:port".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_user_agent(text: &str) -> Result<String, String> {
    let is_valid =
        !text.is_empty() && text.len() <= limits::HEADER_NAME_BYTES_MAX && text.bytes().all(|c| (b' '..=b'~').contains(&c));
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err(format!("is not 1 to {} visible ASCII characters", limits::HEADER_NAME_BYTES_MAX))
    }
}
