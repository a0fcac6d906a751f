//! What the router between phone and gmespd sees, from both sides.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use gm_abi::wire::{ESP, L3, TCP, UDP, parse_frame};
use gm_sip::SaSetRequest;
use gm_ue::keys_out::KeysOut;
use gm_xsk::LinkSocket;

use crate::net::Net;

/// A running capture of both of the router's interfaces: what the kernel has sealed
/// comes to one, what gmesp has sealed to the other. And the keys of all that.
pub struct Wire {
    place: PathBuf,
    keys: KeysOut,
    /// Protected ports of both ends.
    ports: Vec<u16>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Frame>>,
}

/// A frame, and which of the interfaces it came to.
struct Frame {
    bytes: Vec<u8>,
    from_phone: bool,
}

impl Wire {
    /// Begins. Keys and capture come out of a VM, under this name, or stay with the
    /// laboratory.
    pub fn new(net: &Net, name: &str) -> Wire {
        let out = std::env::var_os("GM_VM_OUT").map(|out| Path::new(&out).join("kernel_phone"));
        let place = out.unwrap_or_else(|| net.lab.dir.path().to_owned());
        let plane = if gm_tests::plane::is_kernel() {
            "kernel-"
        } else {
            ""
        };
        let place = place.join(format!("{plane}{name}"));
        std::fs::create_dir_all(&place).expect("a folder");
        let sides = net.middle.run(|| ["m0", "m1"].map(LinkSocket::bind));
        let sides = sides.map(|s| s.expect("a packet socket"));
        for side in &sides {
            side.set_receive_buffer(4 << 20).expect("room");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Wire {
            keys: KeysOut::create(&place.join("sad.toml")).expect("a file"),
            place,
            ports: Vec::new(),
            stop,
            thread: std::thread::spawn(move || collect(&sides, &told)),
        }
    }

    /// Has the keys of a set written.
    pub fn installed(&mut self, set: &SaSetRequest) {
        self.keys.write(set).expect("the keys are kept");
        for ends in [set.params.ue_ends, set.params.pcscf_ends] {
            self.ports.extend([ends.port_c, ends.port_s]);
        }
    }

    /// Ends; how often ESP came from each side, in UDP or not. Nothing has shown a
    /// protected port to whoever looks, and the capture is written.
    pub fn ends(self) -> [usize; 2] {
        self.stop.store(true, Ordering::Relaxed);
        let frames = self.thread.join().expect("frames");
        write(&self.place.join("capture.pcap"), &frames);
        esp(&frames, &self.ports)
    }
}

fn collect(sides: &[LinkSocket; 2], stop: &AtomicBool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 65_535];
    loop {
        let last = stop.load(Ordering::Relaxed);
        let before = frames.len();
        for (side, from_phone) in sides.iter().zip([true, false]) {
            loop {
                match side.recv(&mut buffer) {
                    Ok(len) => frames.push(Frame {
                        bytes: buffer[..len].to_vec(),
                        from_phone,
                    }),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => panic!("a packet socket: {e}"),
                }
            }
        }
        if last {
            return frames;
        }
        if frames.len() == before {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Frames with ESP of each side; fragments of it but the first do not count.
fn esp(frames: &[Frame], protected: &[u16]) -> [usize; 2] {
    let mut esp = [0; 2];
    for frame in frames {
        let L3::Ip(ip) = parse_frame(frame.bytes.as_slice()) else {
            continue;
        };
        let ports = ip.ports.map_or([0, 0], |(src, dst)| [src, dst]);
        match ip.proto {
            UDP | TCP => {
                let shown = ports.iter().find(|port| protected.contains(port));
                assert_eq!(shown, None, "in clear: {:02x?}", frame.bytes);
                if ip.proto == UDP && ports.contains(&4500) {
                    esp[usize::from(!frame.from_phone)] += 1;
                }
            }
            ESP => esp[usize::from(!frame.from_phone)] += 1,
            _ => {}
        }
    }
    esp
}

/// A pcap of Ethernet frames, readable by its owner.
fn write(path: &Path, frames: &[Frame]) {
    let written = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        // Version 2.4, no time zone, no limit, Ethernet.
        for word in [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 65_535, 1u32] {
            out.write_all(&word.to_le_bytes())?;
        }
        for (second, frame) in (0u32..).zip(frames) {
            let len = frame.bytes.len() as u32;
            for word in [second, 0, len, len] {
                out.write_all(&word.to_le_bytes())?;
            }
            out.write_all(&frame.bytes)?;
        }
        out.flush()
    };
    written().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
