//! ICVs that do not verify: different keys, or forgeries.

use gm_dataplane::Reason;

use super::Found;
use super::facts::Facts;
use super::hit::{hit, weigh};
use super::words::packets;

/// ICVs that do not verify.
pub(super) fn finding(facts: &Facts) -> Option<Found> {
    const ICV: &[Reason] = &[Reason::BadIcv, Reason::IcvLimited];
    let newest = facts.seen(ICV).next();
    let row = hit(facts, newest, ICV);
    if newest.is_none() && row.is_none() {
        return None;
    }
    let evidence = facts.evidence(ICV);
    let is_limited = evidence
        .iter()
        .any(|line| line.contains(Reason::IcvLimited.name()));
    let limited = if is_limited {
        " So many that only what comes from where the phone last was is still tried."
    } else {
        ""
    };
    // One key opens all of a set, also when it is gone by now.
    let good: u64 = match (row, newest.and_then(|seen| seen.sample.spi)) {
        (Some(row), _) => facts.with(row).map(|row| row.packets).sum(),
        (None, Some(number)) => {
            let same = facts.gone.iter().filter(|gone| gone.spi == number);
            same.map(|gone| gone.packets).max().unwrap_or(0)
        }
        (None, None) => 0,
    };
    let weight = weigh(facts, newest, row);
    if good == 0 {
        let suite = row.map_or_else(String::new, |row| {
            format!(" This end uses {}/{}.", row.sa.alg, row.sa.ealg)
        });
        let whose = match newest {
            Some(_) => "",
            None => " There is no sample of one from this address: they may be somebody else's.",
        };
        let text = format!(
            "ICVs do not verify, and no packet of this SA ever has: the two ends hold different \
             keys, or different algorithms.{suite}{limited}{whose}"
        );
        return Some(Found::new(5, "keys-differ", weight, text).evidence(evidence).advice(
            "IK and CK of this challenge: does the core hand out those that the USIM computes \
             (K, OP or OPc, AMF, the right 401)? Then the suite of Security-Server against what the \
             phone chose, and the expansion of the keys (TS 33.203 Annex I).",
        ));
    }
    let text = format!(
        "Some ICVs do not verify, while {} of the same SA did: packets are damaged or forged on \
         the way.{limited}",
        packets(good)
    );
    Some(
        Found::new(14, "forged", weight, text)
            .evidence(evidence)
            .advice("Compare the sources: forgeries often come from elsewhere than the phone."),
    )
}
