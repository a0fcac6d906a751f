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
  gmespctl sa list --from 1 --limit 100
  gmespctl sa del --set 7
  gmespctl sa del --set 1 --to 10000
  gmespctl sa del --spi 0x3b9aca00 --dst 192.0.2.10
  gmespctl stats
  gmespctl explain 198.51.100.7
  gmespctl drops
  gmespctl drops --follow --reason unknown-spi
  gmespctl capture start /tmp/wire.pcapng
  gmespctl events

Exit code: 0 done, 1 gmespd is not there or could not do it, 2 wrong use or a wrong file;
explain also 3 something is wrong, 4 nothing is known of the address.";

const DROPS_HELP: &str = "\
Every packet that gmesp drops has one reason. Counters are exact; samples are a few of
many: some for each reason and tenth of a second, whatever floods. What is left out is
counted, and --follow says so once a second.

Examples:
  gmespctl drops                          by reason: how many, and what to look at
  gmespctl drops --by prefix              which phones (IPv4 address, IPv6 /64) have most
  gmespctl drops --by sa                  which SAs
  gmespctl drops --last 20                the newest samples, then end
  gmespctl drops --follow                 samples as they come, until Ctrl-C
  gmespctl drops --follow --address 198.51.100.7 --spi 0x3b9aca00
  gmespctl drops --follow --json | jq 'select(.reason == \"bad-icv\") | .seq'

A sample has no content of the packet. Times are UTC.";

const EXPLAIN_HELP: &str = "\
Looks at the phone's SAs, at those it had, at its dropped packets and its registrations,
and says what is wrong, the most probable cause first: what, how one knows, what to do.
Nothing is changed. ADDRESS is the phone's as this host sees it, outside of its NAT;
gmespctl sa list and events show it.

Examples:
  gmespctl explain 198.51.100.7
  gmespctl explain 2001:db8::7 --json | jq -r '.findings[0].cause'

Exit code: 0 nothing is wrong, 3 something is, 4 nothing is known of the address,
1 gmespd is not there, 2 wrong use.";

const WORKERS_HELP: &str = "\
Without N: how many workers carry packets. With N: that many from now on; SAs move over
without a lost packet. At most one for each receive queue of the uplink (ethtool -L adds
queues before gmespd starts). After a restart [gm] workers counts again.

Examples:
  gmespctl workers
  gmespctl workers 4";

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
    /// Dropped packets: by reason, by phone, by SA, or as they come.
    #[command(after_help = DROPS_HELP)]
    Drops(Drops),
    /// Says in words what a phone's packets run into.
    #[command(after_help = EXPLAIN_HELP)]
    Explain {
        /// The phone's address, IPv4 or IPv6.
        address: IpAddr,
        /// One JSON object: `verdict` and `findings`.
        #[arg(long)]
        json: bool,
    },
    /// How many workers carry packets; change it.
    #[command(after_help = WORKERS_HELP)]
    Workers {
        /// The new number.
        #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        n: Option<u32>,
        /// One JSON object.
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
        /// First number of a set: where there are many.
        #[arg(long, value_name = "N")]
        from: Option<u64>,
        /// Most sets.
        #[arg(long, value_name = "M")]
        limit: Option<usize>,
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
    /// Last number, with --set: all sets from there to here.
    #[arg(long, value_name = "M", requires = "set")]
    pub(crate) to: Option<u64>,
    /// Destination address of that SA.
    #[arg(long, value_name = "A", requires = "spi")]
    pub(crate) dst: Option<IpAddr>,
    /// One JSON object with the sets that are gone.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Drops {
    /// What is counted: reason, prefix (a phone: IPv4 address or IPv6 /64), sa.
    #[arg(long, value_name = "WHAT", default_value = "reason", conflicts_with_all = ["follow", "last"])]
    pub(crate) by: By,
    /// With --by prefix: most rows.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Show samples as they come, until Ctrl-C.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Show the newest N samples.
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    pub(crate) last: Option<usize>,
    /// Samples: only of this reason; may be repeated.
    #[arg(long, value_name = "REASON")]
    pub(crate) reason: Vec<String>,
    /// Samples: only from or to this address; may be repeated.
    #[arg(long, value_name = "A")]
    pub(crate) address: Vec<IpAddr>,
    /// Samples: only with this SPI, decimal or with 0x; may be repeated.
    #[arg(long, value_name = "S", value_parser = spi)]
    pub(crate) spi: Vec<u32>,
    /// JSON; samples one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What drops are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum By {
    Reason,
    Prefix,
    Sa,
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
