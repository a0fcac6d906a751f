//! What is in the kernel, as a SAD.toml for gmespd and the offline tools.

use gm_api::sad::{Sad, SadEntry, SadError};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::export::sad;
use crate::group::Grouped;
use crate::kernel::Limits;

const COMMENT: &str = "\
SAs that were in the kernel, with their keys: anyone who has this file can read
and forge what they protect. seq: the next number to send, or the first that
an inbound SA accepts, at the moment of reading.";

/// Why there is no file.
#[derive(Debug, Error)]
pub enum ImportError {
    /// It cannot be written as TOML.
    #[error("cannot write an SA as TOML: {0}")]
    Toml(#[from] toml::ser::Error),
    /// What was written is no SAD.toml.
    #[error("what would be written is not right: {0}")]
    Wrong(#[from] SadError),
}

/// The file, and lines about SAs that it cannot have or that were not safe.
///
/// # Errors
/// [`ImportError`]; what is returned has been read back as it will be.
pub fn file(grouped: &Grouped) -> Result<(Zeroizing<String>, Vec<String>), ImportError> {
    let mut remarks = Vec::new();
    for member in grouped.members() {
        let id = member.state.id;
        if member.is_unprotected() {
            remarks.push(format!(
                "{id}: no replay window in the kernel, which therefore does not know what has \
                 come: what was captured before is accepted once more"
            ));
        }
        if member.state.limits != Limits::default() {
            remarks.push(format!(
                "{id}: it ends by itself in the kernel; SAD.toml cannot say when"
            ));
        }
    }
    let mut sas = grouped.entries();
    sas.retain(|sa| match unsayable(sa) {
        None => true,
        Some(why) => {
            let (spi, to) = (sa.spec.spi, sa.destination());
            remarks.push(format!("SPI {spi:#010x} to {to}: left out: {why}"));
            false
        }
    });
    let text = sad::file(COMMENT, &sas)?;
    Sad::parse("the SAs", &text)?;
    Ok((text, remarks))
}

/// Why a SAD.toml cannot have an SA.
fn unsayable(sa: &SadEntry) -> Option<&'static str> {
    let last = match sa.spec.esn {
        true => i64::MAX as u64,
        false => u32::MAX.into(),
    };
    if sa.spec.spi < 256 {
        Some("its SPI is reserved (RFC 4303 2.1); Kamailio's are those from ipsec_spi_id_start on")
    } else if sa.seq.is_some_and(|seq| seq > last) {
        Some("its numbers are used up")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use gm_api::sad::Dir;

    use super::*;
    use crate::group::group;
    use crate::kernel::{Numbers, plan};

    /// A set of one SA each way, with these numbers in the kernel.
    fn grouped(seq: u64, top: u64, window: u32, esn: bool) -> Grouped {
        let sa = |spi: u32, src: u8, dst: u8, from: u16, to: u16| {
            format!(
                "[[sa]]\nspi = {spi}\nmode = \"trans\"\nsrc = \"192.0.2.{src}\"\n\
                 dst = \"192.0.2.{dst}\"\nsrc_port = {from}\ndst_port = {to}\n\
                 alg = \"null\"\nealg = \"aes-gcm\"\nesn = {esn}\n\
                 ik = \"a1a2a3a4a5a6a7a8a9aaabacadaeafa0\"\n\
                 ck = \"c1c2c3c4c5c6c7c8c9cacbcccdcecfc0\"\n"
            )
        };
        let text = sa(4096, 2, 1, 31_000, 5064) + &sa(4097, 1, 2, 5064, 31_000);
        let sad = Sad::parse("SAD.toml", &text).unwrap();
        let (mut states, mut policies) = (Vec::new(), Vec::new());
        for (sa, dir) in sad.entries.iter().zip([Dir::In, Dir::Out]) {
            let numbers = Numbers {
                seq,
                top,
                window,
                esn,
                ..Numbers::default()
            };
            let plan = plan::sa_with(&sa.spec, &sa.keys, dir, 1, numbers);
            states.push(plan.state);
            policies.extend(plan.policies);
        }
        group(&states, &policies, |_| false)
    }

    fn seqs(grouped: &Grouped) -> (Vec<Option<u64>>, Vec<String>) {
        let (text, remarks) = file(grouped).unwrap();
        let sad = Sad::parse("SAD.toml", &text).unwrap();
        (sad.entries.iter().map(|sa| sa.seq).collect(), remarks)
    }

    #[test]
    fn numbers_are_the_next_ones() {
        assert_eq!(seqs(&grouped(0, 0, 64, false)).0, [None, Some(1)]);
        assert_eq!(seqs(&grouped(7, 9, 64, false)).0, [Some(10), Some(8)]);
        let last = u64::from(u32::MAX);
        assert_eq!(
            seqs(&grouped(last - 1, last - 1, 64, false)).0,
            [Some(last), Some(last)]
        );
    }

    #[test]
    fn an_sa_without_a_number_left_is_not_written() {
        let last = u64::from(u32::MAX);
        let (seqs, remarks) = seqs(&grouped(last, last, 64, false));
        assert_eq!(seqs, []);
        assert_eq!(remarks.len(), 2);
        assert!(remarks[0].contains("numbers are used up"), "{remarks:?}");
    }

    #[test]
    fn extended_numbers_go_on_above_32_bits() {
        let last = u64::from(u32::MAX);
        let (seqs, _) = seqs(&grouped(last, last + 5, 64, true));
        assert_eq!(seqs, [Some(last + 6), Some(last + 1)]);
    }

    #[test]
    fn a_reserved_spi_is_left_out_and_the_rest_is_written() {
        let mut grouped = grouped(7, 9, 64, false);
        let sa = &mut grouped.sets[0].sas[0];
        (sa.found.spec.spi, sa.state.id.spi) = (255, 255);
        sa.state.limits.added = [0, 3600];
        let (seqs, remarks) = seqs(&grouped);
        assert_eq!(seqs, [Some(8)]);
        assert!(remarks[0].contains("it ends by itself"), "{remarks:?}");
        assert!(remarks[1].contains("SPI is reserved"), "{remarks:?}");
    }

    #[test]
    fn a_kernel_without_a_window_is_told_of() {
        let (seqs, remarks) = seqs(&grouped(7, 0, 0, false));
        assert_eq!(seqs, [None, Some(8)]);
        assert_eq!(remarks.len(), 1);
        assert!(
            remarks[0].contains("SPI 0x00001000 to 192.0.2.1: no replay window"),
            "{remarks:?}"
        );
    }
}
