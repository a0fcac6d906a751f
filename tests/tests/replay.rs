//! Anti-replay to the letter, of a whole data plane: XDP sheds what it knows, the worker judges
//! the rest, and the counters say exactly what happened.

// Each of the programs that share the laboratory uses a part of it.
#[allow(dead_code)]
#[path = "dataplane/far.rs"]
mod far;
#[allow(dead_code)]
#[path = "dataplane/lab.rs"]
mod lab;
#[allow(dead_code)]
#[path = "dataplane/sockets.rs"]
mod sockets;

#[path = "replay/end.rs"]
mod end;
#[path = "replay/esn.rs"]
mod esn;
#[path = "replay/window.rs"]
mod window;

#[test]
#[ignore = "root: namespaces, BPF"]
fn with_three_workers_the_same_holds() {
    lab::again_with_workers(&[
        "end::inbound_the_window_does_not_wrap",
        "end::outbound_stops_at_the_last_number_and_says_so",
        "esn::the_window_reaches_over_the_boundary",
        "esn::traffic_goes_on_both_ways_when_the_low_half_wraps",
        "window::a_whole_window_arrives_late_and_once",
        "window::every_window_ends_exactly_where_it_says",
        "window::numbers_1_to_33_are_accepted_and_their_replays_counted_exactly",
        "window::the_same_number_eight_times_at_once_gives_one_packet",
        "window::what_does_not_verify_moves_neither_the_window_nor_its_hint",
    ]);
}
