//! `gm_xfrm::kernel` against a real kernel: what is planned comes back, sets go in whole or not at
//! all, and the kernel does with states and policies what the plans count on.
#![expect(
    clippy::print_stdout,
    reason = "recordings, and SKIPPED lines for tests/run"
)]

#[path = "kernel_xfrm/cli.rs"]
mod cli;
#[path = "kernel_xfrm/facts.rs"]
mod facts;
#[path = "kernel_xfrm/ground.rs"]
mod ground;
#[path = "kernel_xfrm/numbers.rs"]
mod numbers;
#[path = "kernel_xfrm/pair.rs"]
mod pair;
#[path = "kernel_xfrm/record.rs"]
mod record;
#[path = "kernel_xfrm/sets.rs"]
mod sets;
#[path = "kernel_xfrm/tables.rs"]
mod tables;
#[path = "kernel_xfrm/watch.rs"]
mod watch;
