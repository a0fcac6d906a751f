//! The matrix: every suite, mode and IP version with UDP and TCP, both ways, gmespd in both roles.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use gm_dataplane::Reason;
use gm_esp::{Mode, Suite};
use nix::sys::socket::{getsockopt, sockopt};

use crate::Pair;
use crate::gm::{PORT_PC, PORT_PS, WAIT};
use crate::lab::Family;
use crate::set::{End, Set};
use crate::sizes::{MTU, Shape};
use crate::sockets::{connect, pass, try_pass, udp};

/// Bytes on a connection, one burst after the other.
const BURSTS: [usize; 4] = [1, 1400, 8192, 100_000];

/// Modes and IP versions.
const WAYS: [(&str, Mode, Family); 3] = [
    ("transport IPv4", Mode::Trans, Family::V4),
    ("transport IPv6", Mode::Trans, Family::V6),
    ("UDP-enc-tun IPv4", Mode::UdpEncTun, Family::V4),
];

/// How many sizes have passed, of how many; the first that has not.
#[derive(Default)]
struct Cell {
    passed: usize,
    of: usize,
    trouble: Option<String>,
}

impl Cell {
    fn note(&mut self, result: Result<(), String>) {
        self.of += 1;
        match result {
            Ok(()) => self.passed += 1,
            Err(e) => drop(self.trouble.get_or_insert(e)),
        }
    }

    fn is_well(&self) -> bool {
        self.trouble.is_none()
    }
}

/// A set with what its row of the table is called.
struct Row {
    name: String,
    shape: Shape,
    set: Set,
    family: Family,
}

impl Row {
    /// gmespd learns where the phone is.
    fn is_learnt(&self) -> bool {
        self.shape.mode == Mode::UdpEncTun && !self.set.port_known
    }
}

fn rows(gm: End) -> Vec<Row> {
    let each = Suite::ALL
        .into_iter()
        .flat_map(|suite| WAYS.map(|way| (suite, way)));
    each.zip(1..)
        .map(|((suite, (way, mode, family)), number)| Row {
            name: format!("{:<22} {way:<17}", suite.to_string()),
            shape: Shape {
                suite,
                mode,
                v4: family == Family::V4,
            },
            set: Set {
                // gmespd learns the phone's port, the kernel is told.
                port_known: gm == End::Ue,
                ..Set::new(number, suite, mode, family.addresses().into())
            },
            family,
        })
        .collect()
}

/// The P-CSCF's sockets of one address.
struct AtP {
    ps: UdpSocket,
    pc: UdpSocket,
    listener: TcpListener,
}

impl AtP {
    fn new(pair: &Pair, family: Family) -> AtP {
        let address = family.addresses().0;
        pair.at(End::PCscf).run(|| AtP {
            ps: udp(address, PORT_PS),
            pc: udp(address, PORT_PC),
            listener: listen(address, PORT_PS),
        })
    }
}

/// Both directions of a row over UDP: from the phone, to the phone. Each goes over two SAs.
fn datagrams(pair: &Pair, row: &Row, p: &AtP) -> [Cell; 2] {
    let (address, [uc, us]) = (row.set.ue, row.set.ports);
    let ue = pair.at(End::Ue);
    let (uc, us) = ue.run(|| (udp(address, uc), udp(address, us)));
    let mut cells = <[Cell; 2]>::default();
    if row.is_learnt() {
        pass(&uc, &p.ps, 100);
        pair.gm.finds(&row.set);
    }
    for len in row.shape.datagrams() {
        let is_cut = row.shape.sealed(8 + len) > MTU;
        let both = |one: [&UdpSocket; 2], other: [&UdpSocket; 2]| {
            let before = pair.kernel.fragments();
            try_pass(one[0], one[1], len)?;
            try_pass(other[0], other[1], len)?;
            match (pair.kernel.fragments() > before) == is_cut {
                true => Ok(()),
                false if is_cut => Err(format!("{len} bytes: in one piece")),
                false => Err(format!("{len} bytes: in fragments")),
            }
        };
        cells[0].note(both([&uc, &p.ps], [&us, &p.pc]));
        cells[1].note(both([&p.ps, &uc], [&p.pc, &us]));
        if !cells.iter().all(Cell::is_well) {
            break;
        }
    }
    cells
}

/// The same over TCP: the phone connects from port_uc, the P-CSCF from port_pc, and either sends
/// on both.
fn connections(pair: &Pair, row: &Row, ps: &TcpListener) -> [Cell; 2] {
    let (p, u, [uc, us]) = (row.set.p, row.set.ue, row.set.ports);
    let listener = pair.at(End::Ue).run(|| listen(u, us));
    let [a, b] = [
        (End::Ue, (u, uc), (p, PORT_PS), ps),
        (End::PCscf, (p, PORT_PC), (u, us), &listener),
    ]
    .map(|(end, from, to, listener)| {
        let client = pair.at(end).run(|| connect(from, to));
        let (server, seen) = listener.accept().unwrap();
        assert_eq!((seen.ip(), seen.port()), from, "a connection of another");
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(WAIT)).unwrap();
            stream.set_write_timeout(Some(WAIT)).unwrap();
            let mss = getsockopt(stream, sockopt::TcpMaxSeg).unwrap() as usize;
            // What the stack puts into a segment is without options, of which these have a
            // timestamp.
            let sealed = row.shape.sealed(20 + 12 + mss);
            assert!(sealed <= MTU, "{}: MSS {mss}", row.name);
            assert!(sealed > MTU - 120, "{}: MSS {mss} is little", row.name);
        }
        (client, server)
    });
    let mut cells = <[Cell; 2]>::default();
    for len in BURSTS {
        cells[0].note(burst(&a.0, &a.1, len).and_then(|()| burst(&b.1, &b.0, len)));
        cells[1].note(burst(&a.1, &a.0, len).and_then(|()| burst(&b.0, &b.1, len)));
        if !cells.iter().all(Cell::is_well) {
            break;
        }
    }
    cells
}

