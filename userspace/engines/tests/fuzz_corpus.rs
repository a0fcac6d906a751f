//! What the fuzz target `engines` has kept, without any of what fuzzing needs.

#[path = "../../../tests/fuzz/each.rs"]
mod each;
#[path = "../../../tests/fuzz/props/input.rs"]
mod input;
#[path = "../../../tests/fuzz/props/engines.rs"]
mod props;

#[test]
fn fuzz_corpus_of_engines_keeps_its_properties() {
    let folder = each::tests().join("fuzz/corpus/engines");
    each::each(&folder, 90, props::check);
}
