//! An embedded IMS home network: registrar and AKA vectors.
#![forbid(unsafe_code)]
