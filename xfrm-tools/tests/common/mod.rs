//! What the tests of the program share: running it, and captures built byte
//! by byte, apart from the code under test.
#![allow(
    dead_code,
    reason = "each test program uses its own part of this module"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use std::io::Write as _;

/// The folder with the vectors.
pub fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
}

/// A folder of the vectors.
pub fn case(name: &str) -> PathBuf {
    vectors().join(name)
}

/// The folders of our own vectors.
pub fn more() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(case("more")).expect("tests/vectors/more");
    let mut all: Vec<PathBuf> = entries.map(|e| e.expect("entry").path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    assert!(all.len() >= 7, "{all:?}");
    all
}

/// What the program did.
pub struct Ran {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

/// Runs gm-xfrm with these arguments and this standard input.
pub fn run_with<S: AsRef<std::ffi::OsStr>>(args: &[S], input: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gm-xfrm"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gm-xfrm runs");
    let mut stdin = child.stdin.take().expect("stdin");
    let input = input.to_vec();
    // It may end without reading all.
    let writer = std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("gm-xfrm ends");
    writer.join().expect("writer");
    Ran {
        code: status.code().expect("not killed"),
        out: stdout,
        err: String::from_utf8(stderr).expect("text"),
    }
}

/// Runs gm-xfrm with these arguments.
pub fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Ran {
    run_with(args, b"")
}

/// A folder of its own for a test, removed at the end.
pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Dir {
        Dir(tempfile::tempdir().expect("temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and returns its path.
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("write");
        path
    }

    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("folder");
        let mut names: Vec<String> = entries
            .map(|e| e.expect("entry").file_name().into_string().expect("name"))
            .collect();
        names.sort();
        names
    }

    /// `pcap open` of a capture, with what it wrote: plain and report.
    pub fn open(&self, sad: &Path, input: &Path, more: &[&str]) -> (Vec<u8>, String) {
        let (plain, report) = (self.path("plain.out"), self.path("report.out"));
        let mut args = vec!["pcap".into(), "open".into(), "--sad".into(), sad.into()];
        args.extend(["--out".into(), plain.clone()]);
        args.extend(["--report".into(), report.clone()]);
        args.extend(more.iter().map(PathBuf::from));
        args.push(input.into());
        let ran = run(&args);
        assert_eq!(ran.code, 0, "{}", ran.err);
        (
            read(&plain),
            String::from_utf8(read(&report)).expect("text"),
        )
    }

    /// `pcap seal` of a capture, with what it wrote and said.
    pub fn seal(&self, sad: &Path, input: &Path) -> (Vec<u8>, String) {
        let out = self.path("sealed.out");
        let ran = run(&[
            "pcap".as_ref(),
            "seal".as_ref(),
            "--sad".as_ref(),
            sad,
            "--out".as_ref(),
            &out,
            input,
        ]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        (read(&out), ran.err)
    }
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The lines of a report as JSON values: spaces do not count.
pub fn lines(text: &str) -> Vec<serde_json::Value> {
    let parse = |line| serde_json::from_str(line).expect("a line of JSON");
    text.lines().map(parse).collect()
}

/// The verdicts of a report, in order.
pub fn verdicts(text: &str) -> Vec<String> {
    let verdict = |line: serde_json::Value| line["verdict"].as_str().expect("word").to_string();
    lines(text).into_iter().map(verdict).collect()
}

/// One record of a pcap: the timestamp's words and the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub sec: u32,
    pub fraction: u32,
    pub wire_len: u32,
    pub data: Vec<u8>,
}

/// The records of a little-endian pcap.
pub fn records(pcap: &[u8]) -> Vec<Record> {
    let word = |at: usize| u32::from_le_bytes(pcap[at..at + 4].try_into().expect("word"));
    assert_eq!(word(0) & 0xffff_0000, 0xa1b2_0000, "little-endian pcap");
    let (mut at, mut records) = (24, Vec::new());
    while at < pcap.len() {
        let len = word(at + 8) as usize;
        records.push(Record {
            sec: word(at),
            fraction: word(at + 4),
            wire_len: word(at + 12),
            data: pcap[at + 16..at + 16 + len].to_vec(),
        });
        at += 16 + len;
    }
    records
}

/// The packets of a little-endian pcap.
pub fn packets(pcap: &[u8]) -> Vec<Vec<u8>> {
    records(pcap).into_iter().map(|r| r.data).collect()
}

/// Numbers in a byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Little,
    Big,
}

impl Order {
    pub fn four(self, n: u32) -> [u8; 4] {
        match self {
            Order::Little => n.to_le_bytes(),
            Order::Big => n.to_be_bytes(),
        }
    }

    pub fn two(self, n: u16) -> [u8; 2] {
        match self {
            Order::Little => n.to_le_bytes(),
            Order::Big => n.to_be_bytes(),
        }
    }
}

/// The header of a pcap.
pub fn pcap_header(order: Order, magic: u32, snaplen: u32, network: u32) -> Vec<u8> {
    let mut bytes = order.four(magic).to_vec();
    bytes.extend(order.two(2));
    bytes.extend(order.two(4));
    for word in [0, 0, snaplen, network] {
        bytes.extend(order.four(word));
    }
    bytes
}

/// A pcap with these records.
pub fn pcap(order: Order, magic: u32, network: u32, records: &[Record]) -> Vec<u8> {
    let mut bytes = pcap_header(order, magic, 262_144, network);
    for record in records {
        for word in [
            record.sec,
            record.fraction,
            record.data.len() as u32,
            record.wire_len,
        ] {
            bytes.extend(order.four(word));
        }
        bytes.extend(&record.data);
    }
    bytes
}

/// A pcapng block around this body.
pub fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let total = order.four(padded as u32 + 12);
    let mut bytes = order.four(kind).to_vec();
    bytes.extend(total);
    bytes.extend(body);
    bytes.resize(8 + padded, 0);
    bytes.extend(total);
    bytes
}

/// A section header block, with a section length of `len`.
pub fn section(order: Order, len: [u8; 8]) -> Vec<u8> {
    let mut body = order.four(0x1a2b_3c4d).to_vec();
    body.extend(order.two(1));
    body.extend(order.two(0));
    body.extend(len);
    block(order, 0x0a0d_0d0a, &body)
}

/// An option of a block.
pub fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = order.two(code).to_vec();
    bytes.extend(order.two(value.len() as u16));
    bytes.extend(value);
    bytes.resize(4 + value.len().next_multiple_of(4), 0);
    bytes
}

/// An interface description block.
pub fn interface(order: Order, link: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
    let mut body = order.two(link).to_vec();
    body.extend(order.two(0));
    body.extend(order.four(snaplen));
    body.extend(options);
    block(order, 1, &body)
}

/// An enhanced packet block.
pub fn enhanced(order: Order, interface: u32, time: u64, data: &[u8], options: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for word in [
        interface,
        (time >> 32) as u32,
        time as u32,
        data.len() as u32,
        data.len() as u32,
    ] {
        body.extend(order.four(word));
    }
    body.extend(data);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend(options);
    block(order, 6, &body)
}
