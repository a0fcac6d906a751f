//! SAs in the forms that other programs read.
//!
//! * [`ip_xfrm`]: commands of iproute2.
//! * [`wireshark`]: Wireshark's table of ESP SAs.
//! * [`json`]: for programs.
//! * [`sad`](mod@sad): `SAD.toml`.
//!
//! Every form can hold keys; who writes it down makes the file with mode 0600.

pub mod ip_xfrm;
pub mod json;
pub mod sad;
#[cfg(test)]
mod tests;
mod text;
pub mod wireshark;

pub(crate) use text::Text;
