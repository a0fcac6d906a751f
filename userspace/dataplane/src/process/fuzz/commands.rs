//! What the control side may do between two batches.

use std::sync::atomic::Ordering;

use gm_sadb::{Dir, SetId};

use super::Run;
use super::input::Input;
use super::peer::slot;
use crate::table::Entry;

impl Run {
    /// Gives the worker a phone's SAs; the outbound one is active.
    pub(super) fn load(&mut self, nth: usize) {
        let (slot, peer) = (slot(nth), &mut self.peers[nth]);
        let ctx = &mut self.bench.process.ctx;
        let set = SetId(nth as u64 + 1);
        let inbound = Entry::new(
            slot,
            set,
            Dir::In,
            peer.inbound.sa.clone(),
            [slot + 1].into_iter().collect(),
        );
        let outbound = Entry::new(
            slot + 1,
            set,
            Dir::Out,
            peer.outbound.sa.clone(),
            std::iter::empty().collect(),
        );
        ctx.load(inbound);
        ctx.load(outbound);
        ctx.table.activate(slot + 1);
        (peer.loaded, peer.active) = (true, true);
    }

    pub(super) fn command(&mut self, input: &mut Input<'_>) {
        let nth = input.below(2);
        let ctx = &mut self.bench.process.ctx;
        match input.u8() % 5 {
            0 => {
                ctx.unload(slot(nth));
                ctx.unload(slot(nth) + 1);
                (self.peers[nth].loaded, self.peers[nth].active) = (false, false);
            }
            1 | 2 => self.load(nth),
            3 => {
                ctx.table.deactivate(slot(nth) + 1);
                self.peers[nth].active = false;
            }
            _ => {
                ctx.table.activate(slot(nth) + 1);
                self.peers[nth].active = self.peers[nth].loaded;
            }
        }
    }

    pub(super) fn settings(&mut self, input: &mut Input<'_>) {
        match input.u8() % 4 {
            0 => self.bench.starve(input.below(24)),
            1 => self.bench.feed(),
            2 => {
                let mtu = input.pick(&[1500, 1280, 1400, 576, 9000]);
                self.bench
                    .process
                    .ctx
                    .settings
                    .uplink_mtu
                    .store(mtu, Ordering::Relaxed);
            }
            _ => {
                self.bench.process.ctx.settings.follow = input.u8() & 1 == 1;
                self.peers[input.below(2)].port = input.u16().max(1);
            }
        }
    }
}
