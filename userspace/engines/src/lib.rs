//! Ciphers and MACs for ESP, in batches.
