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
