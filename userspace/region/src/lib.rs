//! Shared memory: the memfd region of hot SA state and mapped BPF arrays.
