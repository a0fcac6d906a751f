//! AF_XDP sockets, link-layer sockets and NIC settings: the fence around Linux.
