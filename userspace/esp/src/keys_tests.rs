//! Tests of Annex I.