fn listen(address: IpAddr, port: u16) -> TcpListener {
    TcpListener::bind((address, port)).unwrap()
}

/// Sends so many bytes and compares what comes.
fn burst(mut from: &TcpStream, mut to: &TcpStream, len: usize) -> Result<(), String> {
    let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + i / 999 + len) as u8).collect();
    let mut got = vec![0; len];
    std::thread::scope(|s| {
        s.spawn(|| from.write_all(&bytes));
        to.read_exact(&mut got)
    })
    .map_err(|e| format!("{len} bytes: {e}"))?;
    match got == bytes {
        true => Ok(()),
        false => Err(format!("{len} bytes: others came")),
    }
}

/// A row's cells; a panic in it is trouble of that row, and the others are tried all the same.
fn caught(row: &Row, run: impl FnOnce() -> [Cell; 2]) -> [Cell; 2] {
    let run = std::panic::AssertUnwindSafe(run);
    std::panic::catch_unwind(run).unwrap_or_else(|_| {
        let mut cells = <[Cell; 2]>::default();
        cells[0].note(Err(format!("panicked, {:?}", row.shape)));
        cells
    })
}

/// All rows with gmespd in one role; the cells of UDP and TCP.
fn run(gm: End) -> Vec<[[Cell; 2]; 2]> {
    let rows = rows(gm);
    let pair = Pair::new(gm);
    let sets: Vec<Set> = rows.iter().map(|row| row.set.clone()).collect();
    pair.gm.add(&sets);
    // The phone's states and policies are iproute2's, the P-CSCF's gm-xfrm's.
    match gm {
        End::PCscf => pair.kernel.add(&sets),
        End::Ue => pair.kernel.install(&sets),
    }
    let [v4, v6] = [Family::V4, Family::V6].map(|family| AtP::new(&pair, family));
    let at = |row: &Row| match row.family {
        Family::V4 => &v4,
        Family::V6 => &v6,
    };
    let over_udp: Vec<_> = rows
        .iter()
        .map(|row| caught(row, || datagrams(&pair, row, at(row))))
        .collect();
    if over_udp.iter().flatten().all(Cell::is_well) {
        // Each datagram to gmespd has come once.
        let to_gm = if gm == End::PCscf { 0 } else { 1 };
        let first = rows.iter().filter(|row| row.is_learnt()).count();
        let came: usize = over_udp.iter().map(|cells| cells[to_gm].passed * 2).sum();
        pair.gm.counts(Reason::Ok, (first + came) as u64);
    }
    let fragments = |pair: &Pair| (pair.kernel.fragments(), pair.gm.count(Reason::Fragment));
    let before = fragments(&pair);
    let over_tcp: Vec<_> = rows
        .iter()
        .map(|row| caught(row, || connections(&pair, row, &at(row).listener)))
        .collect();
    // Where something is wrong, the table says what.
    if over_udp
        .iter()
        .chain(&over_tcp)
        .flatten()
        .all(Cell::is_well)
    {
        assert_eq!(fragments(&pair), before, "segments are cut");
        assert_eq!(pair.kernel.errors(), [].into(), "gmespd is {gm:?}");
        assert_eq!(pair.gm.dropped(), [].into(), "gmespd is {gm:?}");
    }
    over_udp
        .into_iter()
        .zip(over_tcp)
        .map(|(udp, tcp)| [udp, tcp])
        .collect()
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn every_suite_mode_and_size_crosses_both_ways_in_both_roles() {
    gm_tests::needs_esp!();
    let columns = [End::PCscf, End::Ue].map(run);
    let mut table = format!(
        "{:<40}     | gmespd is the P-CSCF | gmespd is the phone\n{:<40}     | phone > P  P > phone | \
         phone > P  P > phone\n",
        "sizes passed, of sizes tried", ""
    );
    let (mut cells, mut troubles) = (0, String::new());
    for (n, row) in rows(End::PCscf).iter().enumerate() {
        for (at, protocol) in ["UDP", "TCP"].iter().enumerate() {
            let _ = write!(table, "{} {protocol} ", row.name);
            for column in &columns {
                table += "|";
                for cell in &column[n][at] {
                    cells += 1;
                    let of = format!("{}/{}", cell.passed, cell.of);
                    let _ = write!(table, " {of:<10}");
                    if let Some(trouble) = &cell.trouble {
                        let _ = writeln!(troubles, "{} {protocol}: {trouble}", row.name);
                    }
                }
            }
            table.push('\n');
        }
    }
    println!("{table}{cells} cells");
    assert_eq!(cells, 4 * 3 * 2 * 2 * 2);
    assert!(troubles.is_empty(), "{troubles}");
}
