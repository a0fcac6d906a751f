//! What a worker does beside the cryptography.

fn main() {}
