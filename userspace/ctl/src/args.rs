//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use gm_api::control::DEFAULT_SOCKET;

const EXAMPLES: &str = "\
Examples:
  gmespctl sa add --file SAD.toml
  gmespctl sa list
  gmespctl sa list --json | jq '.[] | select(.drops.replay > 0)'
  gmespctl sa del --set 7
  gmespctl sa del --spi 0x3b9aca00 --dst 192.0.2.10
  gmespctl stats
  gmespctl capture start /tmp/wire.pcapng
  gmespctl events

Exit code: 0 done, 1 gmespd is not there or could not do it, 2 wrong use or a wrong file.";

/// Talks to gmespd over its control socket.
#[derive(Debug, Parser)]
#[command(name = "gmespctl", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Control socket of gmespd.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Security associations: add, remove, list.
    #[command(subcommand)]
    Sa(Sa),
    /// Counters by reason, and of the workers.
    Stats {
        /// One JSON object with `reasons`, `refusals` and `workers`.
        #[arg(long)]
        json: bool,
    },
    /// Is the daemon well.
    Health {
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Capture what crosses the uplink, still sealed, into a pcapng file.
    #[command(subcommand)]
    Capture(Capture),
    /// Follow registrations and the data plane as they happen, until Ctrl-C.
    Events {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sa {
    /// Install the SAs of a SAD.toml: all of them or none; each set goes live.
    Add {
        /// The SAD.toml; - reads standard input.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// One JSON object with the numbers of the sets.
        #[arg(long)]
        json: bool,
    },
    /// Remove a set of SAs. An SA goes with its whole set.
    Del(Del),
    /// List the SAs. No secrets.
    List {
        /// A JSON array with SAD.toml's keys, state and counters.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Del {
    /// Number of the set.
    #[arg(
        long,
        value_name = "N",
        required_unless_present = "spi",
        conflicts_with = "spi"
    )]
    pub(crate) set: Option<u64>,
    /// SPI of one SA of the set, decimal or with 0x.
    #[arg(long, value_name = "S", value_parser = spi, requires = "dst")]
    pub(crate) spi: Option<u32>,
    /// Destination address of that SA.
    #[arg(long, value_name = "A", requires = "spi")]
    pub(crate) dst: Option<IpAddr>,
    /// One JSON object with the sets that are gone.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Capture {
    /// Start; the file must not exist yet and gets mode 0600.
    Start {
        /// The pcapng file, written by the daemon.
        file: PathBuf,
        /// Stop at this size.
        #[arg(long, value_name = "BYTES")]
        max_bytes: Option<u64>,
    },
    /// Stop and say what was written.
    Stop,
}

/// An SPI, decimal or with 0x.
fn spi(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "an SPI is a number from 0 to 4294967295, decimal or with 0x".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn spis_are_decimal_or_hexadecimal() {
        assert_eq!(spi("1000000000"), Ok(0x3b9a_ca00));
        assert_eq!(spi("0x3b9aca00"), Ok(1_000_000_000));
        assert_eq!(spi("4294967295"), Ok(u32::MAX));
        for bad in ["", "0x", "-1", "4294967296", "3b9aca00"] {
            assert!(spi(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn del_wants_a_set_or_an_spi_with_its_destination() {
        let parse = |rest: &[&str]| {
            Args::try_parse_from(["gmespctl", "sa", "del"].iter().chain(rest)).is_ok()
        };
        assert!(parse(&["--set", "7"]));
        assert!(parse(&["--spi", "0x100", "--dst", "::1"]));
        assert!(!parse(&[]));
        assert!(!parse(&["--spi", "0x100"]));
        assert!(!parse(&["--dst", "::1"]));
        assert!(!parse(&["--set", "7", "--spi", "1", "--dst", "::1"]));
    }
}
