//! Whole registrations in memory: UE, edge and home network (TS 33.203 clauses 6.1, 7.2 to 7.4, M.7).

mod bidding;
mod failures;
mod legacy;
mod parts;
mod registrations;
mod world;

use gm_sip::edge::FlowEvent;

fn replaced(from: &'static str, to: &'static str) -> Box<dyn FnMut(Vec<u8>) -> Option<Vec<u8>>> {
    Box::new(move |bytes| {
        Some(
            String::from_utf8(bytes)
                .expect("text")
                .replace(from, to)
                .into_bytes(),
        )
    })
}

fn name(event: &FlowEvent) -> &'static str {
    match event {
        FlowEvent::Sm1 { .. } => "SM1",
        FlowEvent::Sm4 { .. } => "SM4",
        FlowEvent::Sm6 { .. } => "SM6",
        FlowEvent::Sm7 { .. } => "SM7",
        FlowEvent::Sm8 { .. } => "SM8",
        FlowEvent::Sm12 { .. } => "SM12",
        FlowEvent::Refreshed { .. } => "refreshed",
        FlowEvent::Deregistered { .. } => "deregistered",
        FlowEvent::SwitchedOver { .. } => "switched",
        FlowEvent::Removed { .. } => "removed",
        FlowEvent::Refused { .. } => "refused",
    }
}
