//! SAs that come and go under traffic.
