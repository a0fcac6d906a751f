//! Every engine against the reference engine, byte for byte: a batch of packets of
//! any transform, length and place in memory, sealed, damaged here and there, and
//! opened.

use gm_engines::{Engine, Job, Key, Level, Transform, reference};

use super::input::Input;

/// Most packets of a batch: more than an engine looks at together.
const BATCH: usize = 80;
/// Most bytes before a packet in its buffer.
const OFFSETS: usize = 64;

struct Packet {
    transform: Transform,
    secret: [u8; 44],
    salt: [u8; 4],
    /// The packet with what stands before it in its buffer, and behind it.
    buffer: Vec<u8>,
    offset: usize,
    len: usize,
    seq_hi: Option<u32>,
    /// The bit that is turned over between sealing and opening.
    damage: Option<usize>,
}

fn packet(input: &mut Input<'_>) -> Packet {
    let transform = input.pick(&Transform::ALL);
    let mut fill = input.u32() | 1;
    let mut next = || {
        fill ^= fill << 13;
        fill ^= fill >> 17;
        fill ^= fill << 5;
        fill as u8
    };
    let secret = std::array::from_fn(|_| next());
    let salt = std::array::from_fn(|_| next());
    let choices = input.u8();
    let offset = input.below(OFFSETS);
    // Of all lengths the short ones, and those around a limit.
    let body = match choices & 3 {
        0 => input.below(64),
        1 => input.below(2000),
        2 => 64 * input.below(40),
        _ => 4 * input.below(300),
    };
    let mut len = 8 + transform.iv_len() + body + transform.icv_len();
    if choices & 4 == 0 {
        // Not every length is one of the transform's.
        let block = transform.block();
        len = 8 + transform.iv_len() + body.max(1).next_multiple_of(block) + transform.icv_len();
    }
    let seq_hi = (choices & 8 != 0).then(|| input.u32());
    let damage = (choices & 0x30 == 0x30).then(|| usize::from(input.u16()));
    Packet {
        transform,
        secret,
        salt,
        buffer: (0..offset + len + 16).map(|_| next()).collect(),
        offset,
        len,
        seq_hi,
        damage,
    }
}

fn key(packet: &Packet, level: Level) -> Key {
    let (integrity, rest) = packet.secret.split_at(packet.transform.integrity_key_len());
    let encryption = &rest[..packet.transform.encryption_key_len()];
    Key::made_for(level, packet.transform, integrity, encryption, packet.salt)
        .expect("the key has the transform's length")
}

fn run(
    engine: &dyn Engine,
    packets: &[Packet],
    keys: &[Key],
    buffers: &mut [Vec<u8>],
    open: bool,
) -> Vec<bool> {
    let mut jobs: Vec<Job<'_>> = packets
        .iter()
        .zip(keys)
        .zip(buffers)
        .map(|((packet, key), buffer)| Job {
            key,
            esp: &mut buffer[packet.offset..packet.offset + packet.len],
            seq_hi: packet.seq_hi,
            ok: false,
        })
        .collect();
    if open {
        engine.open(&mut jobs);
    } else {
        engine.seal(&mut jobs);
    }
    jobs.iter().map(|job| job.ok).collect()
}

/// What the reference engine makes of a batch.
struct Want {
    keys: Vec<Key>,
    sealed: (Vec<bool>, Vec<Vec<u8>>),
    damaged: Vec<Vec<u8>>,
    opened: (Vec<bool>, Vec<Vec<u8>>),
}

fn want(packets: &[Packet]) -> Want {
    let keys: Vec<Key> = packets.iter().map(|p| key(p, Level::Portable)).collect();
    let mut buffers: Vec<Vec<u8>> = packets.iter().map(|p| p.buffer.clone()).collect();
    let said = run(reference(), packets, &keys, &mut buffers, false);
    let sealed = (said, buffers.clone());
    for (packet, buffer) in packets.iter().zip(&mut buffers) {
        if let Some(bit) = packet.damage
            && packet.len > 0
        {
            buffer[packet.offset + bit / 8 % packet.len] ^= 1 << (bit % 8);
        }
    }
    let damaged = buffers.clone();
    let said = run(reference(), packets, &keys, &mut buffers, true);
    Want {
        keys,
        sealed,
        damaged,
        opened: (said, buffers),
    }
}

/// The properties.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let mut packets = Vec::new();
    let crossed = input.u8() & 7 == 0;
    while !input.is_empty() && packets.len() < BATCH {
        packets.push(packet(&mut input));
    }
    let want = want(&packets);
    for (i, packet) in packets.iter().enumerate() {
        let fits = packet.transform.fits(packet.len);
        assert_eq!(want.sealed.0[i], fits, "sealed");
        assert_eq!(want.opened.0[i], fits && packet.damage.is_none(), "opened");
        if !want.opened.0[i] {
            assert!(want.opened.1[i] == want.damaged[i], "touched");
        }
    }
    for level in Level::ALL {
        let Some(engine) = level.engine() else {
            continue;
        };
        let own: Vec<Key> = packets.iter().map(|p| key(p, level)).collect();
        // The other way round with keys of the reference engine, and it with ours.
        let sets: &[(&dyn Engine, &[Key])] = if crossed {
            &[(engine, &own), (engine, &want.keys), (reference(), &own)]
        } else {
            &[(engine, &own)]
        };
        for (engine, keys) in sets {
            let mut buffers: Vec<Vec<u8>> = packets.iter().map(|p| p.buffer.clone()).collect();
            let said = run(*engine, &packets, keys, &mut buffers, false);
            assert!(said == want.sealed.0 && buffers == want.sealed.1, "{level}");
            let mut buffers = want.damaged.clone();
            let said = run(*engine, &packets, keys, &mut buffers, true);
            assert!(said == want.opened.0 && buffers == want.opened.1, "{level}");
        }
    }
}
