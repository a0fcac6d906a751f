//! The socket: a request, its answers, its acknowledgement.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::protocols::NETLINK_XFRM;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;
use zeroize::{Zeroize, Zeroizing};

use super::error::{Subject, XfrmError};
use super::wire::reply::{Replies, Reply};
use super::wire::{Damaged, Request};

/// The kernel fills up to 32 KiB at a time.
const BUFFER: usize = 64 << 10;
/// How often a dump is made again that met changes.
const DUMPS: u32 = 16;
/// How often the kernel may be without memory for an answer.
const OVERRUNS: u32 = 4;

/// A bound XFRM netlink socket. What it receives is wiped.
pub(crate) struct Netlink {
    socket: Socket,
    buffer: Zeroizing<Vec<u8>>,
    number: u32,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An answer's end.
enum End {
    Ack,
    Refused(i32, String),
    Interrupted,
    Overrun,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> XfrmError {
    move |error| XfrmError::Socket { what, error }
}

impl Netlink {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Netlink, XfrmError> {
        let mut socket = Socket::new(NETLINK_XFRM).map_err(|e| match e.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => XfrmError::NoXfrm(e),
            _ => failed("open")(e),
        })?;
        socket.bind_auto().map_err(failed("bind"))?;
        // Acknowledgements without the request in them, which holds keys, and
        // with the kernel's words. Old kernels know neither.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Netlink {
            socket,
            buffer: Zeroizing::new(Vec::with_capacity(BUFFER)),
            number: 0,
        })
    }

    /// Hears a multicast group.
    pub(crate) fn join(&mut self, group: u32) -> Result<(), XfrmError> {
        let joined = self.socket.add_membership(group);
        joined.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => XfrmError::NotAllowed(Subject::Changes),
            _ => failed("listen")(error),
        })
    }

    /// Larger room for what is not read at once; less than asked for is no
    /// error.
    pub(crate) fn widen(&mut self, bytes: usize) {
        let forced = sockopt::set_socket_recv_buffer_size_force(&self.socket, bytes);
        if forced.is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&self.socket, bytes);
        }
    }

    /// Receives once, and gives all messages to `each`.
    ///
    /// # Errors
    /// `WouldBlock`, ENOBUFS and others of the socket; then nothing was heard.
    pub(crate) fn receive(
        &mut self,
        wait: bool,
        mut each: impl FnMut(Result<Reply<'_>, Damaged>),
    ) -> io::Result<()> {
        let flags = libc::MSG_TRUNC | if wait { 0 } else { libc::MSG_DONTWAIT };
        let (length, from) = loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut *self.buffer, flags) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        // Anybody may send to a netlink socket; the kernel is port 0.
        if from.port_number() == 0 {
            match length > self.buffer.len() {
                true => each(Err(Damaged("a message longer than the kernel makes them"))),
                false => Replies::of(&self.buffer).for_each(each),
            }
        }
        self.buffer.zeroize();
        Ok(())
    }

    /// Sends a request and waits for its acknowledgement; `each` gets what is
    /// answered before. `algorithms` is what a new state asks for, for errors.
    pub(crate) fn ask(
        &mut self,
        subject: &Subject,
        algorithms: &str,
        request: impl Fn(u16) -> Request,
        mut each: impl FnMut(&Reply<'_>) -> Result<(), Damaged>,
    ) -> Result<(), XfrmError> {
        let number = self.send(request(NLM_F_ACK))?;
        match self.answers(subject, number, &mut each)? {
            End::Ack => Ok(()),
            End::Refused(code, text) => Err(XfrmError::from_code(
                subject.clone(),
                code,
                text,
                algorithms,
            )),
            End::Interrupted | End::Overrun => Err(XfrmError::Answer {
                subject: subject.clone(),
                what: "it was lost; whether it was done is not known",
            }),
        }
    }

    /// Reads a table; `start` is called before each attempt, for what was read
    /// before is worth nothing.
    pub(crate) fn dump<T>(
        &mut self,
        subject: &Subject,
        kind: u16,
        most: usize,
        read: impl Fn(&Reply<'_>) -> Result<Option<T>, Damaged>,
    ) -> Result<Vec<T>, XfrmError> {
        let mut overruns = 0;
        for _ in 0..DUMPS {
            let number = self.send(Request::new(kind, NLM_F_DUMP))?;
            let mut found = Vec::new();
            let mut too_many = false;
            let end = self.answers(subject, number, &mut |reply| {
                if found.len() >= most {
                    too_many = true;
                } else if let Some(one) = read(reply)? {
                    found.push(one);
                }
                Ok(())
            })?;
            match end {
                End::Ack if too_many => return Err(XfrmError::TooMany(subject.clone(), most)),
                End::Ack => return Ok(found),
                End::Refused(code, text) => {
                    return Err(XfrmError::from_code(subject.clone(), code, text, ""));
                }
                End::Interrupted => {}
                End::Overrun if overruns < OVERRUNS => overruns += 1,
                End::Overrun => {
                    return Err(failed("receive")(io::Error::from_raw_os_error(
                        libc::ENOBUFS,
                    )));
                }
            }
        }
        Err(XfrmError::Restless(subject.clone(), DUMPS))
    }

    fn send(&mut self, request: Request) -> Result<u32, XfrmError> {
        // 0 is what nobody asked for.
        self.number = self.number.checked_add(1).unwrap_or(1);
        let bytes = request.finish(self.number);
        let kernel = SocketAddr::new(0, 0);
        loop {
            match self.socket.send_to(&bytes, &kernel, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed("send")(e)),
                Ok(_) => return Ok(self.number),
            }
        }
    }

    /// Reads up to the acknowledgement or the dump's end.
    fn answers(
        &mut self,
        subject: &Subject,
        number: u32,
        each: &mut dyn FnMut(&Reply<'_>) -> Result<(), Damaged>,
    ) -> Result<End, XfrmError> {
        let mut end = None;
        let mut damaged = None;
        let mut interrupted = false;
        while end.is_none() {
            let heard = self.receive(true, |reply| {
                let reply = match reply {
                    Ok(reply) if reply.number == number => reply,
                    // An answer to what was given up before.
                    Ok(_) => return,
                    Err(e) => {
                        damaged = Some(e);
                        end = Some(End::Ack);
                        return;
                    }
                };
                interrupted |= reply.is_interrupted();
                match reply.kind {
                    NLMSG_ERROR | NLMSG_DONE => match reply.verdict() {
                        Ok((0, _)) => end = Some(End::Ack),
                        Ok((code, text)) => end = Some(End::Refused(code, text)),
                        Err(e) => {
                            damaged = Some(e);
                            end = Some(End::Ack);
                        }
                    },
                    // One that cannot be read spoils the answer, but what
                    // follows must be read off the socket.
                    _ => {
                        if let Err(e) = each(&reply) {
                            damaged.get_or_insert(e);
                        }
                    }
                }
            });
            match heard {
                Ok(()) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(End::Overrun),
                Err(e) => return Err(failed("receive")(e)),
            }
        }
        match (damaged, end) {
            (Some(Damaged(what)), _) => Err(XfrmError::Answer {
                subject: subject.clone(),
                what,
            }),
            (None, Some(End::Ack)) if interrupted => Ok(End::Interrupted),
            (None, Some(end)) => Ok(end),
            (None, None) => Ok(End::Overrun),
        }
    }
}
