//! A successor survives whatever it finds in the region.

use std::sync::atomic::Ordering::Relaxed;

use gm_esp::{Ck, EspKeys, Ik, Mode, SaSpec, SelProto, Selector, Suite};
use gm_region::{COMMON_BYTES, KeyMaterial, RECORD_BYTES, Region, SlotState};
use gm_sadb::{Dir, NewSa, Sadb, SetId};
use proptest::prelude::*;

const STATES: [SlotState; 6] = [
    SlotState::Free,
    SlotState::Installing,
    SlotState::Live,
    SlotState::Standby,
    SlotState::Retiring,
    SlotState::Removing,
];

fn installed() -> Sadb {
    let mut sadb = Sadb::create(8, 64).unwrap();
    let sas: Vec<NewSa> = (0..4u8)
        .map(|n| NewSa {
            spec: SaSpec {
                spi: 300 + u32::from(n),
                mode: Mode::Trans,
                selector: Selector {
                    src: [192, 0, 2, n].into(),
                    dst: [192, 0, 2, 99].into(),
                    src_port: None,
                    dst_port: Some(5060),
                    proto: SelProto::UdpTcp,
                },
                suite: Suite::ALL[usize::from(n)],
                outer: None,
                esn: false,
                replay_window: 64,
            },
            keys: EspKeys::expand(
                Suite::ALL[usize::from(n)],
                &Ik::from_bytes([n; 16]),
                &Ck::from_bytes([n; 16]),
            ),
            dir: if n < 2 { Dir::In } else { Dir::Out },
            first_seq: None,
        })
        .collect();
    sadb.install(SetId(1), &sas[..2]).unwrap();
    sadb.install(SetId(2), &sas[2..]).unwrap();
    sadb
}

fn recover_and_use(sadb: &Sadb) -> Result<(), TestCaseError> {
    let fd = rustix::io::dup(sadb.region().fd()).unwrap();
    let recovered = Sadb::recover(Region::adopt(fd).unwrap());
    let mut sadb = recovered.sadb;
    let rows: Vec<_> = sadb.list().collect();
    prop_assert_eq!(rows.len() + sadb.free(), 8);
    let taken: std::collections::BTreeSet<u32> = rows.iter().map(|r| r.slot).collect();
    prop_assert_eq!(taken.len(), rows.len());
    for row in rows {
        sadb.retire(row.set);
        sadb.remove(row.set);
        prop_assert_eq!(sadb.release(row.set), Ok(()));
    }
    prop_assert_eq!(sadb.free(), 8);
    // Half of them are for inbound SAs.
    for _ in 0..4 {
        prop_assert!(sadb.reserve(&[]).is_ok());
    }
    prop_assert!(sadb.reserve(&[]).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn slots_of_any_content(slots in prop::collection::vec(
        (0..6usize, prop::array::uniform32(any::<u32>()), any::<[u32; 6]>()), 8
    )) {
        let sadb = Sadb::create(8, 64).unwrap();
        for (i, (state, record, words)) in (0..).zip(slots) {
            let slot = sadb.region().slot(i).unwrap();
            let bytes: Vec<u8> = record.iter().flat_map(|w| w.to_ne_bytes()).collect();
            let mut own = *bytes.first_chunk::<RECORD_BYTES>().unwrap();
            if words[3] % 2 == 0 {
                // A place that there is.
                own[20..].copy_from_slice(&(words[4] % 8).to_ne_bytes());
            }
            slot.set_record(&own);
            let place = sadb.region().new_common().unwrap();
            let common = sadb.region().common(place).unwrap();
            common.set_record(bytes[RECORD_BYTES..].first_chunk::<COMMON_BYTES>().unwrap());
            common.set_key_material(&KeyMaterial::default());
            let hot = slot.hot();
            hot.generation.store(words[2], Relaxed);
            hot.set_state(STATES[state]);
        }
        recover_and_use(&sadb)?;
    }

    /// Good sets with some damage: nothing is kept by halves.
    #[test]
    fn damaged_sets_are_not_kept_by_halves(
        damage in prop::collection::vec((0..4u32, 0..COMMON_BYTES, 0..8u32, 0..6usize, 0..3u8), 1..6)
    ) {
        let sadb = installed();
        for (slot, byte, bit, state, what) in damage {
            let common = sadb.region().common(slot).unwrap();
            // Two inbound slots, two outbound ones.
            let slot = sadb.region().slot(slot + slot / 2 * 2).unwrap();
            if what == 0 {
                let mut bytes = slot.record();
                bytes[byte % RECORD_BYTES] ^= 1 << bit;
                slot.set_record(&bytes);
            } else if what == 1 {
                let mut bytes = common.record();
                bytes[byte] ^= 1 << bit;
                common.set_record(&bytes);
            } else {
                slot.hot().set_state(STATES[state]);
            }
        }
        let fd = rustix::io::dup(sadb.region().fd()).unwrap();
        let recovered = Sadb::recover(Region::adopt(fd).unwrap());
        for set in [SetId(1), SetId(2)] {
            let n = recovered.sadb.list_set(set).count();
            prop_assert!(n == 0 || n == 2, "{} of set {}", n, set);
        }
        recover_and_use(&sadb)?;
    }
}
