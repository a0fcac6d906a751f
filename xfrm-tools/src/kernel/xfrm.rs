//! [`Xfrm`]: the kernel's states and policies, one request at a time.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_xfrm as nl;

use super::error::{Subject, XfrmError};
use super::numbers::Numbers;
use super::policy::{Policy, PolicyId};
use super::socket::Netlink;
use super::state::{Mark, State, StateId};
use super::wire::{event, policy as policy_wire, state as state_wire};

/// Entries of a table that are read at most.
pub const MAX_ENTRIES: usize = 1 << 20;

/// The XFRM tables of one network namespace: that of the thread that opened
/// it. Needs CAP_NET_ADMIN there. Blocks, microseconds to milliseconds.
pub struct Xfrm {
    netlink: Netlink,
}

impl Xfrm {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`XfrmError::NoXfrm`] where the kernel has none of it.
    pub fn open() -> Result<Xfrm, XfrmError> {
        Ok(Xfrm {
            netlink: Netlink::open()?,
        })
    }

    /// All states, those of other programs too.
    ///
    /// # Errors
    /// [`XfrmError::NotAllowed`], [`XfrmError::Restless`], those of the socket.
    pub fn states(&mut self) -> Result<Vec<State>, XfrmError> {
        self.netlink.dump(
            &Subject::States,
            nl::XFRM_MSG_GETSA,
            MAX_ENTRIES,
            |reply| match reply.kind {
                nl::XFRM_MSG_NEWSA => state_wire::parse(reply.payload, state_wire::FIXED).map(Some),
                _ => Ok(None),
            },
        )
    }

    /// All policies but those of sockets.
    ///
    /// # Errors
    /// As [`Xfrm::states`].
    pub fn policies(&mut self) -> Result<Vec<Policy>, XfrmError> {
        let (subject, kind) = (Subject::Policies, nl::XFRM_MSG_GETPOLICY);
        self.netlink
            .dump(&subject, kind, MAX_ENTRIES, |reply| match reply.kind {
                nl::XFRM_MSG_NEWPOLICY => policy_wire::parse(reply.payload, policy_wire::FIXED),
                _ => Ok(None),
            })
    }

    /// One state (without a mark).
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    pub fn state(&mut self, id: StateId) -> Result<State, XfrmError> {
        self.state_with(id, None)
    }

    /// One state whose packets need a mark.
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    pub fn state_with(&mut self, id: StateId, mark: Option<Mark>) -> Result<State, XfrmError> {
        let subject = Subject::State(id);
        let mut found = None;
        self.netlink.ask(
            &subject,
            "",
            |flags| state_wire::by_id(&id, mark, nl::XFRM_MSG_GETSA, flags),
            |reply| {
                if reply.kind == nl::XFRM_MSG_NEWSA {
                    found = Some(state_wire::parse(reply.payload, state_wire::FIXED)?);
                }
                Ok(())
            },
        )?;
        found.ok_or(XfrmError::Answer {
            subject,
            what: "no state in it",
        })
    }

    /// One policy.
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    pub fn policy(&mut self, id: &PolicyId) -> Result<Policy, XfrmError> {
        let subject = Subject::Policy(*id);
        let mut found = None;
        self.netlink.ask(
            &subject,
            "",
            |flags| policy_wire::by_id(id, nl::XFRM_MSG_GETPOLICY, flags),
            |reply| {
                if reply.kind == nl::XFRM_MSG_NEWPOLICY {
                    found = policy_wire::parse(reply.payload, policy_wire::FIXED)?;
                }
                Ok(())
            },
        )?;
        found.ok_or(XfrmError::Answer {
            subject,
            what: "no policy in it",
        })
    }

    /// Makes a state, with its numbers.
    ///
    /// # Errors
    /// [`XfrmError::Exists`], [`XfrmError::NoEsp`], [`XfrmError::NoAlgorithm`].
    pub fn add_state(&mut self, state: &State) -> Result<(), XfrmError> {
        self.put_state(state, nl::XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Changes a state that is there: addresses and ports of the UDP around
    /// ESP, and the selector. Numbers, keys and reqid stay as they are.
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    pub fn update_state(&mut self, state: &State) -> Result<(), XfrmError> {
        self.put_state(state, nl::XFRM_MSG_UPDSA, NLM_F_REPLACE)
    }

    fn put_state(&mut self, state: &State, kind: u16, flags: u16) -> Result<(), XfrmError> {
        let names: Vec<&str> = [
            &state.algorithms.auth,
            &state.algorithms.crypt,
            &state.algorithms.aead,
        ]
        .into_iter()
        .flatten()
        .map(|algorithm| algorithm.name.as_str())
        .collect();
        self.netlink.ask(
            &Subject::State(state.id),
            match kind {
                nl::XFRM_MSG_NEWSA => names.join(" with "),
                // Where it is not there, its algorithms are not to blame.
                _ => String::new(),
            }
            .as_str(),
            |ack| state_wire::out(state, kind, flags | ack),
            |_| Ok(()),
        )
    }

    /// Removes a state (without a mark).
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    pub fn delete_state(&mut self, id: StateId) -> Result<(), XfrmError> {
        self.delete_state_with(id, None)
    }

    /// Removes a state whose packets need a mark.
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    pub fn delete_state_with(&mut self, id: StateId, mark: Option<Mark>) -> Result<(), XfrmError> {
        self.netlink.ask(
            &Subject::State(id),
            "",
            |flags| state_wire::by_id(&id, mark, nl::XFRM_MSG_DELSA, flags),
            |_| Ok(()),
        )
    }

    /// Makes a policy.
    ///
    /// # Errors
    /// [`XfrmError::Exists`]: one of this direction and selector is there,
    /// whatever its priority.
    pub fn add_policy(&mut self, policy: &Policy) -> Result<(), XfrmError> {
        self.put_policy(policy, nl::XFRM_MSG_NEWPOLICY, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a policy, or replaces the one of this direction and selector in
    /// one step: every packet meets either the old or the new one.
    ///
    /// # Errors
    /// Those of the socket, and [`XfrmError::Refused`].
    pub fn update_policy(&mut self, policy: &Policy) -> Result<(), XfrmError> {
        self.put_policy(policy, nl::XFRM_MSG_UPDPOLICY, NLM_F_REPLACE)
    }

    fn put_policy(&mut self, policy: &Policy, kind: u16, flags: u16) -> Result<(), XfrmError> {
        self.netlink.ask(
            &Subject::Policy(policy.id),
            "",
            |ack| policy_wire::out(policy, kind, flags | ack),
            |_| Ok(()),
        )
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    pub fn delete_policy(&mut self, id: &PolicyId) -> Result<(), XfrmError> {
        self.netlink.ask(
            &Subject::Policy(*id),
            "",
            |flags| policy_wire::by_id(id, nl::XFRM_MSG_DELPOLICY, flags),
            |_| Ok(()),
        )
    }

    /// Numbers and window of a state, read under its lock.
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    pub fn numbers(&mut self, id: StateId) -> Result<Numbers, XfrmError> {
        let like = self.state(id)?.numbers;
        let subject = Subject::State(id);
        let mut found = None;
        self.netlink.ask(
            &subject,
            "",
            |flags| state_wire::get_numbers(&id, flags),
            |reply| {
                if reply.kind == nl::XFRM_MSG_NEWAE {
                    found = Some(event::numbers(reply.payload, Some(&like))?.1);
                }
                Ok(())
            },
        )?;
        found.ok_or(XfrmError::Answer {
            subject,
            what: "no numbers in it",
        })
    }

    /// Sets numbers and window of a state, whatever they were. The window must
    /// have the size and the form that the state has.
    ///
    /// # Errors
    /// [`XfrmError::Missing`]; [`XfrmError::Unsuitable`] for another window.
    pub fn set_numbers(&mut self, id: StateId, numbers: &Numbers) -> Result<(), XfrmError> {
        let subject = Subject::State(id);
        // Some kernels write past their memory, or to none, when they differ.
        let has = self.state(id)?.numbers;
        if (has.legacy, has.esn, has.window) != (numbers.legacy, numbers.esn, numbers.window) {
            return Err(XfrmError::Unsuitable {
                subject,
                what: "its replay window has another size or form",
            });
        }
        self.netlink.ask(
            &subject,
            "",
            |flags| state_wire::numbers_of(&id, None, numbers, flags),
            |_| Ok(()),
        )
    }
}
