//! Asking DNS for a host's addresses, behind a trait so that tests script the answers.
//!
//! Only DNS is asked: no search domains, no hosts file. What comes back is judged by the caller, every answer of it.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use bellwire_core::limits;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use parking_lot::Mutex;

/// The addresses of a name, or what an operator should read about why there are none.
pub type Answers = Result<Vec<IpAddr>, String>;

/// Turns host names into addresses. Called once per dial; implementations may cache.
pub trait Resolve: Send + Sync + 'static {
    /// Looks up `name`: lower case, at least two labels unless the operator allowed it, no trailing dot. The caller sets the
    /// time limit and drops the future when it is reached.
    fn resolve<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Answers> + Send + 'a>>;
}

/// DNS servers, by default the machine's own, with a bounded cache whose entries live a minute at most.
#[derive(Default)]
pub struct SystemResolver {
    /// `None`: those of the machine's configuration.
    name_servers: Option<Vec<SocketAddr>>,
    // Made at the first lookup: a machine without a DNS configuration can still serve and deliver to addresses.
    resolver: Mutex<Option<TokioResolver>>,
}

impl SystemResolver {
    /// Asks these servers instead of the machine's own.
    pub fn with_name_servers(servers: Vec<SocketAddr>) -> Self {
        Self { name_servers: Some(servers), resolver: Mutex::default() }
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let mut slot = self.resolver.lock();
        if let Some(resolver) = &*slot {
            return Ok(resolver.clone());
        }
        let made = build(self.name_servers.as_deref())
            .map_err(|error| format!("the DNS configuration of this machine cannot be used: {error}"))?;
        Ok(slot.insert(made).clone())
    }
}

fn build(servers: Option<&[SocketAddr]>) -> Result<TokioResolver, NetError> {
    let (name_servers, mut options) = match servers {
        Some(servers) => (servers.iter().copied().map(name_server).collect(), ResolverOpts::default()),
        None => {
            let (config, options) = hickory_resolver::system_conf::read_system_conf()?;
            (config.into_parts().2, options)
        }
    };
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = limits::RESOLVE_CACHE_ENTRIES;
    options.positive_max_ttl = Some(Duration::from_secs(limits::RESOLVE_TTL_SECONDS_MAX));
    // Also when the server says nothing about it: most names have no IPv6 address, and failing ones are asked for often.
    options.negative_min_ttl = Some(Duration::from_secs(limits::RESOLVE_NEGATIVE_TTL_SECONDS));
    options.negative_max_ttl = options.negative_min_ttl;
    // One repetition fits into the budget of a lookup.
    options.timeout = Duration::from_millis(limits::RESOLVE_MS_MAX / 2);
    options.attempts = 2;
    // No domain and no search list, whatever the machine's configuration says.
    let config = ResolverConfig::from_parts(None, Vec::new(), name_servers);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Answers> + Send + 'a>> {
        Box::pin(async move {
            let resolver = self.resolver()?;
            // The final dot makes the name absolute: no search list is ever consulted.
            match resolver.lookup_ip(format!("{name}.")).await {
                Ok(found) => Ok(found.iter().collect()),
                Err(error) => Err(format!("DNS lookup of {name} failed: {error}")),
            }
        })
    }
}
