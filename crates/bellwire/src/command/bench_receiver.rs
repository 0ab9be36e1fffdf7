//! `bellwire bench-receiver`: the receiving process of the bench.

use std::net::SocketAddr;

use clap::Args;

use crate::bench::receiver;
use crate::exit::Exit;

#[derive(Debug, Args)]
pub struct BenchReceiverArgs {
    #[arg(long)]
    pub bind: SocketAddr,
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

/// # Errors
/// The address cannot be bound.
pub fn run(args: &BenchReceiverArgs) -> anyhow::Result<Exit> {
    receiver::run(args.bind, args.threads)?;
    Ok(Exit::Ok)
}
