//! tc egress as a sender meets it: a UDP socket sends over a veth whose egress
//! has the program, or has not.

use std::net::UdpSocket;
use std::time::Instant;

use aya::programs::{SchedClassifier, TcAttachType};
use gm_benches::stats::{Figure, alternate};
use gm_benches::{pin, rounds, smoke};
use gm_tests::netns::{End, NetNs, veth};
use gm_xsk::nic;

use crate::cases::{Case, Under};
use crate::lab::{Lab, Problem};

/// A send takes some microseconds and the next one some more or less: many short
/// rounds find the tens of nanoseconds between.
const ROUNDS: usize = 201;

/// Nanoseconds of one `send`.
pub struct Sending {
    /// Without a program.
    pub plain: Figure,
    /// What a program adds that only lets it go on.
    pub any: Figure,
    /// What ours adds.
    pub ours: Figure,
}

/// For a socket bound to `from`; addresses as in `cases`.
pub fn sending(from: &str) -> Result<Sending, Problem> {
    let (here, there) = (NetNs::new()?, NetNs::new()?);
    veth(
        End {
            ns: &here,
            name: "up0",
            addresses: &["203.0.113.5/24", "203.0.113.6/24"],
        },
        End {
            ns: &there,
            name: "up1",
            addresses: &[],
        },
    );
    // A card that is not there: the other end drops it at first sight.
    here.ip("neigh replace 203.0.113.9 dev up0 lladdr 02:00:00:00:00:09 nud permanent");
    let values = here.run(|| alternated(from).map_err(|e| e.to_string()))?;
    Ok(Sending {
        plain: Figure::of(&values[0]),
        any: Figure::above(&values[1], &values[0]),
        ours: Figure::above(&values[2], &values[0]),
    })
}

fn alternated(from: &str) -> Result<Vec<Vec<f64>>, Problem> {
    pin(0);
    let packets = if smoke() { 100 } else { 2000 };
    let lab = Lab::new(&Case {
        under: Under::Egress,
        uplink: nic::index("up0")?,
        ..Case::default()
    })?;
    let lab = std::cell::RefCell::new(lab);
    let socket = UdpSocket::bind((from, 5060))?;
    socket.connect("203.0.113.9:5060")?;
    let send = || -> Result<f64, Problem> {
        // Attaching patches the kernel's code: not what is asked here.
        for _ in 0..packets / 4 {
            socket.send(&[0xa5; 356])?;
        }
        let begin = Instant::now();
        for _ in 0..packets {
            socket.send(&[0xa5; 356])?;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e9 / f64::from(packets))
    };
    let with = |ours: bool| -> Result<f64, Problem> {
        let mut lab = lab.borrow_mut();
        let program = match ours {
            true => lab.product.program_mut(Under::Egress.name()),
            false => lab.bench.program_mut("gm_bench_tc_pass"),
        };
        let program: &mut SchedClassifier = program.ok_or("no program")?.try_into()?;
        let link = program.attach("up0", TcAttachType::Egress)?;
        let taken = send();
        program.detach(link)?;
        taken
    };
    with(true)?;
    with(false)?;
    Ok(alternate(
        rounds(ROUNDS),
        &mut [
            &mut || send().unwrap_or(f64::NAN),
            &mut || with(false).unwrap_or(f64::NAN),
            &mut || with(true).unwrap_or(f64::NAN),
        ],
    ))
}
