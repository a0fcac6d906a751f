//! What to look at when packets are dropped for a reason; the table of README.

use gm_dataplane::Reason;

/// What to look at. Empty for what is no drop.
pub fn advice(reason: Reason) -> &'static str {
    use Reason as R;
    match reason {
        R::UnknownSpi => {
            "the phone still uses SAs that are gone (a restart, an expired registration), or they \
             are another P-CSCF's: it has to register again; gmespctl explain ADDRESS"
        }
        R::CleartextProtected => {
            "a forgery, or a phone that believes it has SAs and has none: gmespctl explain ADDRESS"
        }
        R::ModeMismatch => {
            "a NAT that came or went, or that the registration did not see: the phone has to \
             register again"
        }
        R::BadIcv => "tampered with, or the ends hold different keys: IK and CK, suite, Annex I",
        R::Replay | R::Stale => {
            "copies, or packets later than the window is wide: raise replay_window if the network \
             reorders that much"
        }
        R::SelectorMismatch => {
            "the inside has other addresses or ports than the SA: a phone behind a NAT in \
             transport mode, swapped ports, or a wrong SAD.toml"
        }
        R::Keepalive | R::Dummy => "nothing: swallowed by design",
        R::NotEsp | R::Malformed | R::FragmentOverlap => {
            "lengths or fragments that contradict each other: a broken sender or an attack"
        }
        R::FragmentTimeout | R::FragmentLimit => {
            "fragments that never became whole, or too many of them: loss on the way, or a flood"
        }
        R::OutNoSa => {
            "an application sends from a protected port to a phone that has no active SAs for that \
             port, or by another interface than the uplink"
        }
        R::OutNoEncapPort => "nothing that verified has come from this phone through its NAT yet",
        R::OutTooBig => "does not fit and must not be cut; for TCP this corrects itself",
        R::OutMalformed => {
            "not parseable, more than two VLAN tags, or a fragment whose first one was not seen"
        }
        R::OutSeqExhausted => "the SA has used its last number: the phone has to register again",
        R::IcvLimited => {
            "forgeries for an SA or from a source, more than are tried: gmespctl drops --by prefix \
             says from where"
        }
        R::FragmentRate => {
            "more fragments than are taken in a tenth of a second: a flood, from one source or many"
        }
        R::IcmpUnbelieved | R::ClearIcmp => {
            "ICMP errors about packets that this host has not sent so: forged, or late; they change \
             nothing"
        }
        R::NoFrame | R::RingFull | R::HandoverFull => {
            "more than the workers can do: gmespctl stats shows their rings, gmespctl workers N \
             gives more of them"
        }
        R::NoWorker => "nobody listens on that queue: a daemon that starts, or is gone",
        // What is no drop.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_dataplane::Action;

    #[test]
    fn every_drop_has_advice_and_nothing_else_has() {
        for reason in Reason::ALL {
            let is_drop = reason.action() == Action::Drop;
            assert_eq!(advice(*reason).is_empty(), !is_drop, "{}", reason.name());
        }
    }
}
