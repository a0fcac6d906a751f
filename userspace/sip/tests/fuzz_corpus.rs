//! What fuzzing has kept, and the messages of tests/torture, against the properties
//! of the fuzz targets (tests/fuzz/props), without fuzzing and on stable Rust. A
//! file there with a name of its own is something that was wrong once.

#[path = "../../../tests/fuzz/each.rs"]
mod each;
#[path = "../../../tests/fuzz/props/edge.rs"]
mod edge;
#[path = "../../../tests/fuzz/props/framing.rs"]
mod framing;
#[path = "../../../tests/fuzz/props/message.rs"]
mod message;
#[path = "../../../tests/fuzz/props/sec_agree.rs"]
mod sec_agree;

use each::{LEAST, each, tests};

#[test]
fn messages_keep_their_properties() {
    each(&tests().join("fuzz/corpus/message"), LEAST, message::check);
    each(&tests().join("torture"), 100, message::check);
}

#[test]
fn streams_keep_their_properties() {
    each(&tests().join("fuzz/corpus/framing"), LEAST, framing::check);
    let cut = |bytes: &[u8]| framing::check(&[b"\x07\x01\xc8\x11\n", bytes].concat());
    each(&tests().join("torture"), 100, cut);
}

#[test]
fn lists_keep_their_properties() {
    each(
        &tests().join("fuzz/corpus/sec_agree"),
        LEAST,
        sec_agree::check,
    );
}

#[test]
fn edges_keep_their_properties() {
    each(&tests().join("fuzz/corpus/edge"), 10, edge::check);
}
