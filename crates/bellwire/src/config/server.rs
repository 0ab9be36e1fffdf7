//! The keys outside a section: the listener, the data folder, the public address, stopping.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::error::ConfigError;
use super::key::{Key, Secrecy};
use super::layer::Layers;
use super::{parse_count, parse_duration_between};

/// Outside any section.
#[derive(Clone, Debug)]
pub struct Server {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    /// Without a slash at the end.
    pub public_url: Option<String>,
    pub stop_grace: Duration,
    pub trusted_proxies: Vec<IpNet>,
    pub presets_dir: Option<PathBuf>,
    /// `None`: one a processor.
    pub worker_threads: Option<usize>,
}

/// More than the processors of the largest machines.
const WORKER_THREADS_MAX: usize = 1_024;

pub const KEYS: &[Key; 7] = &[
    Key {
        path: "listen",
        default: "127.0.0.1:8071",
        example: "0.0.0.0:8071",
        accepts: "an address and a port, such as 127.0.0.1:8071 or [::]:8071; port 0 takes any free one",
        about: "Where the API listens. By default only programs of this machine reach it; put a TLS proxy before it to serve others.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "data_dir",
        default: "./bellwire-data",
        example: "/var/lib/bellwire",
        accepts: "a folder; it is created when it is missing",
        about: "Everything that must survive: the store, the master key unless it is configured, the lock. One server at a time. With \
                PostgreSQL it holds the master key only, and nothing if that is configured.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "public_url",
        default: "",
        example: "https://hooks.example.com",
        accepts: "an http or https URL",
        about: "How the outside reaches this server, for links that it hands out. Default: the address it listens at.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "stop_grace",
        default: "30s",
        example: "30s",
        accepts: "a duration from 0s to 1h",
        about: "How long attempts in flight may take to finish after the first SIGTERM or SIGINT. A second signal ends it at once.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "trusted_proxies",
        default: "",
        example: "10.0.0.0/8",
        accepts: "networks (CIDR) or addresses, separated by commas",
        about: "Proxies whose x-forwarded-for says who sends to a source, and whose x-client-cert-subject says whose certificate it is. The \
                rightmost address that is none of them counts; without any, the other end of the connection.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "presets_dir",
        default: "",
        example: "/etc/bellwire/presets",
        accepts: "a folder",
        about: "Presets of your own for providers that sources receive from: one TOML file each, in the format of \
                crates/bellwire-verify/presets/FORMAT.md. Read at the start.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "worker_threads",
        default: "",
        example: "4",
        accepts: "a number from 1 to 1024",
        about: "Threads that answer and deliver. Default: as many as there are processors that this process may use; with two of them and the \
                embedded store, each thread stays on its own. Fewer leave time to what else runs on the machine, and a number given here lets the \
                system place them.",
        secrecy: Secrecy::Open,
    },
];

impl Server {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [listen, data_dir, public_url, stop_grace, trusted_proxies, presets_dir, worker_threads] = KEYS;
        Ok(Self {
            listen: layers.required(listen, |text| {
                text.replace("localhost:", "127.0.0.1:").parse().map_err(|_| format!("{text:?} is not an address with a port"))
            })?,
            data_dir: layers.required(data_dir, parse_path)?,
            public_url: layers.optional(public_url, parse_url)?,
            stop_grace: layers
                .required(stop_grace, |text| parse_duration_between(text, Duration::ZERO, Duration::from_secs(3_600)))?,
            trusted_proxies: layers.optional(trusted_proxies, parse_networks)?.unwrap_or_default(),
            presets_dir: layers.optional(presets_dir, parse_path)?,
            worker_threads: layers.optional(worker_threads, |text| parse_count(text, 1, WORKER_THREADS_MAX))?,
        })
    }
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(PathBuf::from(text)) }
}

fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    let parse = |part: &str| {
        let address = || part.parse::<IpAddr>().map(IpNet::from);
        part.parse()
            .or_else(|_| address())
            .map_err(|_| format!("{part:?} is neither a network such as 10.0.0.0/8 nor an address"))
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse).collect()
}

fn parse_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} is not a plain http or https URL"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}
