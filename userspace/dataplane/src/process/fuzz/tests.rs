//! What fuzzing has kept, without fuzzing.

#[path = "../../../../../tests/fuzz/each.rs"]
mod each;

use each::{LEAST, each, tests};

#[test]
fn fuzz_corpus_of_batches_keeps_its_properties() {
    each(&tests().join("fuzz/corpus/batch"), LEAST, super::batch);
}
