//! Damage anywhere in a capture: an error or verdicts, never a panic, and
//! never a file that cannot be read again.

mod common;

use common::*;
use gm_api::sad::Sad;
use gm_xfrm::{ToolError, open, seal};
use proptest::prelude::*;

fn sad() -> Sad {
    match Sad::load(&case("esp/sad.toml")) {
        Ok(sad) => sad,
        Err(e) => panic!("{e}"),
    }
}

/// The published capture as pcapng with all options.
fn pcapng() -> Vec<u8> {
    let order = Order::Big;
    let mut bytes = section(order, [0xff; 8]);
    let options = [option(order, 9, &[9]), option(order, 0, b"")].concat();
    bytes.extend(interface(order, 101, 0, &options));
    for packet in packets(&read(&case("esp/esp.pcap"))) {
        let options = [option(order, 2, &[0; 4]), option(order, 0, b"")].concat();
        bytes.extend(enhanced(order, 0, 1 << 60, &packet, &options));
    }
    bytes
}

/// Opens and seals; what was written before an error must be readable.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    let sad = sad();
    let (mut plain, mut report) = (Vec::new(), Vec::new());
    let opened = open::capture(&sad, None, bytes, &mut plain, &mut report);
    let written = String::from_utf8_lossy(&report).lines().count() as u64;
    if let Ok(totals) = &opened {
        prop_assert_eq!(totals.packets(), written);
    }
    if !plain.is_empty() {
        let again = open::capture(
            &sad,
            None,
            plain.as_slice(),
            &mut Vec::new(),
            &mut Vec::new(),
        );
        prop_assert!(again.is_ok(), "{:?}", again.err());
    }
    let mut sealer = seal::Sealer::new(&sad).map_err(|e| TestCaseError::fail(e.to_string()))?;
    match seal::capture(&mut sealer, bytes, &mut Vec::new()) {
        Ok(_) => prop_assert!(opened.is_ok()),
        Err(ToolError::Input(_) | ToolError::Output(_)) => {}
        Err(other) => prop_assert!(false, "{other}"),
    }
    Ok(())
}

proptest! {
    #[test]
    fn of_a_pcap(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = read(&case("esp/esp.pcap"));
        *at.get_mut(&mut bytes) = with;
        survives(&bytes)?;
        bytes.truncate(cut.index(bytes.len()));
        survives(&bytes)?;
    }

    #[test]
    fn of_a_pcapng(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = pcapng();
        *at.get_mut(&mut bytes) = with;
        survives(&bytes)?;
        bytes.truncate(cut.index(bytes.len()));
        survives(&bytes)?;
    }

    /// Damage close to the start, where headers, lengths and options are.
    #[test]
    fn of_the_first_blocks(damage in prop::collection::vec((0usize..160, any::<u8>()), 1..6)) {
        let mut bytes = pcapng();
        for (at, with) in damage {
            bytes[at] = with;
        }
        survives(&bytes)?;
    }
}
