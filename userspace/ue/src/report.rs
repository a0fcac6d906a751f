//! What the protocol says, in the words of [`UeEvent`].

use std::collections::HashMap;
use std::net::IpAddr;

use gm_api::sad::mode_name;
use gm_esp::{Mode, Suite};
use gm_sip::ue::{RequestId, UeEvent as SipEvent};
use gm_sip::{Packet, SaSetRequest, SetToken};

use crate::events::UeEvent;
use crate::host::Arrival;
use crate::phone::Watch;
use crate::trace::Trace;

/// What a report says of a set; no keys.
struct SetView {
    suite: Suite,
    mode: Mode,
    public: IpAddr,
    ports: [u16; 4],
    spis: [u32; 4],
}

/// Remembers what a report needs of the sets and of the messages under way.
#[derive(Default)]
pub struct Reporter {
    sets: HashMap<SetToken, SetView>,
    messages: Vec<RequestId>,
    trace: Option<Trace>,
    ignored: u64,
}

/// Ignored messages that are told one by one.
const TOLD: u64 = 32;

impl Reporter {
    /// One that also traces every message, or not.
    pub fn new(trace: Option<Trace>) -> Reporter {
        Reporter {
            trace,
            ..Reporter::default()
        }
    }

    /// A MESSAGE is on its way.
    pub fn sent(&mut self, id: RequestId) {
        self.messages.push(id);
    }

    /// Watches a phone, and tells what it does.
    pub fn to<'a, F: FnMut(UeEvent)>(&'a mut self, tell: &'a mut F) -> Telling<'a, F> {
        Telling {
            reporter: self,
            tell,
        }
    }

    fn installed(&mut self, request: &SaSetRequest) {
        let params = &request.params;
        let (ue, pcscf) = (params.ue_ends, params.pcscf_ends);
        self.sets.insert(
            request.token,
            SetView {
                suite: params.suite,
                mode: params.mode(),
                public: params.ue,
                ports: [ue.port_c, ue.port_s, pcscf.port_c, pcscf.port_s],
                spis: [ue.spi_c, ue.spi_s, pcscf.spi_c, pcscf.spi_s],
            },
        );
    }

    fn report(&mut self, event: SipEvent, tell: &mut impl FnMut(UeEvent)) {
        match event {
            SipEvent::Sm1 { protected } => {
                let how = if protected {
                    "through the SA in use"
                } else {
                    "in clear"
                };
                tell(flow(
                    "SM1",
                    format!("-> REGISTER with Security-Client, {how}"),
                ));
            }
            SipEvent::Sm6 {
                suite,
                mode,
                public,
                ..
            } => {
                let chosen = format!("{suite} {}", mode_name(mode));
                tell(flow(
                    "SM6",
                    format!("<- 401 with Security-Server: {chosen}, seen at {public}"),
                ));
            }
            SipEvent::Sm7 { set } => {
                let spi = self
                    .sets
                    .get(&set)
                    .map(|view| format!(" (SPI {})", view.spis[3]));
                let spi = spi.unwrap_or_default();
                tell(flow(
                    "SM7",
                    format!("-> REGISTER with Security-Verify, in ESP{spi}"),
                ));
            }
            SipEvent::Registered {
                set,
                expires,
                authenticated,
            } => self.registered(set, expires, authenticated, tell),
            SipEvent::Deregistered => tell(UeEvent::Deregistered),
            SipEvent::Lost => tell(UeEvent::Lost),
            SipEvent::Again { wait } => tell(UeEvent::Again { wait_ms: wait }),
            SipEvent::Failed(why) => tell(UeEvent::Failed {
                reason: why.to_string(),
            }),
            SipEvent::Answered { id, status, .. } => {
                if let Some(at) = self.messages.iter().position(|m| *m == id) {
                    self.messages.swap_remove(at);
                    tell(UeEvent::MessageSent { status });
                }
            }
            SipEvent::Request {
                method,
                from,
                body,
                status,
                transport,
            } => {
                if method == "MESSAGE" && status == 200 {
                    let body = String::from_utf8_lossy(&body).into_owned();
                    tell(UeEvent::MessageReceived {
                        from,
                        body,
                        transport: transport.name().to_ascii_lowercase(),
                    });
                } else {
                    tracing::info!("{method} from the network answered with {status}");
                }
            }
            SipEvent::Resynchronising => tell(flow(
                "SM7",
                "-> REGISTER with AUTS: the challenge's sequence number is not fresh".into(),
            )),
            SipEvent::Ignored { why } => {
                // Anybody can send what is ignored: a flood is told in steps.
                self.ignored += 1;
                let count = self.ignored;
                if count <= TOLD {
                    tell(UeEvent::Ignored {
                        reason: why.to_string(),
                    });
                } else if count.is_power_of_two() {
                    let reason = format!("{why} ({count} messages so far)");
                    tell(UeEvent::Ignored { reason });
                }
            }
        }
    }

    fn registered(
        &self,
        set: SetToken,
        expires: u32,
        authenticated: bool,
        tell: &mut impl FnMut(UeEvent),
    ) {
        let how = if authenticated { "SM12" } else { "200" };
        tell(flow(
            how,
            format!("<- 200, in ESP: registered for {expires} s"),
        ));
        let Some(view) = self.sets.get(&set) else {
            return;
        };
        tell(UeEvent::Registered {
            suite: view.suite.to_string(),
            mode: mode_name(view.mode).into(),
            public_address: view.public,
            ports: view.ports,
            spis: view.spis,
            expires,
            authenticated,
        });
    }
}

/// A reporter with somebody to tell.
pub struct Telling<'a, F> {
    reporter: &'a mut Reporter,
    tell: &'a mut F,
}

impl<F: FnMut(UeEvent)> Watch for Telling<'_, F> {
    fn event(&mut self, event: SipEvent) {
        self.reporter.report(event, self.tell);
    }

    fn installed(&mut self, request: &SaSetRequest) {
        self.reporter.installed(request);
        if let Some(trace) = &mut self.reporter.trace {
            trace.installed(request);
        }
    }

    fn sends(&mut self, packet: &Packet) {
        if let Some(trace) = &mut self.reporter.trace {
            trace.sends(packet);
        }
    }

    fn receives(&mut self, arrival: &Arrival) {
        if let Some(trace) = &mut self.reporter.trace {
            trace.receives(arrival);
        }
    }

    fn refused(&mut self, error: &anyhow::Error) {
        (self.tell)(UeEvent::Failed {
            reason: format!("{error:#}"),
        });
    }

    fn removed(&mut self, set: SetToken) {
        self.reporter.sets.remove(&set);
        if let Some(trace) = &mut self.reporter.trace {
            trace.removed(set);
        }
    }
}

fn flow(message: &str, detail: String) -> UeEvent {
    UeEvent::Flow {
        message: message.into(),
        detail,
    }
}
